package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ironring/ironring/agent/fetch"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rootdisk"
)

// writeImage puts one image on one disk. Nothing is written before the image
// answers and fits as far as can be told; nothing boots before its digest and
// what the disk gives back are right (imageDisk).
func (a *agent) writeImage(ctx context.Context, t *task) (any, error) {
	var args agentproto.WriteImageArgs
	if err := t.decode(&args); err != nil {
		return nil, err
	}
	if args.Format != "" && args.Format != "raw" {
		return nil, errs.New(errs.Unsupported, "image format %q is not supported: raw is", args.Format)
	}
	sum, err := parseChecksum(args.Checksum)
	if err != nil {
		return nil, err
	}
	if err := checkCompress(args.Compress); err != nil {
		return nil, err
	}
	began := time.Now()
	disk, dev, err := a.openDisk(ctx, args.Disk)
	if err != nil {
		return nil, err
	}
	defer dev.Close()

	src, err := fetch.Open(ctx, fetch.Config{
		URLs: args.URLs, Transport: a.cfg.HTTP, Logger: t.log, Stall: a.cfg.ImageStall, NoProgress: a.cfg.ImageNoProgress,
	})
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "get image: %w", err)
	}
	defer src.Close()
	if args.Compress == "" && src.Size() > dev.Size() {
		return nil, errs.New(errs.Invalid, "image %s has %d bytes, more than the %d of disk %s; nothing was written", src.Source(), src.Size(), dev.Size(), disk.Name)
	}
	t.log.Info("the image is written", "url", src.Source(), "bytes", src.Size(), "disk", disk.Name, "serial", disk.Serial, "wwn", disk.WWN)

	w := &imageWrite{t: t, src: src, in: served{r: src, sum: sum}, dev: dev, total: uint64(max(0, src.Size()))}
	out, err := w.run(ctx, args.Compress)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, errs.New(errs.KindOf(err), "image %s on disk %s: %w", src.Source(), disk.Name, err)
	}
	if err := dev.RereadPartitions(); err != nil {
		// The disk is right; only this kernel does not know.
		t.log.Warn("the kernel does not read the new partition table", "disk", disk.Name, "err", err)
	}
	out.Requests, out.Seconds, out.Disk = src.Requests(), time.Since(began).Seconds(), rootdisk.ID(disk)
	return out, nil
}

// imageWrite is one write at work: one goroutine reads, decompresses and cuts
// into blocks, one writes.
type imageWrite struct {
	t   *task
	src *fetch.Stream
	in  served // of the reading goroutine
	dev BlockDevice
	// total is the size at the start, 0 if unknown: src belongs to the reader.
	total uint64

	disk *imageDisk // of the writing goroutine; nil before the first block

	read atomic.Uint64 // in.n, for the other goroutine
}

func (w *imageWrite) run(ctx context.Context, compress string) (*agentproto.WriteImageResult, error) {
	// The blocks go round: at most so many are in memory.
	free, full := make(chan []byte, 4), make(chan []byte, 4)
	for range cap(free) {
		free <- make([]byte, imageBlock)
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(full)
		return w.readBlocks(gctx, compress, free, full)
	})
	g.Go(func() error { return w.writeBlocks(gctx, free, full) })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	read := w.in.n
	if w.src.Size() >= 0 && read != uint64(w.src.Size()) {
		return nil, errs.New(errs.Invalid, "truncated: got %d of %d bytes", read, w.src.Size())
	}
	if !w.in.sum.ok() {
		return nil, errs.New(errs.Invalid, "digest mismatch over %d bytes: want %s:%s, got %s; the disk's head was left empty", read, w.in.sum.algo, w.in.sum.want, w.in.sum.got())
	}
	disk := w.disk
	if disk == nil {
		return nil, errs.New(errs.Invalid, "the image is empty")
	}
	written, err := disk.finish(ctx, func(done, total int64) {
		w.t.progress(read, read, fmt.Sprintf("verifying, %d %%", 100*done/total))
	})
	if err != nil {
		return nil, err
	}
	return &agentproto.WriteImageResult{
		BytesRead: read, BytesWritten: uint64(disk.off), ReadDigest: w.in.sum.got(),
		ContentDigest: "sha256:" + disk.contentDigest(), WrittenDigest: "sha256:" + written,
	}, nil
}

// readBlocks fills blocks with what belongs on the disk until the image ends.
func (w *imageWrite) readBlocks(ctx context.Context, compress string, free <-chan []byte, full chan<- []byte) error {
	r, closer, err := decompress(&w.in, compress)
	if err != nil {
		return w.blame(err)
	}
	defer closer()
	for {
		var b []byte
		select {
		case b = <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
		n, err := fill(r, b[:imageBlock])
		w.read.Store(w.in.n)
		if n > 0 {
			select {
			case full <- b[:n]:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if errors.Is(err, io.EOF) {
			// What the decoder left behind its data counts for the digest.
			if _, err := io.Copy(io.Discard, &w.in); err != nil {
				return w.blame(err)
			}
			w.read.Store(w.in.n)
			return nil
		}
		if err != nil {
			return w.blame(err)
		}
	}
}

// fill reads until p is full. Other than io.ReadFull it returns the reader's
// own error, so that an end is told from a decoder whose input broke off.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = r.Read(p[n:])
		n += k
	}
	return n, err
}

// blame returns the error of the download rather than the decoder's view of it.
func (w *imageWrite) blame(err error) error {
	if w.in.err != nil {
		return w.in.err
	}
	if errs.KindOf(err) != errs.Internal {
		return err
	}
	return errs.New(errs.Invalid, "decompress after %d bytes: %w", w.in.n, err)
}

// writeBlocks puts blocks on the disk and tells how far it is. The disk is not
// touched before the first block is there.
func (w *imageWrite) writeBlocks(ctx context.Context, free chan<- []byte, full <-chan []byte) error {
	w.t.progress(0, w.total, "writing")
	for {
		select {
		case b, ok := <-full:
			if !ok {
				return nil
			}
			if w.disk == nil {
				var err error
				if w.disk, err = newImageDisk(w.dev); err != nil {
					return err
				}
			}
			if err := w.disk.put(b); err != nil {
				return err
			}
			w.t.progress(w.read.Load(), w.total, "writing")
			free <- b[:imageBlock] // never blocks: as many blocks as room
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
