package agent

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ironring/ironring/agent/qcow2"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/fetch"
	"github.com/ironring/ironring/internal/rootdisk"
	"github.com/ironring/ironring/internal/seal"
)

// Image formats, as in agentproto.WriteImageArgs.Format.
const (
	formatRaw   = "raw"
	formatQcow2 = "qcow2"
)

// writeImage puts one image on one disk. Nothing is written before the image
// answers and fits as far as can be told; nothing boots before its digest and
// what the disk gives back are right (imageDisk).
func (a *agent) writeImage(ctx context.Context, t *task) (any, error) {
	var args agentproto.WriteImageArgs
	if err := t.decode(&args); err != nil {
		return nil, err
	}
	sum, err := parseChecksum(args.Checksum)
	if err != nil {
		return nil, err
	}
	if err := checkFormat(args.Format, args.Compress); err != nil {
		return nil, err
	}
	began := time.Now()
	disk, dev, err := a.openJudged(ctx, args.Disk)
	if err != nil {
		return nil, err
	}
	defer dev.Close()

	w := &imageWrite{t: t, sum: sum, dev: dev, compress: args.Compress}
	// The file is read under a context of its own, so that a pipeline that
	// fails elsewhere does not wait for a slow server.
	fetchCtx, stop := context.WithCancel(ctx)
	defer stop()
	w.stopFetch = stop
	if w.src, err = a.openImage(fetchCtx, w, args.URLs); err != nil {
		return nil, err
	}
	defer w.src.Close()
	out, err := w.write(ctx, args.Format, disk)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, errs.New(errs.KindOf(err), "image %s on disk %s: %w", w.src.Source(), disk.Name, err)
	}
	if err := dev.RereadPartitions(); err != nil {
		// The disk is right; only this kernel does not know.
		t.log.Warn("the kernel does not read the new partition table", "disk", disk.Name, "err", err)
	}
	out.Requests, out.Seconds, out.Disk = w.src.Requests(), time.Since(began).Seconds(), rootdisk.ID(disk)
	t.log.Info("the image is on the disk and verified", "url", w.src.Source(), "disk", disk.Name, "format", out.Format,
		"bytes_read", out.BytesRead, "bytes_written", out.BytesWritten, "write_seconds", out.WriteSeconds, "verify_seconds", out.VerifySeconds)
	return out, nil
}

// openImage connects to the first server that has the image. What goes wrong
// there is shown at once, not only when it was tried for long enough.
func (a *agent) openImage(ctx context.Context, w *imageWrite, urls []string) (*fetch.Stream, error) {
	if len(urls) > 0 {
		w.t.progress(0, 0, "asking for "+seal.MaskURL(urls[0]))
	}
	src, err := fetch.Open(ctx, fetch.Config{
		URLs: urls, Transport: a.cfg.HTTP, Logger: w.t.log, Stall: a.cfg.ImageStall, NoProgress: a.cfg.ImageNoProgress,
		Trouble: func(err error) {
			msg := "image server: " + err.Error()
			w.trouble.Store(&msg)
			w.t.progress(w.read.Load(), w.total, msg)
		},
	})
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "get image: %w", err)
	}
	w.total = uint64(max(0, src.Size()))
	return src, nil
}

// checkFormat refuses what write does not know.
func checkFormat(format, compress string) error {
	switch format {
	case "", formatRaw:
	case formatQcow2:
		if compress != "" {
			return errs.New(errs.Unsupported, "a qcow2 file inside %s cannot be read out of turn, which qcow2 needs; serve it as it is (`qemu-img convert -c` compresses inside)", compress)
		}
	default:
		return errs.New(errs.Unsupported, "image format %.40q is not supported: raw and qcow2 are", format)
	}
	return checkCompress(compress)
}

// imageWrite is one write at work: a pipeline of goroutines that hand blocks
// on (pipeline.go).
type imageWrite struct {
	t   *task
	src *fetch.Stream // of the fetching goroutine
	// stopFetch ends src; it must be called once a pipeline has failed.
	stopFetch func()
	head      []byte    // the first bytes of src, read ahead
	sum       *checksum // of the hashing goroutine
	dev       BlockDevice
	compress  string
	total     uint64 // of the file, 0 if unknown

	read    atomic.Uint64          // bytes of the file that were hashed
	trouble atomic.Pointer[string] // what is wrong with the server now, nil: nothing
	fetched error                  // why the file ended early; set before its channel is closed

	opened  sync.Once
	disk    *imageDisk // of opened; nil before the first block
	diskErr error
}

