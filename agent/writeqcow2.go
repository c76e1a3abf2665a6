package agent

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ironring/ironring/agent/qcow2"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

// writeQcow2 writes a qcow2 file in one pass over its bytes: its tables are
// read first, by ranges, and say for each piece of the file where on the disk
// it belongs. Then the file is read once, from the start to the end:
//
//	fetch -> hash the file -> cut into clusters -> decompress, hash, write (several)
//
// The tables that come by in the pass must be those that were read first, so
// that the file's digest is over the map as well. What the file does not hold
// is made zero on the disk.
func (w *imageWrite) writeQcow2(ctx context.Context) (*agentproto.WriteImageResult, error) {
	began := time.Now()
	layout, err := w.mapQcow2(ctx)
	if err != nil {
		return nil, err
	}
	q := &qcow2Write{imageWrite: w, layout: layout}
	if err := q.pass(ctx); err != nil {
		return nil, err
	}
	if err := w.checkFile(); err != nil {
		return nil, err
	}
	if err := w.disk.sync(); err != nil {
		return nil, err
	}
	out := &agentproto.WriteImageResult{BytesWritten: uint64(q.length.Load()), ContentDigest: q.sent.text(), WriteSeconds: time.Since(began).Seconds()}
	verify := time.Now()
	if err := q.verify(ctx, out); err != nil {
		return nil, err
	}
	out.VerifySeconds = time.Since(verify).Seconds()
	return out, nil
}

// mapQcow2 reads the tables. Nothing has been written yet.
func (w *imageWrite) mapQcow2(ctx context.Context) (*qcow2.Layout, error) {
	h, err := qcow2.ParseHeader(w.head)
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "%w; nothing was written", err)
	}
	if h.Size > w.dev.Size() {
		return nil, errs.New(errs.Invalid, "it is a disk of %d bytes, more than the %d of this one; nothing was written", h.Size, w.dev.Size())
	}
	if w.src.Size() < 0 {
		return nil, errs.New(errs.Unsupported, "the server does not say how long the file is, which qcow2 needs; nothing was written")
	}
	w.t.progress(0, w.total, "reading the tables of the qcow2 file")
	l, err := qcow2.Map(ctx, h, w.head, w.src.Size(), w.src)
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "%w; nothing was written", err)
	}
	return l, nil
}

// qcow2Write is one pass over a file and its verification.
type qcow2Write struct {
	*imageWrite
	layout *qcow2.Layout
	length atomic.Int64 // bytes sent to the disk
	sent   clusterSum
}

// clusterSum is a digest over clusters in any order (agentproto.WriteImageResult).
// It is there to find a disk that does not keep what it is given; against
// people stands the digest of the file.
type clusterSum struct {
	mu  sync.Mutex
	sum [sha256.Size]byte // guarded by mu
}

// add takes clusters that begin at off on the disk.
func (c *clusterSum) add(p []byte, off, cluster int64) {
	var at [8]byte
	var one, all [sha256.Size]byte
	h := sha256.New()
	for len(p) > 0 {
		n := min(int64(len(p)), cluster)
		binary.BigEndian.PutUint64(at[:], uint64(off))
		h.Reset()
		h.Write(at[:])
		h.Write(p[:n])
		subtle.XORBytes(all[:], all[:], h.Sum(one[:0]))
		p, off = p[n:], off+n
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	subtle.XORBytes(c.sum[:], c.sum[:], all[:])
}

func (c *clusterSum) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return "sha256-clusters:" + hex.EncodeToString(c.sum[:])
}

// job is a part of the disk to be written: as it is in the block, or one
// cluster compressed in it.
type job struct {
	*block
	packed bool
}

// step is how much of the disk is written at a time: whole clusters.
func (q *qcow2Write) step() int64 { return max(imageBlock, q.layout.Cluster()) }

// pass reads the file once and writes.
func (q *qcow2Write) pass(ctx context.Context) error {
	workers := max(writers, runtime.GOMAXPROCS(0))
	g, gctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(gctx, q.stopFetch)()
	free := newBlocks(rawBlocks, imageBlock)
	// A compressed cluster may be longer than the cluster: up to twice.
	jobFree, jobs := newBlocks(2*workers, int(max(imageBlock, 2*q.layout.Cluster()))), make(chan job, 2*workers)
	r := &blockReader{ctx: gctx, in: q.fetch(gctx, g, free, nil), free: free, failed: func() error { return q.fetched }}
	g.Go(func() error {
		defer close(jobs)
		return q.blame(r, q.cut(gctx, r, jobFree, jobs))
	})
	for range workers {
		g.Go(func() error {
			u := &unpacker{kind: q.layout.Compression, out: alignedBytes(int(q.layout.Cluster()))}
			defer u.close()
			for j := range jobs {
				if err := gctx.Err(); err != nil {
					return err
				}
				if err := q.perform(j, u); err != nil {
					return err
				}
				jobFree <- j.block // never blocks: as many blocks as room
				q.writing()
			}
			return nil
		})
	}
	return g.Wait()
}

