package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/ironring/ironring/internal/errs"
)

const (
	// imageBlock is the size of writes, and of the head that is held back.
	imageBlock = 1 << 20
	// syncEvery bounds what the kernel holds in memory, so that progress is
	// progress of the disk.
	syncEvery = 128 << 20
)

// imageDisk writes an image to a disk so that it can boot only when all of it
// is there and right:
//
//   - Before the first block, the head (MBR, GPT, boot code) and the tail of
//     the disk (the second GPT, which firmware falls back to) are zeroed: what
//     was installed before does not boot half overwritten.
//   - The head of the image, and what falls on the disk's tail, are held back
//     in memory while all else is written, made durable and read back.
//   - Only then the tail is written, and the head last of all. A machine that
//     loses power at any moment before finds no partition table.
type imageDisk struct {
	dev  BlockDevice
	size int64

	off     int64 // length of the image so far
	unsaved int64 // written since the last Sync
	content hash.Hash
	held    []heldBlock // in order of offset
}

type heldBlock struct {
	off  int64
	data []byte
}

// newImageDisk clears the ends of dev. From here on what was on it is lost.
func newImageDisk(dev BlockDevice) (*imageDisk, error) {
	d := &imageDisk{dev: dev, size: dev.Size(), content: sha256.New()}
	zero := make([]byte, min(imageBlock, d.size))
	for _, off := range []int64{0, max(0, d.size-int64(len(zero)))} {
		if _, err := dev.WriteAt(zero, off); err != nil {
			return nil, fmt.Errorf("clear the disk's ends: %w", err)
		}
	}
	return d, d.sync()
}

func (d *imageDisk) sync() error {
	d.unsaved = 0
	if err := d.dev.Sync(); err != nil {
		return fmt.Errorf("sync the disk: %w", err)
	}
	return nil
}

// isHeld reports whether the block at off waits for the end: blocks are
// imageBlock long and start at its multiples.
func (d *imageDisk) isHeld(off, n int64) bool {
	return off == 0 || off+n > d.size-imageBlock
}

// put adds the next block. All blocks but the last must be imageBlock long.
// p may be used again afterwards.
func (d *imageDisk) put(p []byte) error {
	n := int64(len(p))
	if d.off+n > d.size {
		return errs.New(errs.Invalid, "the image is larger than the disk: more than %d bytes", d.size)
	}
	d.content.Write(p)
	if d.isHeld(d.off, n) {
		d.held = append(d.held, heldBlock{d.off, bytes.Clone(p)})
	} else if _, err := d.dev.WriteAt(p, d.off); err != nil {
		return fmt.Errorf("write to the disk at %d: %w", d.off, err)
	} else {
		d.unsaved += n
	}
	d.off += n
	if d.unsaved >= syncEvery {
		return d.sync()
	}
	return nil
}

// contentDigest is over all bytes that were put.
func (d *imageDisk) contentDigest() string { return hex.EncodeToString(d.content.Sum(nil)) }

// finish verifies what is written, writes what was held back, verifies that
// too, and returns the digest over all bytes as they were read back. progress
// is told how far the reading is.
func (d *imageDisk) finish(ctx context.Context, progress func(done, total int64)) (string, error) {
	if err := d.settle(); err != nil {
		return "", err
	}
	back := sha256.New()
	buf := make([]byte, imageBlock)
	held := d.held
	for off := int64(0); off < d.off; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n := min(imageBlock, d.off-off)
		if len(held) > 0 && held[0].off == off {
			// Stands for the bytes on the disk, with which it is compared below.
			back.Write(held[0].data)
			held = held[1:]
		} else {
			if err := d.read(buf[:n], off); err != nil {
				return "", err
			}
			back.Write(buf[:n])
		}
		off += n
		progress(off, d.off)
	}
	digest := hex.EncodeToString(back.Sum(nil))
	if want := d.contentDigest(); digest != want {
		return "", errs.New(errs.Internal, "the disk does not hold what was written to it: sha256 %s was written, %s read back; its head was left empty", want, digest)
	}
	// Tail first, head last.
	for i := len(d.held) - 1; i >= 0; i-- {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if _, err := d.dev.WriteAt(d.held[i].data, d.held[i].off); err != nil {
			return "", fmt.Errorf("write to the disk at %d: %w", d.held[i].off, err)
		}
		if err := d.sync(); err != nil {
			return "", err
		}
	}
	if err := d.settle(); err != nil {
		return "", err
	}
	for _, h := range d.held {
		if err := d.read(buf[:len(h.data)], h.off); err != nil {
			return "", err
		}
		if !bytes.Equal(buf[:len(h.data)], h.data) {
			return "", errs.New(errs.Internal, "the disk does not hold what was written to it at %d", h.off)
		}
	}
	return digest, nil
}

// settle makes the reads that follow come from the medium.
func (d *imageDisk) settle() error {
	if err := d.sync(); err != nil {
		return err
	}
	if err := d.dev.DropCaches(); err != nil {
		return fmt.Errorf("drop the disk's caches: %w", err)
	}
	return nil
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
