package agent

import (
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/ironring/ironring/agent/efi"
	"github.com/ironring/ironring/internal/errs"
)

// partition is one partition of a disk, in logical blocks.
type partition struct {
	number    uint32
	start     uint64
	blocks    uint64
	isESP     bool
	signature [16]byte
	sigType   efi.SignatureType
	format    byte // of efi.HardDrive
	kind      byte // of an MBR entry
}

const (
	espGUID  = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	espMBR   = 0xef
	guardMBR = 0xee // protects a GPT from old tools
)

// readPartitions reads the GPT or, without one, the MBR of dev. A disk without
// any has none; a GPT that is damaged beyond its second copy is an error.
func readPartitions(dev BlockDevice, blockSize int) (parts []partition, err error) {
	if blockSize <= 0 {
		blockSize = 512
	}
	// The bytes are whatever is on the disk and the library is not ours.
	defer func() {
		if r := recover(); r != nil {
			parts, err = nil, errs.New(errs.Invalid, "partition table cannot be read: %v", r)
		}
	}()
	mbr := make([]byte, 512)
	if _, err := dev.ReadAt(mbr, 0); err != nil {
		return nil, fmt.Errorf("read the first sector: %w", err)
	}
	old := readMBR(mbr)
	for _, off := range []int64{int64(blockSize), dev.Size() - int64(blockSize)} {
		if err := saneGPT(dev, off); err != nil {
			return nil, err
		}
	}
	t, err := gpt.Read(storage{dev, io.NewSectionReader(dev, 0, dev.Size())}, blockSize, blockSize)
	if err != nil {
		for _, p := range old {
			if p.format == 0 {
				return nil, errs.New(errs.Invalid, "damaged GPT: %w", err)
			}
		}
		return old, nil
	}
	for _, p := range t.Partitions {
		if p == nil || p.Type == gpt.Unused || p.End < p.Start {
			continue
		}
		sig, err := efi.ParseGUID(p.GUID)
		if err != nil {
			return nil, err
		}
		parts = append(parts, partition{
			number: uint32(p.Index), start: p.Start, blocks: p.End - p.Start + 1, isESP: p.Type == espGUID,
			signature: sig, sigType: efi.SignatureGUID, format: 2,
		})
	}
	return parts, nil
}

// saneGPT refuses a header whose table would not fit into memory: the library
// believes it, and the disk may have been an enemy's.
func saneGPT(dev BlockDevice, off int64) error {
	h := make([]byte, 92)
	if off < 0 || off+int64(len(h)) > dev.Size() {
		return nil
	}
	if _, err := dev.ReadAt(h, off); err != nil {
		return fmt.Errorf("read the partition table: %w", err)
	}
	entries, size := binary.LittleEndian.Uint32(h[80:]), binary.LittleEndian.Uint32(h[84:])
	if string(h[:8]) == "EFI PART" && (entries > 4096 || size > 4096) {
		return errs.New(errs.Invalid, "damaged GPT: %d entries of %d bytes", entries, size)
	}
	return nil
}

// readMBR reads the four primary entries. The protective one has format 0.
func readMBR(b []byte) []partition {
	if b[510] != 0x55 || b[511] != 0xaa {
		return nil
	}
	var parts []partition
	for i := range 4 {
		e := b[446+16*i:][:16]
		kind := e[4]
		p := partition{
			number: uint32(i + 1), start: uint64(binary.LittleEndian.Uint32(e[8:])), blocks: uint64(binary.LittleEndian.Uint32(e[12:])),
			isESP: kind == espMBR, sigType: efi.SignatureMBR, format: 1, kind: kind,
		}
		copy(p.signature[:4], b[440:444])
		if kind == 0 || p.blocks == 0 || p.start == 0 {
			continue
		}
		if kind == guardMBR {
			p.format = 0
		}
		parts = append(parts, p)
	}
	return parts
}

// maxLogical bounds the chain of an extended partition.
const maxLogical = 128

// logicalPartitions are those inside the extended partitions among parts, for
// what needs to know where they lie and no more. A chain that is damaged ends
// where it is.
func logicalPartitions(dev BlockDevice, parts []partition, blockSize int) []partition {
	block := uint64(max(512, blockSize))
	sector := make([]byte, 512)
	var out []partition
	for _, ext := range parts {
		if ext.format != 1 || ext.kind != 0x05 && ext.kind != 0x0f && ext.kind != 0x85 {
			continue
		}
		for at, steps := ext.start, 0; steps < maxLogical; steps++ {
			if at >= uint64(dev.Size())/block {
				break
			}
			if _, err := dev.ReadAt(sector, int64(at*block)); err != nil {
				break
			}
			next := uint64(0)
			for _, p := range readMBR(sector) {
				if p.kind == 0x05 || p.kind == 0x0f || p.kind == 0x85 {
					next = ext.start + p.start
				} else {
					out = append(out, partition{start: at + p.start, blocks: p.blocks, format: 1, kind: p.kind})
				}
			}
			if next <= at { // the chain only goes up
				break
			}
			at = next
		}
	}
	return out
}

// storage shows a BlockDevice to go-diskfs, for reading only.
type storage struct {
	BlockDevice
	r *io.SectionReader
}

var _ backend.Storage = storage{}

func (s storage) Read(p []byte) (int, error)                { return s.r.Read(p) }
func (s storage) Seek(off int64, whence int) (int64, error) { return s.r.Seek(off, whence) }
func (s storage) Stat() (fs.FileInfo, error) {
	return nil, errs.New(errs.Unsupported, "a disk has no file information")
}
func (s storage) Close() error { return nil } // whoever opened the disk closes it
func (s storage) Sys() (*os.File, error) {
	return nil, backend.ErrNotSuitable
}
func (s storage) Writable() (backend.WritableFile, error) { return nil, backend.ErrIncorrectOpenMode }
func (s storage) Path() string                            { return "" }
