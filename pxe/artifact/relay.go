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

// relay gives a machine an artifact that is not on this peer and has no room
// here, as it comes from a peer that has it. That peer's file is verified, as
// one of our own would be. A relay belongs to one goroutine.
type relay struct {
	ctx    context.Context // of Open: an io.Reader has no other way to be told
	keeper *Keeper
	peers  []string
	digest string
	size   int64
	off    int64 // where Read goes on

	stream grpc.ServerStreamingClient[api.ArtifactChunk] // nil: none is open
	cancel context.CancelFunc                            // of stream
	rest   []byte                                        // of the last message
	at     int64                                         // where in the file rest begins
}

// passOn opens a relay.
func (k *Keeper) passOn(ctx context.Context, a *api.Artifact) (io.ReadSeekCloser, error) {
	peers, _ := k.sources(&flight{want: checksum{"sha256", a.GetDigest()}})
	r := &relay{ctx: ctx, keeper: k, peers: peers, digest: a.GetDigest(), size: int64(a.GetSize())} //nolint:gosec // sizes of files
	if err := r.open(); err != nil {                                                                // before the machine is told that it gets it
		return nil, err
	}
	return r, nil
}

// open asks one peer after the other for the bytes from the offset on. Those
// that do not have them are not asked again.
func (r *relay) open() error {
	err := errs.About(errs.NotFound, r.digest, "no other peer gives artifact %s", r.digest[:12])
	for ; len(r.peers) > 0; r.peers = r.peers[1:] {
		perr := r.ask(r.peers[0])
		if perr == nil {
			return nil
		}
		r.drop()
		err = errors.Join(err, perr)
	}
	return err
}

func (r *relay) ask(peer string) error {
	conn, err := r.keeper.cfg.PeerConn(peer)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.ctx)
	r.cancel, r.at = cancel, r.off
	r.stream, err = api.NewArtifactsClient(conn).Read(ctx, &api.ReadArtifactRequest{Digest: r.digest, Offset: uint64(r.off)}) //nolint:gosec // not negative
	if err != nil {
		return err
	}
	first, err := r.recv()
	if err == nil && first.GetSize() != uint64(r.size) { //nolint:gosec // not negative
		err = errs.New(errs.NotFound, "it has %d bytes there, not %d", first.GetSize(), r.size)
	}
	return err
}

// recv waits for a message, but not for ever.
func (r *relay) recv() (*api.ArtifactChunk, error) {
	stalled := time.AfterFunc(fetchStall, r.cancel)
	defer stalled.Stop()
	return r.stream.Recv()
}

// Read implements io.Reader.
func (r *relay) Read(p []byte) (int, error) {
	if r.at != r.off { // it was sought
		r.drop()
	}
	for len(r.rest) == 0 {
		if r.off >= r.size {
			return 0, io.EOF
		}
		if r.stream == nil {
			if err := r.open(); err != nil {
				return 0, err
			}
		}
		msg, err := r.recv()
		if err != nil { // the next peer goes on
			r.drop()
			r.peers = r.peers[1:]
			continue
		}
		r.rest = msg.GetData()
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	r.off += int64(n)
	r.at = r.off
	return n, nil
}

// Seek implements io.Seeker.
func (r *relay) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.off
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, errs.New(errs.Invalid, "before the beginning of the file")
	}
	r.off = offset
	return offset, nil
}

func (r *relay) drop() {
	if r.cancel != nil {
		r.cancel()
	}
	r.stream, r.cancel, r.rest = nil, nil, nil
}

// Close implements io.Closer.
func (r *relay) Close() error {
	r.drop()
	return nil
}
