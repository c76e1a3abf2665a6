// Package boltcheck reads a bbolt file as bytes and says whether bbolt may be
// let near it.
//
// bbolt maps its file and trusts it: a flipped byte in a page is a panic in one
// of its goroutines, a page beyond the end of a truncated file a SIGBUS, and a
// damaged meta page makes it go back silently by one transaction, which for
// Raft is a vote or an entry that was promised. Each of these ends the process
// without a word that helps, or worse. Check finds them first.
//
// Invariants: what Check passes, bbolt opens and walks without a fault; Check
// reads each page at most once, writes nothing, and neither panics nor runs
// without bound, whatever the bytes are. Values are not looked into: they need
// checksums of their own.
//
// It is for files with top-level buckets only, on a host of the byte order
// that wrote them. Start with Check.
package boltcheck

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
)

// The format, of bbolt's internal/common.
const (
	headerSize  = 16 // of a page: id (8), flags (2), count (2), overflow (4)
	elementSize = 16 // of a branch: pos (4), key size (4), page (8); of a leaf: flags, pos, key size, value size
	metaSize    = 64 // up to the checksum, which follows
	bucketSize  = 16 // root page (8), sequence (8)

	metaMagic   = 0xED0CDAED
	metaVersion = 2
	noFreelist  = ^uint64(0)

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreelist = 0x10
	leafBucket   = 0x01 // of a leaf's element

	maxDepth = 32 // a tree of such height has more keys than a disk
)

var order = binary.NativeEndian

// Visit is called with each key of each bucket, in order. The slices are valid
// during the call only.
type Visit func(bucket, key, value []byte) error

// Check reads a file of that size. The error says what is damaged and, where
// it can, at which page.
func Check(r io.ReaderAt, size int64, visit Visit) error {
	w := &walker{r: r, size: size, visit: visit, seen: map[uint64]bool{}}
	m, err := w.newest()
	if err != nil {
		return err
	}
	if m.pages < 4 || int64(m.pages) > size/int64(w.page) {
		return fmt.Errorf("it is truncated: it has %d bytes and %d pages of %d bytes", size, m.pages, w.page)
	}
	w.pages = m.pages
	w.seen[0], w.seen[1] = true, true
	if m.freelist != noFreelist {
		if err := w.checkFreelist(m.freelist); err != nil {
			return err
		}
	}
	return w.tree(m.root, span{}, 0, w.topLevel)
}

type meta struct {
	root, freelist, pages, txid uint64
}

type walker struct {
	r     io.ReaderAt
	size  int64
	visit Visit
	page  int             // bytes of a page
	pages uint64          // all pages are below it
	seen  map[uint64]bool // pages in use
}

// newest reads both meta pages; both must be whole. They lie in one sector
// each, so that a crash leaves the old or the new one.
func (w *walker) newest() (*meta, error) {
	var first [headerSize + metaSize]byte
	if w.size < int64(len(first)) {
		return nil, fmt.Errorf("it is truncated: it has %d bytes", w.size)
	}
	if _, err := w.r.ReadAt(first[:], 0); err != nil {
		return nil, err
	}
	size := order.Uint32(first[headerSize+8:])
	if size < 1024 || size > 64<<10 || size&(size-1) != 0 {
		return nil, fmt.Errorf("its first meta page is damaged")
	}
	w.page = int(size)
	var metas [2]*meta
	for i := range metas {
		m, err := w.meta(i)
		if err != nil {
			return nil, err
		}
		metas[i] = m
	}
	if metas[1].txid > metas[0].txid {
		return metas[1], nil
	}
	return metas[0], nil
}

func (w *walker) meta(i int) (*meta, error) {
	p := make([]byte, headerSize+metaSize)
	if off := int64(i) * int64(w.page); off+int64(len(p)) > w.size {
		return nil, fmt.Errorf("it is truncated: it has %d bytes", w.size)
	} else if _, err := w.r.ReadAt(p, off); err != nil {
		return nil, err
	}
	b := p[headerSize:]
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	switch {
	case order.Uint64(p) != uint64(i), order.Uint16(p[8:]) != flagMeta,
		order.Uint32(b) != metaMagic, order.Uint32(b[8:]) != uint32(w.page), order.Uint64(b[56:]) != sum.Sum64():
		return nil, fmt.Errorf("its meta page %d is damaged", i)
	case order.Uint32(b[4:]) != metaVersion:
		return nil, fmt.Errorf("it has format %d, not %d", order.Uint32(b[4:]), metaVersion)
	}
	return &meta{
		root: order.Uint64(b[16:]), freelist: order.Uint64(b[32:]), pages: order.Uint64(b[40:]), txid: order.Uint64(b[48:]),
	}, nil
}

