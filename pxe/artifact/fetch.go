package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal"
)

// Bounds of a transfer from a peer.
const (
	fetchStall = 20 * time.Second // without a byte from one peer
	fetchLimit = 2 * time.Minute  // without a byte from any
	pauseMin   = 100 * time.Millisecond
	pauseMax   = 5 * time.Second
)

// flight is one file on its way to this peer: from other peers, from its
// origin, or from one after the other. All who need it share it.
type flight struct {
	want   checksum      // what is known of it: also its name among the flights
	begun  chan struct{} // closed when in or err is set
	in     *incoming     // set before begun; nil when it could not begin, or need not
	check  atomic.Int64  // bytes of an earlier try that were read again, before begun
	done   chan struct{} // closed at the end
	err    error         // set before done, and before begun when in is nil
	digest string        // set before done, when err is nil

	from   []string // guarded by Keeper.mu: members that have it besides those of the record
	origin []string // guarded by Keeper.mu: URLs, for when no live peer gives it
	last   bool     // guarded by Keeper.mu: the origin is asked now, and what it says is the end
}

// failure is why a flight has ended, nil while it is under way.
func (fl *flight) failure() error {
	select {
	case <-fl.done:
		return fl.err
	default:
		return nil
	}
}

// progress is how many bytes of a flight are there, total -1 or 0: not known.
func (fl *flight) progress() (have, total int64) {
	select {
	case <-fl.begun:
		if fl.in != nil {
			return fl.in.progress()
		}
	default:
	}
	return 0, 0
}

// fetch begins to get a file from the peers named, those that its record
// names, and then its origin, or joins the transfer that runs and tells it of
// these. size -1: not known. The transfer does not end with ctx.
func (k *Keeper) fetch(ctx context.Context, want checksum, size int64, from, origin []string) (*flight, error) {
	k.want(want.hex)
	k.mu.Lock()
	fl := k.flights[want.hex]
	joined := fl != nil
	if !joined {
		fl = &flight{want: want, begun: make(chan struct{}), done: make(chan struct{})}
		k.flights[want.hex] = fl
	}
	for _, id := range from {
		if !slices.Contains(fl.from, id) {
			fl.from = append(fl.from, id)
		}
	}
	if fl.origin == nil {
		fl.origin = origin
	}
	k.mu.Unlock()
	if joined {
		return fl, nil
	}
	if err := k.start(ctx, func(ctx context.Context) { k.fly(ctx, fl, size) }); err != nil {
		k.land(fl, "", err)
		return nil, err
	}
	return fl, nil
}

// land ends a flight.
func (k *Keeper) land(fl *flight, digest string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.flights, fl.want.hex)
	fl.digest, fl.err = digest, err
	close(fl.done)
	if fl.in == nil {
		close(fl.begun)
	}
}

// fly is the life of a flight.
func (k *Keeper) fly(ctx context.Context, fl *flight, size int64) {
	if k.Has(fl.want.hex) { // it landed between the look and the start
		k.land(fl, fl.want.hex, nil)
		return
	}
	in, err := k.store.resume(fl.want, size, &fl.check)
	if err != nil {
		k.land(fl, "", err)
		return
	}
	fl.in = in
	close(fl.begun)
	digest := ""
	if err = k.pull(ctx, fl); err == nil {
		digest = in.digest()
		// Before it has its name, so that there is no moment to sweep it; and it
		// counts as just wanted from then on: its record may be on its way.
		defer k.pin(digest)()
		if err = in.commit(); err != nil {
			err = k.blame(fl, err)
		}
	}
	if err != nil {
		in.abort(err)
		k.log.Warn("an artifact could not be fetched", "artifact", fl.want, "err", err)
		k.land(fl, "", err)
		return
	}
	k.land(fl, digest, nil)
	have, _ := in.progress()
	k.log.Info("artifact fetched", "artifact", digest, "bytes", have)
	if k.cfg.Store.View().Artifact(digest) == nil {
		return // the peer that has us fetch it commits the record
	}
	if err := k.say(ctx, digest, api.ArtifactCopy_HAS); err != nil && ctx.Err() == nil {
		k.log.Warn("a new copy could not be recorded, will try again", "artifact", digest, "err", err)
	}
}

