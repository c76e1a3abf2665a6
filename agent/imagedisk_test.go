package agent

import (
	"bytes"
	"context"
	"errors"
	"testing"
)

// refusing is a disk that cannot be told to clear anything.
type refusing struct{ memDisk }

func (refusing) ZeroAt(int64, int64) error { return errors.New("not supported") }

// What a disk cannot clear by itself is written; its ends are left to others.
func TestZero(t *testing.T) {
	for _, wrap := range []func(memDisk) BlockDevice{
		func(m memDisk) BlockDevice { return m }, func(m memDisk) BlockDevice { return refusing{m} },
	} {
		m := memDisk(bytes.Repeat([]byte{1}, 8<<20))
		d, err := newImageDisk(wrap(m))
		if err != nil {
			t.Fatal(err)
		}
		copy(m, "head")
		var told int64
		if err := d.zero(context.Background(), 0, 5<<20+700, func(n int64) { told += n }); err != nil {
			t.Fatal(err)
		}
		if told != 4<<20+700 || string(m[:4]) != "head" || !isZero(m[1<<20:5<<20+700]) || m[5<<20+700] != 1 {
			t.Errorf("%d bytes told", told)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := d.zero(ctx, 0, 8<<20, func(int64) {}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

// On a disk that is not larger than its ends everything is held back.
func TestSmallDisks(t *testing.T) {
	for _, size := range []int{512, 1 << 20, 1<<20 + 512, 2 << 20, 2<<20 + 512} {
		m := memDisk(bytes.Repeat([]byte{1}, size))
		d, err := newImageDisk(m)
		if err != nil {
			t.Fatal(err)
		}
		image := bytes.Repeat([]byte("image"), size/5+1)[:size]
		for off := 0; off < size; off += imageBlock {
			if err := d.put(image[off:min(off+imageBlock, size)], int64(off)); err != nil {
				t.Fatal(err)
			}
		}
		if !isZero(m[:min(size, imageBlock)]) {
			t.Errorf("%d: the head is written before the end", size)
		}
		var back []byte
		if err := d.readBack(context.Background(), int64(size), imageBlock, func(p []byte, _ int64) error {
			back = append(back, p...)
			return nil
		}); err != nil || !bytes.Equal(back, image) {
			t.Errorf("%d: read back %d bytes: %v", size, len(back), err)
		}
		if err := d.finish(context.Background()); err != nil || !bytes.Equal(m, image) {
			t.Errorf("%d: %v", size, err)
		}
	}
}

// forgetful is a disk that does not keep one block.
type forgetful struct {
	memDisk
	at int64
}

func (f forgetful) WriteAt(p []byte, off int64) (int, error) {
	if off <= f.at && f.at < off+int64(len(p)) {
		p = bytes.Clone(p)
		p[f.at-off] ^= 1
	}
	return f.memDisk.WriteAt(p, off)
}

// An end of the disk that is not kept is noticed too.
func TestForgetfulEnds(t *testing.T) {
	const size = 4 << 20
	for _, at := range []int64{100, size - 100} {
		d, err := newImageDisk(forgetful{make(memDisk, size), at})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.put(bytes.Repeat([]byte{7}, size), 0); err != nil {
			t.Fatal(err)
		}
		if err := d.finish(context.Background()); err == nil {
			t.Errorf("a disk that forgets byte %d is believed", at)
		}
	}
}

// cutting cancels a command as soon as its disk's tail is written.
type cutting struct {
	memDisk
	cut context.CancelFunc
}

func (c cutting) WriteAt(p []byte, off int64) (int, error) {
	if off > 0 && !isZero(p) {
		c.cut()
	}
	return c.memDisk.WriteAt(p, off)
}

// A command that is cancelled leaves both ends empty, or a whole image.
func TestFinishIsNotCut(t *testing.T) {
	const size = 2 << 20 // ends only
	for _, early := range []bool{false, true} {
		ctx, cut := context.WithCancel(context.Background())
		defer cut()
		m := make(memDisk, size)
		d, err := newImageDisk(cutting{m, cut})
		if err != nil {
			t.Fatal(err)
		}
		image := bytes.Repeat([]byte{7}, size)
		if err := d.put(image, 0); err != nil {
			t.Fatal(err)
		}
		want := image
		if early {
			cut()
			want = make([]byte, size)
		}
		if err := d.finish(ctx); (err != nil) != early || !bytes.Equal(m, want) {
			t.Errorf("cut early %v: %v", early, err)
		}
		if ctx.Err() == nil {
			t.Error("it was not cut")
		}
	}
}
