package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// Bounds of a transfer from a peer.
const (
	fetchStall = 20 * time.Second // without a byte from one peer
	fetchLimit = 2 * time.Minute  // without a byte from any
	pauseMin   = 100 * time.Millisecond
	pauseMax   = 5 * time.Second
)

// flight is one file on its way from a peer to this one. All who need it share
// it.
type flight struct {
	begun chan struct{} // closed when in or err is set
	in    *incoming     // set before begun; nil when it could not begin
	done  chan struct{} // closed at the end
	err   error         // set before done, and before begun when in is nil
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

// fetch begins to get a file from the peers named and those that its record
// names, or joins the transfer that runs. The transfer does not end with ctx.
func (k *Keeper) fetch(ctx context.Context, digest string, size int64, from []string) (*flight, error) {
	k.mu.Lock()
	k.asked[digest] = k.cfg.Clock.Elapsed()
	if fl := k.flights[digest]; fl != nil {
		k.mu.Unlock()
		return fl, nil
	}
	fl := &flight{begun: make(chan struct{}), done: make(chan struct{})}
	k.flights[digest] = fl
	k.mu.Unlock()
	err := k.start(ctx, func(ctx context.Context) { k.fly(ctx, fl, digest, size, from) })
	if err != nil {
		k.land(fl, digest, err)
		return nil, err
	}
	return fl, nil
}

// land ends a flight.
func (k *Keeper) land(fl *flight, digest string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.flights, digest)
	fl.err = err
	close(fl.done)
	if fl.in == nil {
		close(fl.begun)
	}
}

// fly is the life of a flight.
func (k *Keeper) fly(ctx context.Context, fl *flight, digest string, size int64, from []string) {
	if k.Has(digest) { // it landed between the look and the start
		k.land(fl, digest, errs.New(errs.Exists, "artifact %s has just arrived", digest[:12]))
		return
	}
	in, err := k.store.resume(digest, size)
	if err != nil {
		k.land(fl, digest, err)
		return
	}
	fl.in = in
	close(fl.begun)
	if err = k.pull(ctx, in, digest, from); err == nil {
		err = in.commit(digest)
	}
	if err != nil {
		in.abort(err)
		k.log.Warn("an artifact could not be fetched", "artifact", digest, "err", err)
		k.land(fl, digest, err)
		return
	}
	k.land(fl, digest, nil)
	k.log.Info("artifact fetched", "artifact", digest, "bytes", size)
	if k.cfg.Store.View().Artifact(digest) == nil {
		return // the peer that has us fetch it commits the record
	}
	if err := k.say(ctx, digest, api.ArtifactCopy_HAS); err != nil && ctx.Err() == nil {
		k.log.Warn("a new copy could not be recorded, will try again", "artifact", digest, "err", err)
	}
}

// pull gets what is missing, from one peer after the other, until the file is
// whole or nothing came from any of them for too long.
func (k *Keeper) pull(ctx context.Context, in *incoming, digest string, from []string) error {
	last, pause := time.Now(), pauseMin
	for {
		peers := k.sources(digest, from)
		if len(peers) == 0 {
			return errs.About(errs.NotFound, digest, "no other peer has artifact %s", digest[:12])
		}
		var failures []error
		for _, peer := range peers {
			before, size := in.progress()
			if before == size {
				return nil
			}
			err := k.pullFrom(ctx, in, digest, peer)
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
		err := errors.Join(failures...)
		missing := func(err error) bool { return !errors.Is(err, errs.NotFound) }
		if time.Since(last) > fetchLimit || !slices.ContainsFunc(failures, missing) {
			return errs.About(errs.Unreachable, digest, "artifact %s could not be fetched: %w", digest[:12], err)
		}
		k.log.Info("artifact is asked for again", "artifact", digest, "err", err)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, pauseMax)
	}
}

// sources are the peers to ask: those named, then those that have it by its
// record.
func (k *Keeper) sources(digest string, from []string) []string {
	out := slices.Clone(from)
	for _, id := range k.cfg.Store.View().Artifact(digest).GetCopies() {
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return slices.DeleteFunc(out, func(id string) bool { return id == k.cfg.Self })
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
	have, size := in.progress()
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
		if s := chunk.GetSize(); s != 0 && s != uint64(size) { //nolint:gosec // not negative
			return errs.New(errs.NotFound, "it has %d bytes there, not %d", s, size)
		}
		if _, err := in.Write(chunk.GetData()); err != nil {
			return err
		}
	}
}
