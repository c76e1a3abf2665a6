package artifact

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// chunk is how many bytes travel in one message.
const chunk = 512 << 10

// Read implements api.ArtifactsServer.
func (k *Keeper) Read(req *api.ReadArtifactRequest, stream grpc.ServerStreamingServer[api.ArtifactChunk]) error {
	if _, err := k.cfg.Caller(stream.Context()); err != nil {
		return err
	}
	select {
	case k.reads <- struct{}{}:
		defer func() { <-k.reads }()
	default:
		return errs.New(errs.Unreachable, "this peer sends %d files already", maxReads)
	}
	defer k.pin(req.GetDigest())()
	f, err := k.readable(stream.Context(), req.GetDigest())
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if req.GetOffset() > uint64(size) { //nolint:gosec // not negative
		return errs.New(errs.Invalid, "offset %d is behind the end at %d", req.GetOffset(), size)
	}
	if _, err := f.Seek(int64(req.GetOffset()), io.SeekStart); err != nil { //nolint:gosec // bounded above
		return err
	}
	if err := stream.Send(&api.ArtifactChunk{Size: uint64(size)}); err != nil { //nolint:gosec // not negative
		return err
	}
	buf := make([]byte, chunk)
	for {
		n, err := io.ReadFull(f, buf)
		if n > 0 {
			if err := stream.Send(&api.ArtifactChunk{Data: buf[:n]}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readable opens a file for another peer: one that is here, or one that comes
// from its origin. What comes from peers is not passed on to peers, so that no
// two wait for each other.
func (k *Keeper) readable(ctx context.Context, digest string) (io.ReadSeekCloser, error) {
	f, err := k.store.Open(digest)
	if !errors.Is(err, errs.NotFound) {
		return f, err
	}
	k.mu.Lock()
	fl := k.flights[digest]
	fed := fl != nil && fl.last
	k.mu.Unlock()
	if fed {
		return fl.in.follow(ctx)
	}
	return nil, err
}

// Fetch implements api.ArtifactsServer.
func (k *Keeper) Fetch(ctx context.Context, req *api.FetchArtifactRequest) (*api.FetchArtifactReply, error) {
	if _, err := k.cfg.Caller(ctx); err != nil {
		return nil, err
	}
	if !validDigest.MatchString(req.GetDigest()) || req.GetSize() == 0 || int64(req.GetSize()) < 0 { //nolint:gosec // that is what is asked
		return nil, errs.New(errs.Invalid, "a digest and a size are needed")
	}
	digest, size := req.GetDigest(), int64(req.GetSize()) //nolint:gosec // checked above
	defer k.pin(digest)()
	kept := func() *api.FetchArtifactReply { return &api.FetchArtifactReply{KeptUntilTick: k.want(digest)} }
	if have, ok := k.store.Size(digest); ok {
		if have != size {
			return nil, errs.About(errs.Invalid, digest, "artifact %s has %d bytes, not %d", digest[:12], have, size)
		}
		return kept(), nil
	}
	fl, err := k.fetch(ctx, checksum{"sha256", digest}, size, req.GetFrom(), nil)
	if err != nil {
		return nil, err
	}
	var late <-chan time.Time // never
	if wait := time.Duration(req.GetWaitMs()) * time.Millisecond; wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		late = t.C
	}
	select {
	case <-fl.done:
		if fl.err != nil {
			return nil, fl.err
		}
		return kept(), nil
	case <-late: // nothing is promised yet
		have, _ := fl.progress()
		return &api.FetchArtifactReply{Arriving: true, HaveBytes: uint64(have), CheckedBytes: uint64(fl.check.Load())}, nil //nolint:gosec // not negative
	case <-ctx.Done():
		return nil, ctx.Err() // the transfer goes on
	}
}
