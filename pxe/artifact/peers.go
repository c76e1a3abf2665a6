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
	f, err := k.store.Open(req.GetDigest())
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	size := uint64(st.Size()) //nolint:gosec // not negative
	if req.GetOffset() > size {
		return errs.New(errs.Invalid, "offset %d is behind the end at %d", req.GetOffset(), size)
	}
	if _, err := f.Seek(int64(req.GetOffset()), io.SeekStart); err != nil { //nolint:gosec // bounded above
		return err
	}
	if err := stream.Send(&api.ArtifactChunk{Size: size}); err != nil {
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

// Fetch implements api.ArtifactsServer.
func (k *Keeper) Fetch(ctx context.Context, req *api.FetchArtifactRequest) (*api.FetchArtifactReply, error) {
	if _, err := k.cfg.Caller(ctx); err != nil {
		return nil, err
	}
	if !validDigest.MatchString(req.GetDigest()) || req.GetSize() == 0 || int64(req.GetSize()) < 0 { //nolint:gosec // that is what is asked
		return nil, errs.New(errs.Invalid, "a digest and a size are needed")
	}
	return &api.FetchArtifactReply{}, k.get(ctx, req.GetDigest(), int64(req.GetSize()), req.GetFrom()) //nolint:gosec // checked above
}

// get returns when a file is on this peer's disk.
func (k *Keeper) get(ctx context.Context, digest string, size int64, from []string) error {
	k.want(digest)
	if k.Has(digest) {
		return nil
	}
	fl, err := k.fetch(ctx, digest, size, from)
	if err != nil {
		return err
	}
	select {
	case <-fl.done:
	case <-ctx.Done():
		return ctx.Err() // the transfer goes on
	}
	if k.Has(digest) {
		return nil
	}
	return fl.err
}
