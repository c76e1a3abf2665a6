package artifact

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/bootpath"
	"github.com/ironring/ironring/internal/errs"
)

// An image that many machines get at once is downloaded by one peer: the first
// in an order that its checksum gives to the live ones (ask.go). The others ask
// that peer, again and again, so that nothing hangs on one long call. The second
// in that order takes its copy while the image arrives: should the first one
// die, it is the one that goes on, at the origin, from where its copy ends. One
// that does not reach the origin, or has no room, says so; who asked it goes to
// the next.

// image is the download of one image at this peer.
type image struct {
	fl    *flight // guarded by Keeper.mu, as the others; nil before it has begun
	done  bool
	err   error
	next  bool          // after err: another peer may be able to
	ended time.Duration // elapsed

	copier string                  // who takes the second copy
	copied *api.FetchArtifactReply // how far that is
}

// How long a failed download is told to those who ask before the next one is
// begun.
const (
	imageErrorKept = 10 * time.Second
	// Where another peer may be able to: so that they go there at once, and do
	// not wait for the same again.
	imageNextKept = 2 * time.Minute
)

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
	v := k.cfg.Store.View()
	if a := v.ArtifactByChecksum(req.GetChecksum()); a != nil && k.reachable(v, a) {
		return &api.CacheImageReply{Digest: a.GetDigest(), DoneBytes: a.GetSize(), TotalBytes: a.GetSize()}, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.cfg.Clock.Elapsed()
	im := k.images[req.GetChecksum()]
	kept := imageErrorKept
	if im != nil && im.next && len(k.order(v, req.GetChecksum())) > 1 {
		kept = imageNextKept
	}
	if im != nil && im.done && (im.err == nil || now-im.ended > kept) {
		im = nil // dropped since, or to be tried again
	}
	if im == nil {
		im = &image{}
		k.images[req.GetChecksum()] = im
		j := func(ctx context.Context) { k.download(ctx, im, sum, req) }
		k.mu.Unlock() // Run may be slow to take it
		err := k.start(ctx, j)
		k.mu.Lock()
		if err != nil {
			im.done, im.err, im.ended = true, err, now
		}
	}
	rep := &api.CacheImageReply{}
	if im.fl != nil {
		done, total := im.fl.progress()
		rep.DoneBytes, rep.TotalBytes, rep.CheckedBytes = uint64(done), uint64(max(total, 0)), uint64(im.fl.check.Load()) //nolint:gosec // not negative
	}
	rep.Copier, rep.CopiedBytes, rep.CopyCheckedBytes = im.copier, im.copied.GetHaveBytes(), im.copied.GetCheckedBytes()
	if im.done && im.err != nil {
		rep.Error, rep.ErrorKind, rep.TryNext = im.err.Error(), errs.KindOf(im.err).String(), im.next
	}
	return rep, nil
}

// download is the life of an image's download: the bytes, a second copy, the
// record.
func (k *Keeper) download(ctx context.Context, im *image, sum checksum, req *api.CacheImageRequest) {
	err := k.obtain(ctx, im, sum, req)
	k.mu.Lock()
	defer k.mu.Unlock()
	im.done, im.err, im.ended = true, err, k.cfg.Clock.Elapsed()
	for sum, old := range k.images { // what ended long ago is of no interest
		if old.done && im.ended-old.ended > time.Hour {
			delete(k.images, sum)
		}
	}
	if err != nil {
		k.log.Warn("an image could not be cached", "checksum", req.GetChecksum(), "err", err)
	}
}

func (k *Keeper) obtain(ctx context.Context, im *image, sum checksum, req *api.CacheImageRequest) error {
	if len(req.GetUrls()) == 0 {
		return errs.About(errs.Invalid, "urls", "no URL given")
	}
	digest, err := k.arrive(ctx, im, sum, req)
	if err != nil {
		k.mu.Lock()
		im.next = elsewhere(err)
		k.mu.Unlock()
		return err
	}
	copies, until, err := k.replicate(ctx, digest, k.others(req.GetChecksum()), k.copyOf(im))
	if err != nil {
		return err
	}
	size, _ := k.store.Size(digest)
	a := &api.Artifact{Digest: digest, Size: uint64(size), Kind: api.Artifact_IMAGE, Name: req.GetName(), Copies: copies} //nolint:gosec // not negative
	if sum.algo != "sha256" {
		a.Alias = req.GetChecksum()
	}
	err = k.propose(ctx, "image cached", &api.Op{Op: &api.Op_ArtifactSet{ArtifactSet: &api.ArtifactSet{Artifact: a, BeforeTick: until}}})
	if err == nil {
		k.log.Info("image cached", "artifact", digest, "bytes", size, "copies", copies)
	}
	return err
}

// arrive returns when an image is on this peer's disk, and on that of the next
// one if that keeps up.
func (k *Keeper) arrive(ctx context.Context, im *image, sum checksum, req *api.CacheImageRequest) (digest string, err error) {
	size := int64(-1)
	if a := k.cfg.Store.View().ArtifactByChecksum(req.GetChecksum()); a != nil { // whose copies are all away
		sum, size = checksum{"sha256", a.GetDigest()}, int64(a.GetSize()) //nolint:gosec // sizes of files
	}
	for {
		fl, err := k.fetch(ctx, sum, size, nil, req.GetUrls())
		if err != nil {
			return "", err
		}
		k.mu.Lock()
		im.fl = fl
		k.mu.Unlock()
		k.besides(ctx, fl, k.others(req.GetChecksum()), k.copyOf(im))
		k.mu.Lock()
		last := fl.last || fl.in == nil
		k.mu.Unlock()
		if fl.err == nil || last || ctx.Err() != nil {
			return fl.digest, fl.err
		}
		// The flight that ran already ended without having asked the origin.
	}
}

// copyOf notes how far the second copy of an image is.
func (k *Keeper) copyOf(im *image) copyTold {
	return func(peer string, at *api.FetchArtifactReply) {
		k.mu.Lock()
		defer k.mu.Unlock()
		im.copier, im.copied = peer, at
	}
}

// besides waits for the end of a flight, and has the next peer follow it
// meanwhile. That is of use, no more: nothing depends on it.
func (k *Keeper) besides(ctx context.Context, fl *flight, others []string, told copyTold) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		<-fl.begun
		if fl.in == nil || fl.want.algo != "sha256" || len(others) == 0 {
			return // without the digest nobody could ask for it
		}
		size := fl.in.sized(ctx)
		if size <= 0 {
			return
		}
		if _, err := k.copyTo(ctx, others[0], fl.want.hex, size, told); err != nil && ctx.Err() == nil {
			k.log.Info("no peer follows the download of an image", "artifact", fl.want.hex, "peer", others[0], "err", err)
		}
	})
	<-fl.done // it ends with Run
	if fl.err != nil {
		cancel()
	}
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
