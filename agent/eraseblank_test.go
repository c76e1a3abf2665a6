package agent

import (
	"bytes"
	"log/slog"
	"maps"
	"slices"
	"testing"

	"github.com/ironring/ironring/agent/signature"
	"github.com/ironring/ironring/internal/agentproto"
)

// pages is a disk of zeros but for some pages, as large as one likes.
type pages struct {
	size int64
	of   map[int64][]byte // by number; those of zeros are not there
}

const page = 4 << 10

// each calls do with each page of a piece, and with where the piece is in it.
func (d pages) each(p []byte, off int64, do func(n int64, in int, p []byte)) {
	for len(p) > 0 {
		n, in := off/page, int(off%page)
		k := min(len(p), page-in)
		do(n, in, p[:k])
		p, off = p[k:], off+int64(k)
	}
}

func (d pages) ReadAt(p []byte, off int64) (int, error) {
	d.each(p, off, func(n int64, in int, p []byte) {
		if b := d.of[n]; b != nil {
			copy(p, b[in:])
		} else {
			clear(p)
		}
	})
	return len(p), nil
}

func (d pages) WriteAt(p []byte, off int64) (int, error) {
	d.each(p, off, func(n int64, in int, p []byte) {
		b := d.of[n]
		if b == nil {
			b = make([]byte, page)
		}
		copy(b[in:], p)
		if d.of[n] = b; isZero(b) {
			delete(d.of, n)
		}
	})
	return len(p), nil
}

func (d pages) Size() int64           { return d.size }
func (pages) Sync() error             { return nil }
func (pages) DropCaches() error       { return nil }
func (pages) RereadPartitions() error { return nil }
func (pages) Close() error            { return nil }

// What a clean leaves behind must count as blank: else a clean would be stopped
// by what the last one left, and ask whose it is.
func TestErasedIsBlank(t *testing.T) {
	// As large as the furthest place that is looked at, and no multiple of
	// anything but the sector.
	const size = 1001<<30 + 3*512
	type put struct {
		off  int64 // from the end where it is negative
		data string
	}
	md, bcache := "\xfc\x4e\x2b\xa9\x01", "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"
	btrfs := []put{{64<<10 + 64, "_BHRfS_M"}, {64<<10 + 0x88, "\x02"}}
	cases := map[string][]put{
		"GPT":                      {{512, "EFI PART"}, {-512, "EFI PART"}, {510, "\x55\xaa"}, {450, "\xee"}, {458, "\xff\xff\xff\xff"}},
		"GPT, its copy only":       {{-512, "EFI PART"}},
		"GPT of 4k sectors":        {{4096, "EFI PART"}, {-4096, "EFI PART"}},
		"MBR partition table":      {{446, "\x80\x00\x00\x00\x83\x00\x00\x00\x00\x08\x00\x00\x00\x00\x10\x00"}, {510, "\x55\xaa"}},
		"LUKS":                     {{0, "LUKS\xba\xbe"}},
		"ext":                      {{0x438, "\x53\xef"}},
		"xfs":                      {{0, "XFSB"}},
		"btrfs":                    {{64<<10 + 64, "_BHRfS_M"}, {64<<10 + 0x88, "\x01"}, {64<<20 + 64, "_BHRfS_M"}, {256<<30 + 64, "_BHRfS_M"}},
		"ntfs":                     {{3, "NTFS    "}, {510, "\x55\xaa"}},
		"fat":                      {{54, "FAT16   "}, {510, "\x55\xaa"}},
		"swap":                     {{4086, "SWAPSPACE2"}},
		"swap of 64k pages":        {{64<<10 - 10, "SWAPSPACE2"}},
		"ISO 9660":                 {{0x8001, "CD001"}},
		"linux md":                 {{4096, md}},
		"md 1.0":                   {{(size/512-16)&^7*512 - size, md}},
		"md 1.1":                   {{0, md}},
		"md 0.90":                  {{size&^(64<<10-1) - 64<<10 - size, md}},
		"intel raid":               {{-1024, "Intel Raid ISM Cfg Sig. 1.3.00"}},
		"intel raid, 4k":           {{-8192, "Intel Raid ISM Cfg Sig. 1.3.00"}},
		"ddf":                      {{-512, "\xde\x11\xde\x11"}},
		"ddf, further in":          {{-257 * 512, "\xde\x11\xde\x11"}},
		"lvm2":                     {{512, "LABELONE\x01\x00\x00\x00\x00\x00\x00\x00abcd\x20\x00\x00\x00LVM2 001"}},
		"zfs":                      {{128<<10 + 5<<10, "\x0c\xb1\xba\x00\x00\x00\x00\x00"}},
		"zfs, second label":        {{384 << 10, "\x0c\xb1\xba\x00\x00\x00\x00\x00"}},
		"zfs, last label":          {{size&^(256<<10-1) - 128<<10 - size, "\x00\x00\x00\x00\x00\xba\xb1\x0c"}},
		"bcache":                   {{4096 + 24, bcache}},
		"drbd":                     {{size&^4095 - 4096 + 60 - size, "\x83\x74\x02\x6b"}},
		"btrfs over several disks": btrfs,
		"unknown data":             {{1<<20 - 1, "x"}, {-1 << 20, "x"}},
	}
	for _, off := range append([]int64{0}, signature.Bluestore...) {
		cases["ceph bluestore"] = append(cases["ceph bluestore"], put{off, "bluestore block device\n"})
	}
	cases["all of them"] = slices.Concat(slices.Collect(maps.Values(cases))...)
	for name, puts := range cases {
		d := pages{size, map[int64][]byte{}}
		for _, p := range puts {
			if p.off < 0 {
				p.off += size
			}
			if _, err := d.WriteAt([]byte(p.data), p.off); err != nil {
				t.Fatal(err)
			}
		}
		if found, err := signature.Contents(d, size); err != nil || len(found) == 0 {
			t.Errorf("%s: found before are %q, %v", name, found, err)
		}
		task := &task{log: slog.New(slog.DiscardHandler), progress: func(uint64, uint64, string) {}}
		if _, err := eraseDisk(t.Context(), task, agentproto.Disk{Name: "/dev/sda", LogicalBlk: 512}, d, func(int64, int64) {}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := signature.Contents(d, size); err != nil || left == nil || len(left) != 0 {
			t.Errorf("%s: a clean leaves %q, %v", name, left, err)
		}
	}
	// On a disk so small that what is cleared at its ends overlaps.
	for _, size := range []int64{512, 1 << 20, 3<<20 + 512, 5 << 20} {
		d := pages{size, map[int64][]byte{}}
		if _, err := d.WriteAt(bytes.Repeat([]byte{0xff}, int(size)), 0); err != nil {
			t.Fatal(err)
		}
		task := &task{log: slog.New(slog.DiscardHandler), progress: func(uint64, uint64, string) {}}
		if _, err := eraseDisk(t.Context(), task, agentproto.Disk{Name: "/dev/sda", LogicalBlk: 512}, d, func(int64, int64) {}); err != nil || len(d.of) > 0 {
			t.Errorf("%d bytes: %d pages hold something, %v", size, len(d.of), err)
		}
	}
}
