package qcow2_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	oracle "github.com/lima-vm/go-qcow2reader/image/qcow2"
	"pgregory.net/rapid"

	"github.com/ironring/ironring/agent/qcow2"
	"github.com/ironring/ironring/agent/qcow2/qcow2test"
	"github.com/ironring/ironring/internal/errs"
)

func layout(b []byte) (*qcow2.Layout, error) {
	head := b[:min(len(b), qcow2.HeaderBytes)]
	h, err := qcow2.ParseHeader(head)
	if err != nil {
		return nil, err
	}
	return qcow2.Map(context.Background(), h, head, int64(len(b)), bytes.NewReader(b))
}

// expand builds the disk out of a file by its layout.
func expand(t interface{ Fatalf(string, ...any) }, b []byte, l *qcow2.Layout) []byte {
	disk := make([]byte, l.Size)
	for _, p := range l.Pieces {
		data := b[p.Host : p.Host+p.Len]
		if p.Compressed {
			var r io.Reader = flate.NewReader(bytes.NewReader(data))
			if l.Compression == qcow2.Zstd {
				z, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1))
				if err != nil {
					t.Fatalf("%v", err)
				}
				defer z.Close()
				r = z
			}
			data = make([]byte, l.Cluster())
			if _, err := io.ReadFull(r, data); err != nil {
				t.Fatalf("cluster for %#x: %v", p.Guest, err)
			}
		}
		copy(disk[p.Guest:], data)
	}
	return disk
}

func init() {
	oracle.SetDecompressor(oracle.CompressionTypeZstd, func(r io.Reader) (io.ReadCloser, error) {
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	})
}

// readAll reads the disk with the library, cluster by cluster: within one its
// decoders may give less than was asked for.
func readAll(t interface{ Fatalf(string, ...any) }, b []byte) []byte {
	img, err := oracle.Open(bytes.NewReader(b), nil)
	if err == nil {
		err = img.Readable()
	}
	if err != nil {
		t.Fatalf("the library: %v", err)
	}
	disk := make([]byte, img.Size())
	for off := 0; off < len(disk); {
		n, err := img.ReadAt(disk[off:], int64(off))
		if off += n; err != nil && (!errors.Is(err, io.EOF) || n == 0) {
			t.Fatalf("the library at %#x: %v", off, err)
		}
	}
	return disk
}

// Whatever a file looks like, what our map makes of it is what was put in,
// and what the library reads out of it.
func TestMap(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		f := qcow2test.Make(t, qcow2test.Random(rapid.Int64().Draw(r, "seed")))
		l, err := layout(f.Bytes)
		if err != nil {
			r.Fatal(err)
		}
		got := expand(r, f.Bytes, l)
		if !bytes.Equal(got, f.Disk) {
			r.Fatal("the map does not give the disk")
		}
		if !bytes.Equal(got, readAll(r, f.Bytes)) {
			r.Fatal("the library reads another disk")
		}
		holes := make([]byte, len(f.Disk))
		if err := l.Holes(func(off, n int64) error {
			for i := off; i < off+n; i++ {
				holes[i]++
			}
			return nil
		}); err != nil {
			r.Fatal(err)
		}
		for i, h := range holes {
			if (h == 1) == l.Data(int64(i)/l.Cluster()) {
				r.Fatalf("byte %d is in %d holes, data: %v", i, h, l.Data(int64(i)/l.Cluster()))
			}
		}
		for i := 1; i < len(l.Pieces); i++ {
			if l.Pieces[i].Host <= l.Pieces[i-1].Host {
				r.Fatal("pieces are not in order")
			}
		}
	})
}

// A file that is laid out as on the disk is one piece.
func TestPiecesAreJoined(t *testing.T) {
	l, err := layout(qcow2test.Make(t, qcow2test.Config{Size: 10<<20 + 5, Kinds: []qcow2test.Kind{qcow2test.Plain}}).Bytes)
	if err != nil || len(l.Pieces) != 1 || l.Pieces[0].Len != 10<<20+5 {
		t.Errorf("%+v %v", l, err)
	}
}

