package client

import (
	"context"
	"errors"
	"io"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// PutArtifact stores a file of the size and digest that head says. file is
// read from its start at each try. The call is not bounded by Config.Timeout:
// ctx bounds it. It may be repeated: the same bytes are the same artifact.
// progress is told how many bytes were sent; it may be nil.
func (c *Client) PutArtifact(ctx context.Context, head *api.PutArtifactHead, file io.ReadSeeker, progress func(sent uint64)) (*api.ArtifactReply, error) {
	failed := make(map[int]error)
	i := c.start()
	for try := 1; ; try++ {
		e := c.endpoints[i]
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return nil, errs.New(errs.Invalid, "read the file: %w", err)
		}
		rep, err := put(ctx, e, head, file, progress)
		switch {
		case err == nil:
			c.observe(e, rep.GetIndex())
			return rep, nil
		case ctx.Err() != nil:
			return nil, ended(ctx, err)
		case !another(err, true):
			return nil, err
		}
		failed[i] = atPeer(e.address, err)
		if try == len(c.endpoints)*c.cfg.Rounds {
			return nil, giveUp(failed, err)
		}
		i = c.leave(i, failed[i])
		if try%len(c.endpoints) == 0 && c.pause(ctx, backoff(try/len(c.endpoints))) != nil {
			return nil, giveUp(failed, err)
		}
	}
}

// partSize is how many bytes of a file go into one message.
const partSize = 512 << 10

// put sends a file to one peer. A peer that has it already, or refuses it,
// answers before the end.
func put(ctx context.Context, e *endpoint, head *api.PutArtifactHead, file io.Reader, progress func(uint64)) (*api.ArtifactReply, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := e.api.PutArtifact(ctx)
	if err != nil {
		return nil, err
	}
	msg := &api.PutArtifactRequest{Part: &api.PutArtifactRequest_Head{Head: head}}
	buf, sent := make([]byte, partSize), uint64(0)
	for {
		if err := stream.Send(msg); err != nil {
			if errors.Is(err, io.EOF) {
				break // the answer is there
			}
			return nil, err
		}
		if progress != nil {
			progress(sent)
		}
		n, err := io.ReadFull(file, buf)
		if n == 0 && errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errs.New(errs.Invalid, "read the file: %w", err)
		}
		sent += uint64(n) //nolint:gosec // not negative
		msg = &api.PutArtifactRequest{Part: &api.PutArtifactRequest_Data{Data: buf[:n]}}
	}
	return stream.CloseAndRecv()
}

// GetArtifact reads one artifact and who uses it.
func (c *Client) GetArtifact(ctx context.Context, req *api.GetArtifactRequest) (*api.ArtifactReply, error) {
	return call(ctx, c, read, req, api.IronringClient.GetArtifact)
}

// ListArtifacts reads all artifacts.
func (c *Client) ListArtifacts(ctx context.Context, req *api.ListArtifactsRequest) (*api.ListArtifactsReply, error) {
	return call(ctx, c, read, req, api.IronringClient.ListArtifacts)
}

// DeleteArtifact forgets an artifact that nobody uses; the peers delete the file.
func (c *Client) DeleteArtifact(ctx context.Context, req *api.DeleteArtifactRequest) (*api.WriteReply, error) {
	return call(ctx, c, write, req, api.IronringClient.DeleteArtifact)
}

// SetRamdisk says what machines of an architecture boot for a purpose.
func (c *Client) SetRamdisk(ctx context.Context, req *api.SetRamdiskRequest) (*api.WriteReply, error) {
	return call(ctx, c, write, req, api.IronringClient.SetRamdisk)
}

// ListRamdisks reads what machines boot.
func (c *Client) ListRamdisks(ctx context.Context, req *api.ListRamdisksRequest) (*api.ListRamdisksReply, error) {
	return call(ctx, c, read, req, api.IronringClient.ListRamdisks)
}

// DeleteRamdisk forgets what machines of an architecture boot for a purpose.
func (c *Client) DeleteRamdisk(ctx context.Context, req *api.DeleteRamdiskRequest) (*api.WriteReply, error) {
	return call(ctx, c, write, req, api.IronringClient.DeleteRamdisk)
}