// read reads a page with what overflows from it, and takes it.
func (w *walker) read(id uint64) ([]byte, error) {
	if id < 2 || id >= w.pages {
		return nil, fmt.Errorf("page %d is named, it has %d", id, w.pages)
	}
	off := int64(id) * int64(w.page)
	head := make([]byte, headerSize)
	if _, err := w.r.ReadAt(head, off); err != nil {
		return nil, err
	}
	over := uint64(order.Uint32(head[12:]))
	if order.Uint64(head) != id || id+over >= w.pages {
		return nil, pageError(id)
	}
	for n := id; n <= id+over; n++ {
		if w.seen[n] {
			return nil, fmt.Errorf("page %d is used twice", n)
		}
		w.seen[n] = true
	}
	p := make([]byte, (over+1)*uint64(w.page))
	if _, err := w.r.ReadAt(p, off); err != nil {
		return nil, err
	}
	return p, nil
}

func pageError(id uint64) error { return fmt.Errorf("page %d is damaged", id) }

// checkFreelist looks at a list of free pages, which a new file has.
func (w *walker) checkFreelist(id uint64) error {
	p, err := w.read(id)
	if err != nil {
		return err
	}
	n := int(order.Uint16(p[10:]))
	if order.Uint16(p[8:]) != flagFreelist || n == 0xFFFF || headerSize+8*n > len(p) {
		return pageError(id)
	}
	for i := range n {
		if free := order.Uint64(p[headerSize+8*i:]); free < 2 || free >= w.pages {
			return pageError(id)
		}
	}
	return nil
}

// span is where the keys of a page must lie: from, but not including, to. An
// empty end is open.
type span struct{ from, to []byte }

func (s span) has(key []byte) bool {
	return bytes.Compare(key, s.from) >= 0 && (s.to == nil || bytes.Compare(key, s.to) < 0)
}

// leafFunc is given the elements of the leaves of a tree, in order.
type leafFunc func(page uint64, flags uint32, key, value []byte) error

// tree walks the tree below a page.
func (w *walker) tree(id uint64, in span, depth int, leaf leafFunc) error {
	if depth > maxDepth {
		return pageError(id)
	}
	p, err := w.read(id)
	if err != nil {
		return err
	}
	switch order.Uint16(p[8:]) {
	case flagBranch:
		return w.branch(id, p, in, depth, leaf)
	case flagLeaf:
		return leaves(id, p, in, leaf)
	}
	return pageError(id)
}

func (w *walker) branch(id uint64, p []byte, in span, depth int, leaf leafFunc) error {
	n := int(order.Uint16(p[10:]))
	if n == 0 || headerSize+n*elementSize > len(p) {
		return pageError(id)
	}
	keys := make([][]byte, n)
	for i := range keys {
		e := headerSize + i*elementSize
		key, ok := cut(p, e, order.Uint32(p[e:]), order.Uint32(p[e+4:]), n)
		if !ok || !in.has(key) || i > 0 && bytes.Compare(keys[i-1], key) >= 0 {
			return pageError(id)
		}
		keys[i] = key
	}
	for i, key := range keys {
		below := span{key, in.to}
		if i+1 < n {
			below.to = keys[i+1]
		}
		if err := w.tree(order.Uint64(p[headerSize+i*elementSize+8:]), below, depth+1, leaf); err != nil {
			return err
		}
	}
	return nil
}

// leaves hands on the elements of a leaf page, which may be part of a value.
func leaves(id uint64, p []byte, in span, leaf leafFunc) error {
	n := int(order.Uint16(p[10:]))
	if headerSize+n*elementSize > len(p) {
		return pageError(id)
	}
	var last []byte
	for i := range n {
		e := headerSize + i*elementSize
		flags, pos, ksize, vsize := order.Uint32(p[e:]), order.Uint32(p[e+4:]), order.Uint32(p[e+8:]), order.Uint32(p[e+12:])
		key, ok := cut(p, e, pos, ksize, n)
		if !ok || uint64(vsize) > uint64(len(p)) {
			return pageError(id)
		}
		value, ok := cut(p, e, pos+ksize, vsize, n)
		if !ok || flags > leafBucket || !in.has(key) || i > 0 && bytes.Compare(last, key) >= 0 {
			return pageError(id)
		}
		if err := leaf(id, flags, key, value); err != nil {
			return err
		}
		last = key
	}
	return nil
}

// cut is the part of a page that an element names, relative to itself. It must
// lie behind the elements.
func cut(p []byte, element int, pos, size uint32, elements int) ([]byte, bool) {
	from := uint64(element) + uint64(pos)
	if from < uint64(headerSize+elements*elementSize) || from+uint64(size) > uint64(len(p)) {
		return nil, false
	}
	return p[from : from+uint64(size)], true
}

// topLevel is given the buckets.
func (w *walker) topLevel(id uint64, flags uint32, name, value []byte) error {
	if flags&leafBucket == 0 || len(value) < bucketSize {
		return pageError(id)
	}
	keys := func(page uint64, flags uint32, key, value []byte) error {
		if flags != 0 {
			return pageError(page)
		}
		return w.visit(name, key, value)
	}
	if root := order.Uint64(value); root != 0 {
		return w.tree(root, span{}, 1, keys)
	}
	inline := value[bucketSize:]
	if len(inline) < headerSize || order.Uint16(inline[8:]) != flagLeaf {
		return pageError(id)
	}
	return leaves(id, inline, span{}, keys)
}
