// Package qcow2 tells where in a qcow2 file the bytes of the disk lie, so that
// the file can be written to a disk in one pass over its bytes, in their order.
//
// The file may be an enemy's: its digest is known only at its end. So:
//
//   - Memory is bounded (Max constants) whatever the file says, and nothing is
//     allocated by a length that the file claims before it was checked.
//   - A file that would lead outside itself is refused: a backing file and an
//     external data file are never opened.
//   - No byte of the file is used twice, except that compressed clusters may
//     share sectors, as they do by design. So no table can lead into itself.
//   - What was read of tables ahead of the pass is remembered by digest
//     (Table.Sum); whoever makes the pass must compare, or the file's digest
//     says nothing about the map.
//
// It is not for reading at random, nor for writing: a library does that, and
// is the oracle of the tests (docs/adr/0024). All functions are pure but for
// the reader they are given. Start reading at Map.
package qcow2

import (
	"encoding/binary"

	"github.com/ironring/ironring/internal/errs"
)

// Magic is what a qcow2 file begins with.
const Magic = "QFI\xfb"

// HeaderBytes is how much of the file ParseHeader wants to see.
const HeaderBytes = 512

// Bounds of what is accepted.
const (
	MaxL1Bytes    = 32 << 20  // as qemu has it
	MaxTableBytes = 256 << 20 // of all second-level tables: 2 TiB of content with clusters of 64 KiB
	MaxPieces     = 4 << 20   // 128 MiB of memory
	MaxClusters   = 1 << 28   // of the disk: a bitmap of 32 MiB
)

// Compression is how clusters are compressed.
type Compression uint8

// The values are those of the file format.
const (
	Deflate Compression = 0
	Zstd    Compression = 1
)

// Header is what matters of a file's header.
type Header struct {
	Version     uint32
	ClusterBits uint32
	Size        int64 // of the disk, in bytes
	Compression Compression

	l1Offset int64
	l1Bytes  int64 // of the entries that the size needs
}

// Cluster is the size of a cluster in bytes.
func (h Header) Cluster() int64 { return 1 << h.ClusterBits }

// Incompatible features, by bit.
const (
	featDirty = 1 << iota
	featCorrupt
	featExternal
	featCompression
	featExtendedL2
)

// ParseHeader reads the header from the first bytes of a file; b may be
// shorter than HeaderBytes only where the file is. What cannot be written is
// errs.Unsupported, what is damaged errs.Invalid.
func ParseHeader(b []byte) (Header, error) {
	be := binary.BigEndian
	if len(b) < 72 || string(b[:4]) != Magic {
		return Header{}, errs.New(errs.Invalid, "not a qcow2 file")
	}
	h := Header{Version: be.Uint32(b[4:]), ClusterBits: be.Uint32(b[20:])}
	size, l1Entries, l1Offset := be.Uint64(b[24:]), uint64(be.Uint32(b[36:])), be.Uint64(b[40:])
	switch {
	case h.Version != 2 && h.Version != 3:
		return h, errs.New(errs.Unsupported, "qcow2 version %d is not supported: 2 and 3 are", h.Version)
	case be.Uint64(b[8:]) != 0 || be.Uint32(b[16:]) != 0:
		return h, errs.New(errs.Unsupported, "the qcow2 file has a backing file; flatten it with `qemu-img convert`")
	case be.Uint32(b[32:]) != 0:
		return h, errs.New(errs.Unsupported, "the qcow2 file is encrypted")
	case h.ClusterBits < 9 || h.ClusterBits > 21:
		return h, errs.New(errs.Invalid, "the qcow2 file has clusters of 2^%d bytes; 2^9 to 2^21 are allowed", h.ClusterBits)
	case size == 0 || size > 1<<60:
		return h, errs.New(errs.Invalid, "the qcow2 file says that its disk has %d bytes", size)
	}
	h.Size = int64(size)
	if h.Version == 3 {
		if err := h.features(b); err != nil {
			return h, err
		}
	}
	clusters := ceil(h.Size, h.Cluster())
	need := ceil(clusters, h.Cluster()/8)
	switch {
	case clusters > MaxClusters || 8*need > MaxL1Bytes:
		return h, errs.New(errs.Unsupported, "a disk of %d bytes in clusters of %d is too large for us; convert the image to raw or to larger clusters", h.Size, h.Cluster())
	case l1Entries < uint64(need):
		return h, errs.New(errs.Invalid, "damaged qcow2 file: its first-level table has %d entries, its size needs %d", l1Entries, need)
	case l1Offset == 0 || l1Offset%uint64(h.Cluster()) != 0 || l1Offset > 1<<60:
		return h, errs.New(errs.Invalid, "damaged qcow2 file: its first-level table is at %#x", l1Offset)
	}
	h.l1Offset, h.l1Bytes = int64(l1Offset), 8*need
	return h, nil
}

// features reads what version 3 adds.
func (h *Header) features(b []byte) error {
	be := binary.BigEndian
	if len(b) < 104 {
		return errs.New(errs.Invalid, "the qcow2 file ends in its header")
	}
	feat, length := be.Uint64(b[72:]), be.Uint32(b[100:])
	switch {
	case feat&featExternal != 0:
		return errs.New(errs.Unsupported, "the qcow2 file keeps its data in an external file; flatten it with `qemu-img convert`")
	case feat&featCorrupt != 0:
		return errs.New(errs.Invalid, "the qcow2 file is marked as corrupt; see `qemu-img check`")
	case feat&featExtendedL2 != 0:
		return errs.New(errs.Unsupported, "the qcow2 file has extended entries (subclusters); convert it with `qemu-img convert`")
	case feat&^uint64(featDirty|featCompression) != 0: // dirty is about reference counts, which we do not use
		return errs.New(errs.Unsupported, "the qcow2 file has features %#x that are not known here", feat)
	case length < 104 || int64(length) > h.Cluster():
		return errs.New(errs.Invalid, "damaged qcow2 file: its header has %d bytes", length)
	}
	kind := byte(0)
	if length > 104 && len(b) > 104 {
		kind = b[104]
	}
	if (kind != 0) != (feat&featCompression != 0) {
		return errs.New(errs.Invalid, "damaged qcow2 file: compression type %d does not fit its features", kind)
	}
	h.Compression = Compression(kind)
	if h.Compression > Zstd {
		return errs.New(errs.Unsupported, "qcow2 compression type %d is not supported: deflate and zstd are", kind)
	}
	return nil
}

func ceil(a, b int64) int64 { return a/b + min(1, a%b) }
