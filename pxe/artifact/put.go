package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// MaxSize bounds a single artifact: 1 TiB.
const MaxSize = 1 << 40

// Receive stores a file whose bytes next gives, io.EOF after the last. The
// bytes must have the digest and the size. When the file is here already, and
// has the size, next is not called.
func (k *Keeper) Receive(digest string, size uint64, next func() ([]byte, error)) error {
	switch {
	case !validDigest.MatchString(digest):
		return errs.About(errs.Invalid, "digest", "digest %.80q is not 64 lower-case hex digits", digest)
	case size == 0 || size > MaxSize:
		return errs.About(errs.Invalid, "size", "an artifact has 1 byte to 1 TiB, not %d bytes", size)
	}
	defer k.pin(digest)()
	if have, ok := k.store.Size(digest); ok {
		if uint64(have) != size { //nolint:gosec // not negative
			return errs.About(errs.Invalid, "size", "artifact %s is here and has %d bytes, not %d", digest[:12], have, size)
		}
		return nil
	}
	in, err := k.store.receive(checksum{"sha256", digest}, int64(size)) //nolint:gosec // bounded above
	if err != nil {
		return err
	}
	defer in.abort(errs.New(errs.Internal, "the upload ended")) // nothing after commit
	for {
		data, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if _, err := in.Write(data); err != nil {
			return err
		}
	}
	return in.commit()
}

// Replicate has another peer take a copy of a file that is here, and gives
// all members that have it: the copies to commit, before the cluster's clock is
// at until (hold.go). Where the cluster has only this peer that is one copy;
// the leader sees to a second one later.
func (k *Keeper) Replicate(ctx context.Context, digest string) (copies []string, until uint64, err error) {
	return k.replicate(ctx, digest, k.live(), func(string, *api.FetchArtifactReply) {})
}

// replicate asks peers in turn. told hears how far the one is that fetches.
func (k *Keeper) replicate(ctx context.Context, digest string, peers []string, told copyTold) (copies []string, until uint64, err error) {
	defer k.pin(digest)()
	size, ok := k.store.Size(digest)
	if !ok {
		return nil, 0, errs.About(errs.NotFound, digest, "artifact %s is not on this peer", digest[:12])
	}
	copies = []string{k.cfg.Self}
	var failures []error
	for _, peer := range peers {
		kept, err := k.copyTo(ctx, peer, digest, size, told)
		if err == nil {
			if until = k.want(digest); kept > 0 {
				until = min(until, kept)
			}
			return append(copies, peer), until, nil
		}
		if ctx.Err() != nil {
			return nil, 0, ctx.Err()
		}
		k.log.Warn("a peer could not take a copy of an artifact", "artifact", digest, "to", peer, "err", err)
		failures = append(failures, fmt.Errorf("%s: %w", peer, err))
	}
	if others := k.members(); others > 0 {
		return nil, 0, errs.About(errs.Unreachable, digest, "no second peer could take a copy, and an artifact is used only when two have it: %w",
			errors.Join(append(failures, errs.New(errs.Unreachable, "%d other members", others))...))
	}
	return copies, k.want(digest), nil
}

// copyTo has a peer fetch a file from this one, and returns when it has it:
// with the tick until which it keeps that without a record. Meanwhile told
// hears how far it is.
func (k *Keeper) copyTo(ctx context.Context, peer, digest string, size int64, told copyTold) (until uint64, err error) {
	conn, err := k.cfg.PeerConn(peer)
	if err != nil {
		return 0, err
	}
	for {
		rep, err := api.NewArtifactsClient(conn).Fetch(ctx, &api.FetchArtifactRequest{
			Digest: digest, Size: uint64(size), From: []string{k.cfg.Self}, //nolint:gosec // not negative
			WaitMs: uint32(k.cfg.Poll.Milliseconds()), //nolint:gosec // seconds
		})
		if err != nil || !rep.GetArriving() {
			return rep.GetKeptUntilTick(), err
		}
		told(peer, rep)
	}
}

// copyTold hears how far the copy of a file at a peer is, while it arrives.
type copyTold func(peer string, at *api.FetchArtifactReply)

// members is how many members there are besides this one.
func (k *Keeper) members() int {
	n := 0
	for _, m := range k.cfg.Store.View().Members() {
		if m.GetId() != k.cfg.Self && m.GetPhase() != api.Member_LEFT {
			n++
		}
	}
	return n
}