func TestRefused(t *testing.T) {
	be := binary.BigEndian
	base := qcow2test.Make(t, qcow2test.Config{Size: 4 << 20, Kinds: []qcow2test.Kind{qcow2test.Plain, qcow2test.Hole, qcow2test.Packed}})
	entry := func(i int) int { return base.L2 + 8*i } // of cluster i
	for name, c := range map[string]struct {
		damage func(b []byte) []byte
		kind   errs.Kind
		text   string
	}{
		"empty":               {func([]byte) []byte { return nil }, errs.Invalid, "not a qcow2"},
		"magic":               {func(b []byte) []byte { b[0] = 'q'; return b }, errs.Invalid, "not a qcow2"},
		"short header":        {func(b []byte) []byte { return b[:90] }, errs.Invalid, "ends in its header"},
		"version 1":           {func(b []byte) []byte { be.PutUint32(b[4:], 1); return b }, errs.Unsupported, "version 1"},
		"version 4":           {func(b []byte) []byte { be.PutUint32(b[4:], 4); return b }, errs.Unsupported, "version 4"},
		"backing file":        {func(b []byte) []byte { be.PutUint64(b[8:], 400); be.PutUint32(b[16:], 11); return b }, errs.Unsupported, "backing file"},
		"backing, no length":  {func(b []byte) []byte { be.PutUint64(b[8:], 400); return b }, errs.Unsupported, "backing file"},
		"encrypted":           {func(b []byte) []byte { be.PutUint32(b[32:], 2); return b }, errs.Unsupported, "encrypted"},
		"small clusters":      {func(b []byte) []byte { be.PutUint32(b[20:], 8); return b }, errs.Invalid, "2^8"},
		"huge clusters":       {func(b []byte) []byte { be.PutUint32(b[20:], 63); return b }, errs.Invalid, "2^63"},
		"size 0":              {func(b []byte) []byte { be.PutUint64(b[24:], 0); return b }, errs.Invalid, "0 bytes"},
		"size of 2^63":        {func(b []byte) []byte { be.PutUint64(b[24:], 1<<63); return b }, errs.Invalid, "bytes"},
		"too large":           {func(b []byte) []byte { be.PutUint64(b[24:], 1<<60); return b }, errs.Unsupported, "too large"},
		"short L1":            {func(b []byte) []byte { be.PutUint64(b[24:], 8<<30); return b }, errs.Invalid, "first-level table has 1 entries"},
		"L1 nowhere":          {func(b []byte) []byte { be.PutUint64(b[40:], 0); return b }, errs.Invalid, "first-level"},
		"L1 crooked":          {func(b []byte) []byte { be.PutUint64(b[40:], 512); return b }, errs.Invalid, "first-level"},
		"L1 behind the end":   {func(b []byte) []byte { be.PutUint64(b[40:], 1<<40); return b }, errs.Invalid, "table"},
		"external data":       {func(b []byte) []byte { be.PutUint64(b[72:], 4); return b }, errs.Unsupported, "external file"},
		"corrupt":             {func(b []byte) []byte { be.PutUint64(b[72:], 2); return b }, errs.Invalid, "corrupt"},
		"subclusters":         {func(b []byte) []byte { be.PutUint64(b[72:], 16); return b }, errs.Unsupported, "subclusters"},
		"unknown feature":     {func(b []byte) []byte { be.PutUint64(b[72:], 1<<40); return b }, errs.Unsupported, "not known"},
		"unknown compression": {func(b []byte) []byte { be.PutUint64(b[72:], 8); b[104] = 7; return b }, errs.Unsupported, "compression type 7"},
		"compression without": {func(b []byte) []byte { b[104] = 1; return b }, errs.Invalid, "does not fit"},
		"header length":       {func(b []byte) []byte { be.PutUint32(b[100:], 1<<31); return b }, errs.Invalid, "header has"},
		"L2 behind the end":   {func(b []byte) []byte { be.PutUint64(b[base.L1:], 1<<40); return b }, errs.Invalid, "table"},
		"L2 crooked":          {func(b []byte) []byte { be.PutUint64(b[base.L1:], uint64(base.L2)+512); return b }, errs.Invalid, "table"},
		"L2 is L1":            {func(b []byte) []byte { be.PutUint64(b[base.L1:], uint64(base.L1)); return b }, errs.Invalid, ""},
		"L2 is the header":    {func(b []byte) []byte { be.PutUint64(b[entry(0):], uint64(base.L2)); return b }, errs.Invalid, "twice"},
		"cluster is a table":  {func(b []byte) []byte { be.PutUint64(b[entry(0):], uint64(base.L1)); return b }, errs.Invalid, "twice"},
		"cluster twice":       {func(b []byte) []byte { copy(b[entry(1):entry(2)], b[entry(0):]); return b }, errs.Invalid, "twice"},
		"packed twice":        {func(b []byte) []byte { copy(b[entry(1):entry(2)], b[entry(2):]); return b }, errs.Invalid, "twice"},
		"cluster behind end":  {func(b []byte) []byte { be.PutUint64(b[entry(0):], 1<<50); return b }, errs.Invalid, "behind its end"},
		"packed behind end":   {func(b []byte) []byte { be.PutUint64(b[entry(0):], 1<<62|1<<50); return b }, errs.Invalid, "behind its end"},
		"cluster crooked":     {func(b []byte) []byte { be.PutUint64(b[entry(0):], 512); return b }, errs.Invalid, "cluster at 0x200"},
		"truncated":           {func(b []byte) []byte { return b[:len(b)/2] }, errs.Invalid, "behind its end"},
		"packed in plain": {func(b []byte) []byte {
			be.PutUint64(b[entry(1):], 1<<62|be.Uint64(b[entry(0):])&(1<<56-1)+700)
			return b
		}, errs.Invalid, "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := layout(c.damage(bytes.Clone(base.Bytes)))
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v, want %v with %q", err, c.kind, c.text)
			}
		})
	}
	if _, err := layout(base.Bytes); err != nil {
		t.Error(err)
	}
}

