package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ironring/ironring/agent/qcow2"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

const (
	// rawBlocks are in memory at most, at each side of a decoder.
	rawBlocks = 12
	// writers work at one disk at a time, so that it is never without work.
	writers = 2
)

// writeRaw writes a file that is the disk's content, perhaps compressed:
//
//	fetch -> hash the file -> write                               as it is
//	fetch -> hash the file -> decompress -> hash content -> write compressed
//
// Without compression the buffers that are written are those that were read,
// so that one SHA-256 is the digest of both.
func (w *imageWrite) writeRaw(ctx context.Context) (*agentproto.WriteImageResult, error) {
	began := time.Now()
	content := sha256.New()
	if w.compress == "" && w.sum.algo == "sha256" {
		content = nil
	}
	g, gctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(gctx, w.stopFetch)()
	var length atomic.Int64
	free := newBlocks(rawBlocks, imageBlock)
	w.t.progress(0, w.total, "writing")
	if w.compress == "" {
		w.writeBlocks(gctx, g, w.fetch(gctx, g, free, content), free, &length)
	} else {
		r := &blockReader{ctx: gctx, in: w.fetch(gctx, g, free, nil), free: free, failed: func() error { return w.fetched }}
		plainFree, plain, hashed := newBlocks(rawBlocks, imageBlock), make(chan *block, rawBlocks), make(chan *block, rawBlocks)
		g.Go(func() error {
			defer close(plain)
			return w.decode(gctx, r, plainFree, plain)
		})
		g.Go(func() error {
			defer close(hashed)
			for b := range plain {
				content.Write(b.bytes())
				hashed <- b // never blocks: as many blocks as room
			}
			return nil
		})
		w.writeBlocks(gctx, g, hashed, plainFree, &length)
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := w.checkFile(); err != nil {
		return nil, err
	}
	if err := w.disk.sync(); err != nil {
		return nil, err
	}
	if content == nil {
		content = w.sum.hash
	}
	out := &agentproto.WriteImageResult{BytesWritten: uint64(length.Load()), ContentDigest: digestText(content), WriteSeconds: time.Since(began).Seconds()}
	verify := time.Now()
	if err := w.verifyRaw(ctx, out); err != nil {
		return nil, err
	}
	out.VerifySeconds = time.Since(verify).Seconds()
	return out, nil
}

func digestText(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }

// decode fills blocks with what belongs on the disk until the file ends.
func (w *imageWrite) decode(ctx context.Context, in *blockReader, free <-chan *block, out chan<- *block) error {
	r, closer, err := decompress(in, w.compress)
	if err != nil {
		return w.blame(in, err)
	}
	defer closer()
	for off := int64(0); ; {
		b, err := receive(ctx, free)
		if err != nil {
			return err
		}
		n, err := fill(r, b.buf)
		if off == 0 && n >= 4 && string(b.buf[:4]) == qcow2.Magic {
			return errs.New(errs.Unsupported, "inside %s is a qcow2 file; serve it as it is; nothing was written", w.compress)
		}
		b.n, b.off = n, off
		if off += int64(n); n > 0 {
			out <- b // never blocks: as many blocks as room
		}
		if errors.Is(err, io.EOF) {
			// What the decoder left behind its data counts for the digest.
			_, err = io.Copy(io.Discard, in)
			return w.blame(in, err)
		}
		if err != nil {
			return w.blame(in, err)
		}
	}
}

// blame returns the error of the download rather than the decoder's view of it.
func (w *imageWrite) blame(in *blockReader, err error) error {
	switch {
	case err == nil:
		return nil
	case in.err != nil:
		return in.err
	case errs.KindOf(err) != errs.Internal:
		return err
	}
	return errs.New(errs.Invalid, "decompress after %d bytes: %w", in.n, err)
}

// writeBlocks starts the goroutines that put blocks on the disk and tell how
// far it is. The disk is not touched before the first block is there.
func (w *imageWrite) writeBlocks(ctx context.Context, g *errgroup.Group, in <-chan *block, free chan<- *block, length *atomic.Int64) {
	for range writers {
		g.Go(func() error {
			for b := range in {
				if err := ctx.Err(); err != nil {
					return err
				}
				disk, err := w.open()
				if err != nil {
					return err
				}
				if err := disk.put(b.bytes(), b.off); err != nil {
					return err
				}
				length.Add(int64(b.n))
				free <- b // never blocks: as many blocks as room
				w.writing()
			}
			return nil
		})
	}
}

// verifyRaw compares the disk with what was sent to it, and then makes it boot.
func (w *imageWrite) verifyRaw(ctx context.Context, out *agentproto.WriteImageResult) error {
	back := sha256.New()
	n := int64(out.BytesWritten)
	if err := w.disk.readBack(ctx, n, imageBlock, func(p []byte, off int64) error {
		back.Write(p)
		w.verifying(off+int64(len(p)), n)
		return nil
	}); err != nil {
		return err
	}
	if out.WrittenDigest = digestText(back); out.WrittenDigest != out.ContentDigest {
		return errs.New(errs.Internal, "the disk does not hold what was written to it: %s was written, %s read back; its head was left empty", out.ContentDigest, out.WrittenDigest)
	}
	return w.disk.finish(ctx)
}