// blame names the origin that gave wrong bytes.
func (k *Keeper) blame(fl *flight, err error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !fl.last {
		return err
	}
	return errs.New(errs.KindOf(err), "%s: %w", seal.MaskURL(fl.origin[0]), err)
}

// pull gets what is missing, from one peer after the other and then from the
// origin, until the file is whole, the origin gives it up, or nothing came from
// any peer for too long.
func (k *Keeper) pull(ctx context.Context, fl *flight) error {
	in, name := fl.in, fl.want.hex[:12]
	last, pause := time.Now(), pauseMin
	for {
		if have, size := in.progress(); have == size || have > 0 && size < 0 && in.whole() {
			return nil
		}
		peers, origin := k.sources(fl)
		if len(peers) == 0 && origin == nil {
			return errs.About(errs.NotFound, fl.want.hex, "no other peer has artifact %s", name)
		}
		var failures []error
		for _, peer := range peers {
			before, _ := in.progress()
			err := k.pullFrom(ctx, in, fl.want.hex, peer)
			if err == nil {
				return nil
			}
			if ctx.Err() != nil || errors.Is(err, errs.Busy) {
				return err // stopping, or our own disk is full
			}
			failures = append(failures, fmt.Errorf("from %s: %w", peer, err))
			if now, _ := in.progress(); now > before {
				last, pause = time.Now(), pauseMin
			}
		}
		if origin != nil {
			k.mu.Lock()
			fl.last = true
			k.mu.Unlock()
			return k.fromOrigin(ctx, in, origin)
		}
		err := errors.Join(failures...)
		missing := func(err error) bool { return !errors.Is(err, errs.NotFound) }
		if time.Since(last) > fetchLimit || !slices.ContainsFunc(failures, missing) {
			return errs.About(errs.Unreachable, fl.want.hex, "artifact %s could not be fetched: %w", name, err)
		}
		k.log.Info("artifact is asked for again", "artifact", fl.want.hex, "err", err)
		if err := clock.Pause(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, pauseMax)
	}
}

// sources are the peers to ask: those named, then those that have it by its
// record, the living ones first. Where an origin is known it is not kept
// waiting for the dead.
func (k *Keeper) sources(fl *flight) (peers, origin []string) {
	v := k.cfg.Store.View()
	k.mu.Lock()
	defer k.mu.Unlock()
	var dead []string
	for _, id := range slices.Concat(fl.from, v.Artifact(fl.want.hex).GetCopies()) {
		switch {
		case id == k.cfg.Self || slices.Contains(peers, id) || slices.Contains(dead, id):
		case v.LiveLease(id) == nil:
			dead = append(dead, id)
		default:
			peers = append(peers, id)
		}
	}
	if fl.origin == nil {
		peers = append(peers, dead...)
	}
	return peers, fl.origin
}

// pullFrom gets what is missing from one peer.
func (k *Keeper) pullFrom(ctx context.Context, in *incoming, digest, peer string) error {
	conn, err := k.cfg.PeerConn(peer)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stalled := time.AfterFunc(fetchStall, cancel)
	defer stalled.Stop()
	have, _ := in.progress()
	stream, err := api.NewArtifactsClient(conn).Read(ctx, &api.ReadArtifactRequest{Digest: digest, Offset: uint64(have)}) //nolint:gosec // not negative
	if err != nil {
		return err
	}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if have, size := in.progress(); have < size {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
		if err != nil {
			return err
		}
		stalled.Reset(fetchStall)
		if size := chunk.GetSize(); size != 0 {
			if err := in.announce(int64(size)); err != nil { //nolint:gosec // bounded there
				return errs.New(errs.NotFound, "%w", err)
			}
		}
		if _, err := in.Write(chunk.GetData()); err != nil {
			return err
		}
	}
}
