package qcow2

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"slices"

	"github.com/ironring/ironring/internal/errs"
)

// Piece is a part of the file that holds a part of the disk.
type Piece struct {
	Host  int64 // where it lies in the file
	Len   int64 // in the file
	Guest int64 // where it belongs on the disk, a multiple of the cluster size
	// Compressed: Len bytes, of which the last may not belong to it, make one
	// cluster of the disk. Otherwise Len bytes of the disk lie here as they are.
	Compressed bool
}

// Table is a part of the file that was read ahead.
type Table struct {
	Host, Len int64
	Sum       [sha256.Size]byte
}

// Layout is the map of a file. Pieces and Tables are in order of Host.
type Layout struct {
	Header
	Pieces []Piece
	Tables []Table
	data   []uint64 // a bit for each cluster of the disk that a piece holds
}

// Data says whether a cluster of the disk, by number, is in the file; those
// that are not read as zero.
func (l *Layout) Data(cluster int64) bool { return l.data[cluster/64]>>(cluster%64)&1 != 0 }

// Holes calls f for each stretch of the disk that is not in the file.
func (l *Layout) Holes(f func(off, n int64) error) error {
	c := l.Cluster()
	all := ceil(l.Size, c)
	for i := int64(0); i < all; {
		if l.Data(i) {
			i++
			continue
		}
		from := i
		for i < all && !l.Data(i) {
			if i++; i%64 == 0 && i < all && l.data[i/64] == 0 {
				i = min(all, i+63)
			}
		}
		if err := f(from*c, min(i*c, l.Size)-from*c); err != nil {
			return err
		}
	}
	return nil
}

// Map reads the tables of a file of fileSize bytes through r and says where
// everything is. head are the file's first bytes.
func Map(ctx context.Context, h Header, head []byte, fileSize int64, r io.ReaderAt) (*Layout, error) {
	m := &mapper{Layout: Layout{Header: h}, file: fileSize, r: r}
	m.table(0, head)
	l1, err := m.read(h.l1Offset, h.l1Bytes)
	if err != nil {
		return nil, err
	}
	m.data = make([]uint64, ceil(ceil(h.Size, h.Cluster()), 64))
	tables := int64(0)
	for i := 0; i < len(l1); i += 8 {
		off := int64(binary.BigEndian.Uint64(l1[i:]) & offsetMask)
		if off == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if tables += h.Cluster(); tables > MaxTableBytes {
			return nil, errs.New(errs.Unsupported, "the tables of the qcow2 file have more than %d MiB; convert the image to raw or to larger clusters", MaxTableBytes>>20)
		}
		l2, err := m.read(off, h.Cluster())
		if err != nil {
			return nil, err
		}
		if err := m.entries(l2, int64(i/8)*(h.Cluster()/8)); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(m.Pieces, func(a, b Piece) int { return cmp.Compare(a.Host, b.Host) })
	slices.SortFunc(m.Tables, func(a, b Table) int { return cmp.Compare(a.Host, b.Host) })
	return &m.Layout, m.disjoint()
}

// Bits of table entries.
const (
	offsetMask = 0x00fffffffffffe00
	zeroBit    = 1
	packedBit  = 1 << 62
)

type mapper struct {
	Layout
	file int64
	r    io.ReaderAt
}

// read gets a table and remembers it.
func (m *mapper) read(off, n int64) ([]byte, error) {
	if off%m.Cluster() != 0 || off > m.file-n {
		return nil, errs.New(errs.Invalid, "damaged qcow2 file: a table of %d bytes at %#x, the file has %d", n, off, m.file)
	}
	b := make([]byte, n)
	if k, err := m.r.ReadAt(b, off); int64(k) < n {
		return nil, errs.New(errs.KindOf(err), "read a table of the qcow2 file: %w", err)
	}
	m.table(off, b)
	return b, nil
}

func (m *mapper) table(off int64, b []byte) {
	m.Tables = append(m.Tables, Table{Host: off, Len: int64(len(b)), Sum: sha256.Sum256(b)})
}

// entries takes the entries of one second-level table, whose first is for the
// given cluster of the disk.
func (m *mapper) entries(l2 []byte, first int64) error {
	c := m.Cluster()
	for i := 0; i < len(l2); i += 8 {
		e := binary.BigEndian.Uint64(l2[i:])
		guest := (first + int64(i/8)) * c
		if guest >= m.Size {
			return nil
		}
		p := Piece{Guest: guest}
		switch {
		case e&packedBit != 0:
			bits := 62 - (m.ClusterBits - 8)
			p.Host = int64(e & (1<<bits - 1))
			sectors := int64(e&(packedBit-1)>>bits) + 1
			// The last sector need not be in the file as a whole.
			p.Len, p.Compressed = min(512*sectors-p.Host%512, m.file-p.Host), true
		case e&zeroBit != 0 && m.Version >= 3, e&offsetMask == 0:
			continue
		default:
			p.Host = int64(e & offsetMask)
			p.Len = min(c, m.Size-guest)
			if p.Host%c != 0 {
				return errs.New(errs.Invalid, "damaged qcow2 file: a cluster at %#x", p.Host)
			}
		}
		if p.Len <= 0 || p.Host > m.file-p.Len {
			return errs.New(errs.Invalid, "damaged qcow2 file: a cluster at %#x lies behind its end at %d", p.Host, m.file)
		}
		m.data[guest/c/64] |= 1 << (guest / c % 64)
		if n := len(m.Pieces); n > 0 && !p.Compressed {
			// Most clusters follow each other in the file as on the disk.
			if last := &m.Pieces[n-1]; !last.Compressed && last.Host+last.Len == p.Host && last.Guest+last.Len == p.Guest {
				last.Len += p.Len
				continue
			}
		}
		if len(m.Pieces) >= MaxPieces {
			return errs.New(errs.Unsupported, "the qcow2 file is in more than %d pieces; convert the image to raw", MaxPieces)
		}
		m.Pieces = append(m.Pieces, p)
	}
	return nil
}

// disjoint refuses a file that uses a byte twice.
func (m *mapper) disjoint() error {
	twice := func(at int64) error {
		return errs.New(errs.Invalid, "damaged qcow2 file: the bytes at %#x are used twice; see `qemu-img check`", at)
	}
	tables := m.Tables
	var end int64         // of all that went before
	var packed int64 = -1 // where the last compressed cluster began, if it is what end is of
	for i := 0; i <= len(m.Pieces); i++ {
		last := i == len(m.Pieces)
		for len(tables) > 0 && (last || tables[0].Host <= m.Pieces[i].Host) {
			if tables[0].Host < end {
				return twice(tables[0].Host)
			}
			end, packed = tables[0].Host+tables[0].Len, -1
			tables = tables[1:]
		}
		if last {
			return nil
		}
		p := m.Pieces[i]
		if p.Host < end && (!p.Compressed || packed < 0 || p.Host == packed) {
			return twice(p.Host)
		}
		if p.Compressed {
			packed = p.Host
		} else {
			packed = -1
		}
		end = max(end, p.Host+p.Len)
	}
	return nil
}
