package signature

import (
	"bytes"
	"encoding/binary"
	"io"
)

// edge is how much at either end of a disk is looked at for bytes of which no
// format is known.
const edge = 1 << 20

// contents are what lies on one disk, beside what spans disks.
var contents = []probe{
	{"GPT", disk.gpt},
	{"MBR partition table", disk.mbr},
	{"LUKS", func(d disk) bool { return bytes.Equal(d.at(0, 6), []byte("LUKS\xba\xbe")) }},
	{"ext", func(d disk) bool { return bytes.Equal(d.at(0x438, 2), []byte{0x53, 0xef}) }},
	{"xfs", func(d disk) bool { return bytes.Equal(d.at(0, 4), []byte("XFSB")) }},
	{"btrfs", func(d disk) bool { return bytes.Equal(d.at(0x10040, 8), []byte("_BHRfS_M")) }},
	{"ntfs", func(d disk) bool { return bytes.Equal(d.at(3, 8), []byte("NTFS    ")) }},
	{"fat", disk.fat},
	{"swap", disk.swap},
	{"ISO 9660", func(d disk) bool { return bytes.Equal(d.at(0x8001, 5), []byte("CD001")) }},
}

// Contents names what the disk behind r, of size bytes, holds: partition
// tables, file systems, what it is a member of. Where no format is known but
// the first or last MiB is not all zero it is "unknown data". An empty list is
// a blank disk, as far as all that was looked at says; an error means that a
// place where something could be cannot be read, so that it is not known.
func Contents(r io.ReaderAt, size int64) ([]string, error) {
	w := &watched{r: r}
	d := disk{w, size}
	out := []string{}
	for _, p := range contents {
		if p.hit(d) {
			out = append(out, p.name)
		}
	}
	out = append(out, Members(w, size)...)
	if len(out) > 0 {
		return out, nil
	}
	blank := d.blank()
	switch {
	case w.err != nil:
		return nil, w.err
	case !blank:
		out = append(out, "unknown data")
	}
	return out, nil
}

// watched notes whether something could not be read in full.
type watched struct {
	r   io.ReaderAt
	err error
}

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.r.ReadAt(p, off)
	switch {
	case n == len(p):
		return n, nil
	case err == nil || err == io.EOF: // it is shorter than it says
		err = io.ErrUnexpectedEOF
	}
	if w.err == nil {
		w.err = err
	}
	return n, err
}

// blank reports whether both ends are all zero, as far as they can be read.
func (d disk) blank() bool {
	n := min(d.size, edge)
	for _, off := range []int64{0, d.size - n} {
		if len(bytes.Trim(d.at(off, int(n)), "\x00")) > 0 {
			return false
		}
	}
	return true
}

// gpt: the header at the start, or its copy in the last sector, for sectors of
// 512 and 4096 bytes.
func (d disk) gpt() bool {
	for _, sector := range []int64{512, 4096} {
		if bytes.Equal(d.at(sector, 8), []byte("EFI PART")) || bytes.Equal(d.at(d.size-sector, 8), []byte("EFI PART")) {
			return true
		}
	}
	return false
}

// mbr: the mark and at least one partition. A file system's boot sector has
// the mark too.
func (d disk) mbr() bool {
	b := d.at(0, 512)
	if binary.LittleEndian.Uint16(b[510:]) != 0xaa55 || d.fat() || bytes.Equal(b[3:11], []byte("NTFS    ")) {
		return false
	}
	for i := range 4 {
		if e := b[446+16*i : 462+16*i]; e[4] != 0 && e[0]&0x7f == 0 {
			return true
		}
	}
	return false
}

func (d disk) fat() bool {
	b := d.at(0, 512)
	return binary.LittleEndian.Uint16(b[510:]) == 0xaa55 && (bytes.HasPrefix(b[54:], []byte("FAT1")) || bytes.HasPrefix(b[82:], []byte("FAT32")))
}

// swap: the mark is at the end of the first page, whatever its size was.
func (d disk) swap() bool {
	for _, page := range []int64{4 << 10, 8 << 10, 16 << 10, 64 << 10} {
		if bytes.Equal(d.at(page-10, 10), []byte("SWAPSPACE2")) {
			return true
		}
	}
	return false
}
