package artifact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
)

// Image returns when the peers have an image with a checksum as an artifact.
// progress is told each time when that has come nearer, and only then: what is
// being done, how many bytes of that are done, and of how many, 0 when that is
// not known. Errors that another try or another peer may mend are tried again
// until ctx ends.
func (k *Keeper) Image(ctx context.Context, urls []string, checksum, name string, progress func(done, total uint64, what string)) (*api.Artifact, error) {
	req := &api.CacheImageRequest{Urls: urls, Checksum: checksum, Name: name}
	seen, failed := newSight(), map[string]bool{}
	var last error
	for {
		v := k.cfg.Store.View()
		if a := v.ArtifactByChecksum(checksum); a != nil && k.reachable(v, a) {
			return a, nil
		}
		peer := nextOf(k.order(v, checksum), failed)
		rep, err := k.askImage(ctx, peer, req)
		switch {
		case errors.Is(err, errs.Invalid):
			return nil, err
		case err != nil: // that peer is not to be had
			if ctx.Err() == nil {
				last = fmt.Errorf("peer %s: %w", peer, err)
			}
		case rep.GetError() != "":
			err = errs.New(errs.ParseKind(rep.GetErrorKind()), "%s", rep.GetError())
			if final(err) {
				return nil, err
			}
			last = fmt.Errorf("peer %s: %w", peer, err)
			failed[peer] = rep.GetTryNext()
		default:
			if done, total, what := seen.moved(peer, rep); what != "" {
				last = nil
				progress(done, total, what)
			}
		}
		if clock.Pause(ctx, k.cfg.Poll) != nil {
			if last != nil {
				return nil, last
			}
			return nil, errs.New(errs.Timeout, "the image did not come: %w", context.Cause(ctx))
		}
	}
}

// nextOf is the first of an order that has not failed. When all have, they are
// asked again from the beginning.
func nextOf(order []string, failed map[string]bool) string {
	for _, id := range order {
		if !failed[id] {
			return id
		}
	}
	clear(failed)
	return order[0]
}

// sight is what an asker saw of an image's way, to tell movement from
// repetition: a peer that fails after the same bytes again and again makes no
// progress.
type sight struct {
	bytes   map[string]uint64 // by who has them: as last told
	checked map[string]uint64 // by who checks: the most that was told
}

func newSight() *sight { return &sight{map[string]uint64{}, map[string]uint64{}} }

// moved says what has come further since the last look, "" when nothing has.
func (s *sight) moved(peer string, rep *api.CacheImageReply) (done, total uint64, what string) {
	copier := peer + "\x00" + rep.GetCopier() // it is another copy when another peer sends it
	came, copied := s.grew(peer, rep.GetDoneBytes()), s.grew(copier, rep.GetCopiedBytes())
	checked, copyChecked := s.more(peer, rep.GetCheckedBytes()), s.more(copier, rep.GetCopyCheckedBytes())
	switch {
	case came:
		return rep.GetDoneBytes(), rep.GetTotalBytes(), "peer " + peer + " downloads the image"
	case copied:
		return rep.GetCopiedBytes(), rep.GetTotalBytes(), "peer " + rep.GetCopier() + " takes the second copy of the image"
	case checked:
		return rep.GetCheckedBytes(), 0, "peer " + peer + " checks what it has of the image"
	case copyChecked:
		return rep.GetCopyCheckedBytes(), 0, "peer " + rep.GetCopier() + " checks what it has of the image"
	}
	return 0, 0, ""
}

// grew compares with what was told last. Fewer bytes are a new beginning, none
// are not known yet.
func (s *sight) grew(who string, now uint64) bool {
	was := s.bytes[who]
	if now > 0 {
		s.bytes[who] = now
	}
	return now > was
}

// more compares with the most that was ever told: each try checks all again.
func (s *sight) more(who string, now uint64) bool {
	was := s.checked[who]
	s.checked[who] = max(was, now)
	return now > was
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

// elsewhere says that an error of a download is of the peer that met it:
// it does not reach the origin, or its disk is full. Another one may do better.
func elsewhere(err error) bool {
	return !final(err) && (errors.Is(err, errs.Unreachable) || errors.Is(err, errs.Timeout) || errors.Is(err, errs.Busy))
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

// reachable says whether a member that can be asked has an artifact.
func (k *Keeper) reachable(v *fsm.View, a *api.Artifact) bool {
	return slices.ContainsFunc(a.GetCopies(), func(id string) bool {
		if id == k.cfg.Self {
			return k.Has(a.GetDigest())
		}
		return v.LiveLease(id) != nil
	})
}

// order is the live peers in the order in which they download an image: the
// same one as all peers see it, as long as they live.
func (k *Keeper) order(v *fsm.View, checksum string) []string {
	var out []string
	for _, m := range v.Members() {
		if m.GetPhase() == api.Member_READY && v.LiveLease(m.GetId()) != nil {
			out = append(out, m.GetId())
		}
	}
	score := func(id string) uint64 { return xxhash.Sum64String(checksum + "\x00" + id) }
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(cmp.Compare(score(b), score(a)), cmp.Compare(a, b)) })
	if len(out) == 0 {
		return []string{k.cfg.Self}
	}
	return out
}

// others is that order without this peer.
func (k *Keeper) others(checksum string) []string {
	return slices.DeleteFunc(k.order(k.cfg.Store.View(), checksum), func(id string) bool { return id == k.cfg.Self })
}
