package artifact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/bootpath"
	"github.com/ironring/ironring/internal/errs"
)

// An image that many machines get at once is downloaded by one peer: the one
// that its checksum picks among the live ones. The others ask that peer, again
// and again, so that nothing hangs on one long call.

// image is the download of one image at this peer.
type image struct {
	source source
	done   bool
	digest string
	err    error
	ended  time.Duration // elapsed
}

// imageErrorKept is how long a failed download is told to those who ask before
// the next one is begun.
const imageErrorKept = 10 * time.Second

// imagePoll is the pause between two questions to the peer that downloads.
const imagePoll = time.Second

// CacheImage implements api.ArtifactsServer.
func (k *Keeper) CacheImage(ctx context.Context, req *api.CacheImageRequest) (*api.CacheImageReply, error) {
	if _, err := k.cfg.Caller(ctx); err != nil {
		return nil, err
	}
	return k.cacheImage(ctx, req)
}

func (k *Keeper) cacheImage(ctx context.Context, req *api.CacheImageRequest) (*api.CacheImageReply, error) {
	sum, err := parseChecksum(req.GetChecksum())
	if err != nil {
		return nil, err
	}
	if a := k.cfg.Store.View().ArtifactByChecksum(req.GetChecksum()); a != nil && len(a.GetCopies()) > 0 {
		k.want(a.GetDigest())
		return &api.CacheImageReply{Digest: a.GetDigest(), DoneBytes: a.GetSize(), TotalBytes: a.GetSize()}, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.cfg.Clock.Elapsed()
	im := k.images[req.GetChecksum()]
	if im != nil && im.done && (im.err == nil || now-im.ended > imageErrorKept) {
		im = nil // dropped since, or to be tried again
	}
	if im == nil {
		im = &image{source: source{urls: req.GetUrls(), sum: sum}}
		k.images[req.GetChecksum()] = im
		j := func(ctx context.Context) { k.download(ctx, im, req) }
		k.mu.Unlock() // Run may be slow to take it
		err := k.start(ctx, j)
		k.mu.Lock()
		if err != nil {
			im.done, im.err, im.ended = true, err, now
		}
	}
	rep := &api.CacheImageReply{}
	rep.DoneBytes, rep.TotalBytes = im.source.progress()
	if im.done && im.err != nil {
		rep.Error, rep.ErrorKind = im.err.Error(), errs.KindOf(im.err).String()
	}
	return rep, nil
}

// download is the life of an image's download: the bytes, a second copy, the
// record.
func (k *Keeper) download(ctx context.Context, im *image, req *api.CacheImageRequest) {
	digest, err := k.obtain(ctx, im, req)
	k.mu.Lock()
	defer k.mu.Unlock()
	im.done, im.digest, im.err, im.ended = true, digest, err, k.cfg.Clock.Elapsed()
	for sum, old := range k.images { // what ended long ago is of no interest
		if old.done && im.ended-old.ended > time.Hour {
			delete(k.images, sum)
		}
	}
	if err != nil {
		k.log.Warn("an image could not be cached", "checksum", req.GetChecksum(), "err", err)
	}
}

func (k *Keeper) obtain(ctx context.Context, im *image, req *api.CacheImageRequest) (string, error) {
	digest, err := k.fromOrigin(ctx, &im.source)
	if err != nil {
		return "", err
	}
	copies, err := k.Replicate(ctx, digest)
	if err != nil {
		return "", err
	}
	size, _ := k.store.Size(digest)
	a := &api.Artifact{Digest: digest, Size: uint64(size), Kind: api.Artifact_IMAGE, Name: req.GetName(), Copies: copies} //nolint:gosec // not negative
	if im.source.sum.algo != "sha256" {
		a.Alias = req.GetChecksum()
	}
	err = k.propose(ctx, "image cached", &api.Op{Op: &api.Op_ArtifactSet{ArtifactSet: &api.ArtifactSet{Artifact: a}}})
	if err != nil {
		return "", err
	}
	k.log.Info("image cached", "artifact", digest, "bytes", size, "copies", copies)
	return digest, nil
}

// Image returns when the peers have an image with a checksum as an artifact.
// progress is told the bytes that came from the origin, total 0 when that is
// not known. Errors that another try may mend are tried again until ctx ends.
func (k *Keeper) Image(ctx context.Context, urls []string, checksum, name string, progress func(done, total uint64)) (*api.Artifact, error) {
	req := &api.CacheImageRequest{Urls: urls, Checksum: checksum, Name: name}
	var last error
	for {
		v := k.cfg.Store.View()
		if a := v.ArtifactByChecksum(checksum); a != nil && k.reachable(v, a) {
			return a, nil
		}
		rep, err := k.askImage(ctx, k.downloader(v, checksum), req)
		switch {
		case err != nil:
			last = err
		case rep.GetError() != "":
			last = errs.New(errs.ParseKind(rep.GetErrorKind()), "%s", rep.GetError())
		default:
			progress(rep.GetDoneBytes(), rep.GetTotalBytes())
		}
		if last != nil && final(last) {
			return nil, last
		}
		if sleep(ctx, imagePoll) != nil {
			if last != nil {
				return nil, last
			}
			return nil, errs.New(errs.Timeout, "the image did not come: %w", context.Cause(ctx))
		}
	}
}

// final errors of a download are the same at the next try.
func final(err error) bool {
	for _, kind := range []errs.Kind{errs.Invalid, errs.NotFound, errs.Denied, errs.Unsupported} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

func (k *Keeper) askImage(ctx context.Context, peer string, req *api.CacheImageRequest) (*api.CacheImageReply, error) {
	if peer == k.cfg.Self {
		return k.cacheImage(ctx, req)
	}
	conn, err := k.cfg.PeerConn(peer)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return api.NewArtifactsClient(conn).CacheImage(ctx, req)
}

// reachable says whether a live member has an artifact.
func (k *Keeper) reachable(v *fsm.View, a *api.Artifact) bool {
	return slices.ContainsFunc(a.GetCopies(), func(id string) bool { return id == k.cfg.Self || v.LiveLease(id) != nil })
}

// downloader is the peer that downloads an image: the same one as all peers
// see it, as long as it lives.
func (k *Keeper) downloader(v *fsm.View, checksum string) string {
	best, most := k.cfg.Self, uint64(0)
	for _, m := range v.Members() {
		if m.GetPhase() != api.Member_READY || v.LiveLease(m.GetId()) == nil {
			continue
		}
		if score := xxhash.Sum64String(checksum + "\x00" + m.GetId()); score >= most {
			best, most = m.GetId(), score
		}
	}
	return best
}

// Path is where the boot listeners serve an artifact.
func Path(digest string) string { return bootpath.Artifact + digest }

// URLs are where machines get an artifact from: every live peer serves it,
// those first that have it, in an order of their own for each key.
func (k *Keeper) URLs(digest, key string) []string {
	v := k.cfg.Store.View()
	a := v.Artifact(digest)
	type place struct {
		url   string
		has   bool
		score uint64
	}
	var places []place
	for _, m := range v.Members() {
		id := m.GetId()
		if _, _, err := net.SplitHostPort(m.GetBootAddress()); err != nil || m.GetPhase() == api.Member_LEFT {
			continue
		}
		if id != k.cfg.Self && v.LiveLease(id) == nil {
			continue
		}
		places = append(places, place{
			fmt.Sprintf("http://%s%s", m.GetBootAddress(), Path(digest)), slices.Contains(a.GetCopies(), id), xxhash.Sum64String(key + "\x00" + id),
		})
	}
	slices.SortFunc(places, func(a, b place) int {
		if a.has != b.has {
			if a.has {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.score, a.score)
	})
	out := make([]string, len(places))
	for i, p := range places {
		out[i] = p.url
	}
	return out
}