// perform writes one job.
func (q *qcow2Write) perform(j job, u *unpacker) error {
	p := j.bytes()
	if j.packed {
		var err error
		if p, err = u.cluster(p); err != nil {
			return errs.New(errs.Invalid, "damaged qcow2 file: compressed cluster for %#x: %w", j.off, err)
		}
		p = p[:min(int64(len(p)), q.layout.Size-j.off)]
	}
	q.sent.add(p, j.off, q.layout.Cluster())
	q.length.Add(int64(len(p)))
	return q.disk.put(p, j.off)
}

// cut goes over the file and hands out what belongs on the disk.
func (q *qcow2Write) cut(ctx context.Context, in io.Reader, free <-chan *block, out chan<- job) error {
	disk, err := q.open()
	if err != nil {
		return err
	}
	// A slow disk takes its time, and who waits must see that it moves.
	cleared := int64(0)
	tell := func(n int64) {
		cleared += n
		q.t.progress(0, q.total, fmt.Sprintf("clearing what the image leaves empty, %d MiB", cleared>>20))
	}
	tell(0)
	if err := q.layout.Holes(func(off, n int64) error { return disk.zero(ctx, off, n, tell) }); err != nil {
		return err
	}
	q.writing()
	f := &fileCursor{r: bufio.NewReaderSize(in, int(max(imageBlock, 2*q.layout.Cluster())))}
	tables := q.layout.Tables
	for _, p := range q.layout.Pieces {
		for len(tables) > 0 && tables[0].Host < p.Host {
			if err := f.check(tables[0]); err != nil {
				return err
			}
			tables = tables[1:]
		}
		if err := q.cutPiece(ctx, f, p, free, out); err != nil {
			return err
		}
	}
	for _, t := range tables {
		if err := f.check(t); err != nil {
			return err
		}
	}
	_, err = io.Copy(io.Discard, f.r)
	return err
}

func (q *qcow2Write) cutPiece(ctx context.Context, f *fileCursor, p qcow2.Piece, free <-chan *block, out chan<- job) error {
	if err := f.skipTo(p.Host); err != nil {
		return err
	}
	for done := int64(0); done < p.Len; {
		b, err := receive(ctx, free)
		if err != nil {
			return err
		}
		b.off = p.Guest + done
		if p.Compressed {
			// The last sector may be the next cluster's first.
			data, err := f.r.Peek(int(p.Len))
			if err != nil {
				return err
			}
			b.n = copy(b.buf, data)
		} else {
			b.n = int(min(p.Len-done, q.step()))
			if err := f.read(b.bytes()); err != nil {
				return err
			}
		}
		done += int64(b.n)
		if err := send(ctx, out, job{b, p.Compressed}); err != nil {
			return err
		}
	}
	return nil
}

// verify compares the disk with what was sent to it, and then makes it boot.
func (q *qcow2Write) verify(ctx context.Context, out *agentproto.WriteImageResult) error {
	c, size := q.layout.Cluster(), q.layout.Size
	var back clusterSum
	if err := q.disk.readBack(ctx, size, q.step(), func(p []byte, off int64) error {
		q.verifying(off+int64(len(p)), size)
		for len(p) > 0 {
			n := min(int64(len(p)), c)
			if q.layout.Data(off / c) {
				back.add(p[:n], off, c)
			} else if !isZero(p[:n]) {
				return errs.New(errs.Internal, "the disk holds something in the cluster at %d that the image leaves empty; its head was left empty", off)
			}
			p, off = p[n:], off+n
		}
		return nil
	}); err != nil {
		return err
	}
	if out.WrittenDigest = back.text(); out.WrittenDigest != out.ContentDigest {
		return errs.New(errs.Internal, "the disk does not hold what was written to it: %s was written, %s read back; its head was left empty", out.ContentDigest, out.WrittenDigest)
	}
	return q.disk.finish(ctx)
}

var zeroPage [64 << 10]byte

func isZero(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), len(zeroPage))
		if !bytes.Equal(p[:n], zeroPage[:n]) {
			return false
		}
		p = p[n:]
	}
	return true
}

// fileCursor is where the pass is in the file.
type fileCursor struct {
	r   *bufio.Reader
	pos int64
}

// skipTo goes forward; the pieces of a layout never lead back.
func (f *fileCursor) skipTo(off int64) error {
	for f.pos < off {
		n, err := f.r.Discard(int(min(off-f.pos, 1<<30)))
		f.pos += int64(n)
		if err != nil {
			return unexpected(err)
		}
	}
	return nil
}

func (f *fileCursor) read(p []byte) error {
	n, err := io.ReadFull(f.r, p)
	f.pos += int64(n)
	return unexpected(err)
}

// check compares a table with what was read of it before.
func (f *fileCursor) check(t qcow2.Table) error {
	if err := f.skipTo(t.Host); err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.CopyN(h, f.r, t.Len)
	f.pos += n
	if err != nil {
		return unexpected(err)
	}
	if !bytes.Equal(h.Sum(nil), t.Sum[:]) {
		return errs.New(errs.Conflict, "the file changed while it was read: the table at %#x is another one than before; the disk's head was left empty", t.Host)
	}
	return nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