// A file that says it is dirty is written: that is about reference counts.
func TestDirty(t *testing.T) {
	f := qcow2test.Make(t, qcow2test.Config{Size: 1 << 20, Kinds: []qcow2test.Kind{qcow2test.Plain}})
	f.Bytes[79] |= 1
	if _, err := layout(f.Bytes); err != nil {
		t.Error(err)
	}
}

// Bytes of any kind are refused or give a map that stays inside the file and
// the disk, uses nothing twice and leaves no cluster out.
func FuzzMap(f *testing.F) {
	for seed := range int64(8) {
		cfg := qcow2test.Random(seed)
		cfg.ClusterBits, cfg.Size = 9, min(cfg.Size, 20<<9)
		for i := range cfg.Kinds {
			if cfg.Kinds[i] == qcow2test.Packed {
				cfg.Kinds[i] = qcow2test.Plain
			}
		}
		f.Add(qcow2test.Make(f, cfg).Bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := layout(b)
		if err != nil {
			if k := errs.KindOf(err); k != errs.Invalid && k != errs.Unsupported {
				t.Fatalf("%v: %v", k, err)
			}
			return
		}
		held := map[int64]bool{}
		end := int64(0)
		for _, p := range l.Pieces {
			n := p.Len
			if p.Compressed {
				n = min(l.Cluster(), l.Size-p.Guest)
				if p.Len > 2*l.Cluster() {
					t.Fatalf("%+v is longer than two clusters", p)
				}
			} else if p.Host < end {
				t.Fatalf("%+v begins before %d", p, end)
			}
			if p.Host < 0 || p.Len <= 0 || p.Host+p.Len > int64(len(b)) || p.Guest < 0 || p.Guest+n > l.Size || p.Guest%l.Cluster() != 0 {
				t.Fatalf("%+v is outside", p)
			}
			end = max(end, p.Host+p.Len)
			for c := p.Guest / l.Cluster(); c*l.Cluster() < p.Guest+n; c++ {
				if held[c] || !l.Data(c) {
					t.Fatalf("cluster %d: held %v, data %v", c, held[c], l.Data(c))
				}
				held[c] = true
			}
		}
		_ = l.Holes(func(off, n int64) error {
			for c := range held {
				if c*l.Cluster() >= off && c*l.Cluster() < off+n {
					t.Fatalf("cluster %d is a hole and is not", c)
				}
			}
			return nil
		})
	})
}