// write finds the format and writes. Its errors need no names of image and disk.
func (w *imageWrite) write(ctx context.Context, format string, disk agentproto.Disk) (*agentproto.WriteImageResult, error) {
	w.head = make([]byte, qcow2.HeaderBytes)
	n, err := fill(w.src, w.head)
	if w.head = w.head[:n]; err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	isQcow2 := n >= 4 && string(w.head[:4]) == qcow2.Magic
	switch {
	case isQcow2 && format == formatRaw:
		return nil, errs.New(errs.Invalid, "the file is qcow2, not raw; nothing was written")
	case isQcow2 && w.compress != "":
		return nil, errs.New(errs.Invalid, "the file is qcow2, not %s; nothing was written", w.compress)
	case !isQcow2 && format == formatQcow2:
		return nil, errs.New(errs.Invalid, "the file is not qcow2; nothing was written")
	case !isQcow2 && w.compress == "" && w.src.Size() > w.dev.Size():
		return nil, errs.New(errs.Invalid, "it has %d bytes, more than the %d of the disk; nothing was written", w.src.Size(), w.dev.Size())
	}
	format = formatRaw
	if isQcow2 {
		format = formatQcow2
	}
	w.t.log.Info("the image is about to be written", "url", w.src.Source(), "format", format, "bytes", w.src.Size(), "disk", disk.Name, "serial", disk.Serial, "wwn", disk.WWN)
	var out *agentproto.WriteImageResult
	if isQcow2 {
		out, err = w.writeQcow2(ctx)
	} else {
		out, err = w.writeRaw(ctx)
	}
	if err != nil {
		return nil, err
	}
	out.Format, out.BytesRead, out.ReadDigest = format, w.read.Load(), w.sum.got()
	return out, nil
}

// fetch starts the goroutines that bring the file: one reads, one hashes. The
// blocks that come out must be sent back to free.
func (w *imageWrite) fetch(ctx context.Context, g *errgroup.Group, free chan *block, also hash.Hash) <-chan *block {
	raw, hashed := make(chan *block, cap(free)), make(chan *block, cap(free))
	g.Go(func() error {
		defer close(raw)
		w.fetched = w.readFile(ctx, free, raw)
		return w.fetched
	})
	g.Go(func() error {
		defer close(hashed)
		for b := range raw {
			w.sum.hash.Write(b.bytes())
			if also != nil {
				also.Write(b.bytes())
			}
			w.read.Add(uint64(b.n))
			hashed <- b // never blocks: as many blocks as room
		}
		return nil
	})
	return hashed
}

// readFile fills blocks with the file.
func (w *imageWrite) readFile(ctx context.Context, free <-chan *block, out chan<- *block) error {
	head, off := w.head, int64(0)
	for {
		b, err := receive(ctx, free)
		if err != nil {
			return err
		}
		k := copy(b.buf, head)
		head = head[k:]
		n, err := fill(w.src, b.buf[k:])
		if err == nil {
			w.trouble.Store(nil)
		}
		b.n, b.off = k+n, off
		off += int64(b.n)
		if b.n > 0 {
			out <- b // never blocks: as many blocks as room
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
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

// open clears the disk's ends, once.
func (w *imageWrite) open() (*imageDisk, error) {
	w.opened.Do(func() { w.disk, w.diskErr = newImageDisk(w.dev) })
	return w.disk, w.diskErr
}

// checkFile is called when all of the file has been through.
func (w *imageWrite) checkFile() error {
	read := w.read.Load()
	if w.src.Size() >= 0 && read != uint64(w.src.Size()) {
		return errs.New(errs.Invalid, "truncated: got %d of %d bytes", read, w.src.Size())
	}
	if !w.sum.ok() {
		return errs.New(errs.Invalid, "digest mismatch over %d bytes: want %s:%s, got %s; the disk's head was left empty", read, w.sum.algo, w.sum.want, w.sum.got())
	}
	if w.disk == nil {
		return errs.New(errs.Invalid, "the image is empty")
	}
	return nil
}

// writing tells how far the writing is, and what it waits for.
func (w *imageWrite) writing() {
	msg := "writing"
	if t := w.trouble.Load(); t != nil {
		msg = *t
	}
	w.t.progress(w.read.Load(), w.total, msg)
}

// verifying tells how far the reading back is.
func (w *imageWrite) verifying(done, total int64) {
	w.t.progress(w.read.Load(), w.read.Load(), fmt.Sprintf("verifying, %d %%", 100*done/max(1, total)))
}
