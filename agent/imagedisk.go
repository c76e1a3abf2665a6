package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/ironring/ironring/internal/errs"
)

const (
	// imageBlock is the size of writes, and of the ends that are held back.
	imageBlock = 1 << 20
	// syncEvery bounds what the kernel holds in memory, so that progress is
	// progress of the disk.
	syncEvery = 128 << 20
	// zeroStep is how much is cleared between two looks at the context.
	zeroStep = 256 << 20
)

// imageDisk writes an image to a disk so that it can boot only when all of it
// is there and right:
//
//   - Before the first block, the head (MBR, GPT, boot code) and the tail of
//     the disk (the second GPT, which firmware falls back to) are zeroed: what
//     was installed before does not boot half overwritten.
//   - What falls on the disk's head and tail is held back in memory while all
//     else is written, made durable and read back.
//   - Only then the tail is written, and the head last of all. A machine that
//     loses power at any moment before finds no partition table.
//
// put may be called from several goroutines with parts that do not overlap.
type imageDisk struct {
	dev        BlockDevice
	size       int64
	head, tail edge
	unsaved    atomic.Int64 // written since the last sync
}

// edge is an end of the disk that is held back.
type edge struct {
	off  int64
	data []byte
	used atomic.Bool
}

// take copies what of p, which belongs at off, falls on the edge.
func (e *edge) take(p []byte, off int64) {
	from, to := max(off, e.off), min(off+int64(len(p)), e.off+int64(len(e.data)))
	if from < to {
		copy(e.data[from-e.off:], p[from-off:to-off])
		e.used.Store(true)
	}
}

// newImageDisk clears the ends of dev. From here on what was on it is lost.
func newImageDisk(dev BlockDevice) (*imageDisk, error) {
	d := &imageDisk{dev: dev, size: dev.Size()}
	d.head.data = alignedBytes(int(min(imageBlock, d.size)))
	d.tail.off = max(int64(len(d.head.data)), d.size-imageBlock)
	d.tail.data = alignedBytes(int(d.size - d.tail.off))
	for _, e := range []*edge{&d.head, &d.tail} {
		if _, err := dev.WriteAt(e.data, e.off); err != nil {
			return nil, fmt.Errorf("clear the disk's ends: %w", err)
		}
	}
	return d, d.sync()
}

func (d *imageDisk) sync() error {
	d.unsaved.Store(0)
	if err := d.dev.Sync(); err != nil {
		return fmt.Errorf("sync the disk: %w", err)
	}
	return nil
}

// put writes p at off, or holds it back. p may be used again afterwards.
func (d *imageDisk) put(p []byte, off int64) error {
	end := off + int64(len(p))
	if end > d.size {
		return errs.New(errs.Invalid, "the image is larger than the disk: more than %d bytes", d.size)
	}
	d.head.take(p, off)
	d.tail.take(p, off)
	from, to := max(off, int64(len(d.head.data))), min(end, d.tail.off)
	if from >= to {
		return nil
	}
	if _, err := d.dev.WriteAt(p[from-off:to-off], from); err != nil {
		return fmt.Errorf("write to the disk at %d: %w", from, err)
	}
	if d.unsaved.Add(to-from) >= syncEvery && !isDirect(d.dev) {
		return d.sync()
	}
	return nil
}

// isDirect says whether what is written goes to the disk at once.
func isDirect(dev BlockDevice) bool {
	d, ok := dev.(interface{ Direct() bool })
	return ok && d.Direct()
}

// zero makes n bytes at off read as zero and tells how many are done at a
// time. The ends are zero already.
func (d *imageDisk) zero(ctx context.Context, off, n int64, done func(n int64)) error {
	off, end := max(off, int64(len(d.head.data))), min(off+n, d.tail.off)
	z, quick := d.dev.(interface{ ZeroAt(off, n int64) error })
	var blank []byte
	for off < end {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(end-off, zeroStep)
		if quick {
			if err := z.ZeroAt(off, n); err == nil {
				off += n
				done(n)
				continue
			}
			quick = false // what cannot be told to the disk is written
		}
		if blank == nil {
			blank = alignedBytes(imageBlock)
		}
		n = min(n, imageBlock)
		if _, err := d.dev.WriteAt(blank[:n], off); err != nil {
			return fmt.Errorf("clear the disk at %d: %w", off, err)
		}
		off += n
		done(n)
	}
	return nil
}

// readBack reads the first n bytes of the disk from the medium and calls see
// with one part after another, each of step bytes but for the last. For the
// ends it sees what is held back, with which the disk is compared at the end.
// step must be a multiple of imageBlock or divide it.
func (d *imageDisk) readBack(ctx context.Context, n, step int64, see func(p []byte, off int64) error) error {
	if err := d.settle(); err != nil {
		return err
	}
	free, full := newBlocks(3, int(step)), make(chan *block, 3)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(full)
		for off := int64(0); off < n; off += step {
			b, err := receive(ctx, free)
			if err != nil {
				return err
			}
			b.off, b.n = off, int(min(step, n-off))
			if err := d.readHeld(b.bytes(), off); err != nil {
				return err
			}
			if err := send(ctx, full, b); err != nil {
				return err
			}
		}
		return nil
	})
	g.Go(func() error {
		for b := range full {
			if err := see(b.bytes(), b.off); err != nil {
				return err
			}
			free <- b
		}
		return nil
	})
	return g.Wait()
}

// readHeld reads the disk as it will be once the ends are written.
func (d *imageDisk) readHeld(p []byte, off int64) error {
	end := off + int64(len(p))
	if h := int64(len(d.head.data)); off < h {
		k := copy(p, d.head.data[off:])
		p, off = p[k:], off+int64(k)
	}
	if end > d.tail.off {
		from := max(off, d.tail.off)
		copy(p[from-off:], d.tail.data[from-d.tail.off:])
		p = p[:from-off]
	}
	return d.read(p, off)
}

// finish writes what was held back and compares it with what the disk gives.
// Once begun it is not stopped: a command that was cancelled leaves both ends
// empty, or a whole image.
func (d *imageDisk) finish(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	buf := alignedBytes(imageBlock)
	for _, e := range []*edge{&d.tail, &d.head} { // the head last
		if !e.used.Load() {
			continue // zeroed at the start
		}
		if _, err := d.dev.WriteAt(e.data, e.off); err != nil {
			return fmt.Errorf("write to the disk at %d: %w", e.off, err)
		}
		if err := d.settle(); err != nil {
			return err
		}
		got := buf[:len(e.data)]
		if err := d.read(got, e.off); err != nil {
			return err
		}
		if !bytes.Equal(got, e.data) {
			return errs.New(errs.Internal, "the disk does not hold what was written to it at %d", e.off)
		}
	}
	return nil
}

// settle makes the reads that follow come from the medium.
func (d *imageDisk) settle() error {
	d.unsaved.Store(0)
	return settleDisk(d.dev)
}

func (d *imageDisk) read(p []byte, off int64) error {
	if n, err := d.dev.ReadAt(p, off); n < len(p) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read the disk at %d: %w", off, err)
	}
	return nil
}
