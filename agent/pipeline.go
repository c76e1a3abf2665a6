package agent

import (
	"context"
	"errors"
	"io"
	"unsafe"
)

// directAlign is where memory must begin for a disk to be written without a
// copy: a page, which suits every device.
const directAlign = 4096

// block is a piece of memory that goes round in a pipeline: whoever holds it
// may use it, and hands it on or gives it back.
type block struct {
	buf []byte
	n   int   // how much of buf counts
	off int64 // where it belongs on the disk
}

func (b *block) bytes() []byte { return b.buf[:b.n] }

// newBlocks makes the blocks of one part of a pipeline: what is in memory at
// most.
func newBlocks(n, size int) chan *block {
	free := make(chan *block, n)
	for range n {
		free <- &block{buf: alignedBytes(size)}
	}
	return free
}

// alignedBytes is memory that begins at a multiple of directAlign.
func alignedBytes(n int) []byte {
	b := make([]byte, n+directAlign)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(b))) % directAlign
	return b[skip : int(skip)+n : int(skip)+n]
}

func send[T any](ctx context.Context, ch chan<- T, v T) error {
	select {
	case ch <- v:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func receive[T any](ctx context.Context, ch <-chan T) (T, error) {
	select {
	case v := <-ch:
		return v, nil
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// blockReader reads what comes in blocks, for decoders, and gives them back.
type blockReader struct {
	ctx  context.Context // of the pipeline: an io.Reader has no other way to be told
	in   <-chan *block
	free chan<- *block
	// failed is why in was closed before the end, nil at the end. It is called
	// after in was closed.
	failed func() error

	cur  *block
	rest []byte
	n    uint64 // bytes read
	err  error  // what Read gave last, which decoders tend to hide behind their own
}

func (r *blockReader) Read(p []byte) (int, error) {
	n, err := r.some(p)
	r.n += uint64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

func (r *blockReader) some(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.cur != nil {
			r.free <- r.cur // never blocks: as many blocks as room
			r.cur = nil
		}
		select {
		case b, ok := <-r.in:
			if !ok {
				if err := r.failed(); err != nil {
					return 0, err
				}
				return 0, io.EOF
			}
			r.cur, r.rest = b, b.bytes()
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
