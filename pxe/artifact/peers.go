package artifact

import (
	"context"
	"errors"
	"io"

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
	defer k.pin(req.GetDigest())()
	if err := k.get(ctx, req.GetDigest(), int64(req.GetSize()), req.GetFrom()); err != nil { //nolint:gosec // checked above
		return nil, err
	}
	return &api.FetchArtifactReply{KeptUntilTick: k.want(req.GetDigest())}, nil
}

// get returns when a file is on this peer's disk. The caller has pinned it.
func (k *Keeper) get(ctx context.Context, digest string, size int64, from []string) error {
	if have, ok := k.store.Size(digest); ok {
		if have != size {
			return errs.About(errs.Invalid, digest, "artifact %s has %d bytes, not %d", digest[:12], have, size)
		}
		return nil
	}
	fl, err := k.fetch(ctx, checksum{"sha256", digest}, size, from, nil)
	if err != nil {
		return err
	}
	select {
	case <-fl.done:
	case <-ctx.Done():
		return ctx.Err() // the transfer goes on
	}
	return fl.err
}
