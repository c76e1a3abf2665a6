// Package signature tells from a disk's bytes whether it is a member of
// something that spans disks: software or firmware RAID, a volume group, a
// pool. In the ramdisk none of these is assembled, so that the kernel's list of
// holders does not say.
//
// It is not for file systems on one disk, and it never writes. A format that
// is not known here is not seen; a disk that cannot be read has no signature.
//
// Pure, safe for concurrent use. Start reading at Members.
package signature

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
)

// probe looks for one format.
type probe struct {
	name string
	hit  func(d disk) bool
}

// probes are all formats, in the order in which they are told.
var probes = []probe{
	{"linux md", disk.linuxMD},
	{"intel raid", disk.intel},
	{"ddf", disk.ddf},
	{"lvm2", disk.lvm2},
	{"zfs", disk.zfs},
	{"bcache", disk.bcache},
	{"ceph bluestore", disk.bluestore},
	{"drbd", disk.drbd},
	{"btrfs over several disks", disk.btrfs},
}

// Members names what the whole disk behind r, of size bytes, is a member of;
// empty for nothing.
func Members(r io.ReaderAt, size int64) []string {
	var out []string
	for _, p := range probes {
		if p.hit(disk{r, size}) {
			out = append(out, p.name)
		}
	}
	return out
}

type disk struct {
	r    io.ReaderAt
	size int64
}

// at is a piece of the disk, all zero where it cannot be read.
func (d disk) at(off int64, n int) []byte {
	b := make([]byte, n)
	if off < 0 || off+int64(n) > d.size {
		return b
	}
	if _, err := d.r.ReadAt(b, off); err != nil {
		return make([]byte, n)
	}
	return b
}

const mdMagic = 0xa92b4efc

// linuxMD: 1.1 at the start, 1.2 at 4 KiB, 1.0 and 0.90 near the end. Version
// 0.90 has the byte order of the host that made it.
func (d disk) linuxMD() bool {
	for _, off := range []int64{0, 4 << 10, (d.size/512 - 16) &^ 7 * 512, d.size&^(64<<10-1) - 64<<10} {
		b := d.at(off, 4)
		if binary.LittleEndian.Uint32(b) == mdMagic || binary.BigEndian.Uint32(b) == mdMagic {
			return true
		}
	}
	return false
}

// sectors are the sizes that disks have.
var sectors = []int64{512, 4096}

// intel (IMSM) is in the last but one sector.
func (d disk) intel() bool {
	return slices.ContainsFunc(sectors, func(s int64) bool {
		return bytes.HasPrefix(d.at(d.size-2*s, 32), []byte("Intel Raid ISM Cfg Sig. "))
	})
}

// ddf has its anchor in the last sector, and with some makers 257 from the end.
func (d disk) ddf() bool {
	return slices.ContainsFunc([]int64{512, 4096, 257 * 512}, func(back int64) bool {
		return bytes.Equal(d.at(d.size-back, 4), []byte{0xde, 0x11, 0xde, 0x11})
	})
}

// lvm2 has its label in one of the first four sectors.
func (d disk) lvm2() bool {
	b := d.at(0, 4*512)
	for off := 0; off < len(b); off += 512 {
		if bytes.HasPrefix(b[off:], []byte("LABELONE")) && bytes.HasPrefix(b[off+24:], []byte("LVM2 001")) {
			return true
		}
	}
	return false
}

// zfs has four labels of 256 KiB, two at each end; the second half of each is
// a ring of uberblocks.
func (d disk) zfs() bool {
	const label, uberblock, magic = 256 << 10, 1 << 10, 0x00bab10c
	end := d.size &^ (label - 1)
	for _, off := range []int64{0, label, end - 2*label, end - label} {
		ring := d.at(off+label/2, label/2)
		for i := 0; i < len(ring); i += uberblock {
			if binary.LittleEndian.Uint64(ring[i:]) == magic || binary.BigEndian.Uint64(ring[i:]) == magic {
				return true
			}
		}
	}
	return false
}

// bcache and bcachefs begin at 4 KiB.
func (d disk) bcache() bool {
	b := d.at(4<<10+24, 16)
	return bytes.Equal(b, []byte("\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81")) ||
		bytes.Equal(b, []byte("\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"))
}

// Bluestore is where Ceph keeps the copies of a disk's label; the first is at 0.
var Bluestore = []int64{1 << 30, 10 << 30, 100 << 30, 1000 << 30}

func (d disk) bluestore() bool {
	return slices.ContainsFunc(append([]int64{0}, Bluestore...), func(off int64) bool {
		return bytes.HasPrefix(d.at(off, 32), []byte("bluestore block device\n"))
	})
}

// drbd keeps its metadata in the last 4 KiB.
func (d disk) drbd() bool {
	magic := binary.BigEndian.Uint32(d.at(d.size&^4095-4096+60, 4))
	return magic >= 0x8374026a && magic <= 0x8374026e
}

// btrfs says how many disks it is made of.
func (d disk) btrfs() bool {
	b := d.at(64<<10, 0x90)
	return string(b[64:72]) == "_BHRfS_M" && binary.LittleEndian.Uint64(b[0x88:]) > 1
}
