package signature

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// odd is a size that no format's alignment fits by accident.
const odd = 8<<20 + 512*3

type put struct {
	off  int64
	data string
}

// superblocks are where the formats lie on a disk of odd bytes.
var superblocks = map[string]struct {
	name string
	put  []put
}{
	"md 0.90":            {"linux md", []put{{odd&^(64<<10-1) - 64<<10, "\xfc\x4e\x2b\xa9\x00\x00\x00\x00\x5a"}}},
	"md 0.90 big endian": {"linux md", []put{{odd&^(64<<10-1) - 64<<10, "\xa9\x2b\x4e\xfc"}}},
	"md 1.0":             {"linux md", []put{{(odd/512 - 16) &^ 7 * 512, "\xfc\x4e\x2b\xa9\x01"}}},
	"md 1.1":             {"linux md", []put{{0, "\xfc\x4e\x2b\xa9\x01"}}},
	"md 1.2":             {"linux md", []put{{4096, "\xfc\x4e\x2b\xa9\x01"}}},
	"imsm":               {"intel raid", []put{{odd - 1024, "Intel Raid ISM Cfg Sig. 1.3.00"}}},
	"imsm, 4k":           {"intel raid", []put{{odd - 8192, "Intel Raid ISM Cfg Sig. 1.3.00"}}},
	"ddf":                {"ddf", []put{{odd - 512, "\xde\x11\xde\x11"}}},
	"ddf, further in":    {"ddf", []put{{odd - 257*512, "\xde\x11\xde\x11"}}},
	"lvm2":               {"lvm2", []put{{512, "LABELONE\x01\x00\x00\x00\x00\x00\x00\x00abcd\x20\x00\x00\x00LVM2 001"}}},
	"lvm2, sector 3":     {"lvm2", []put{{1536, "LABELONE\x01\x00\x00\x00\x00\x00\x00\x00abcd\x20\x00\x00\x00LVM2 001"}}},
	"zfs":                {"zfs", []put{{128<<10 + 5<<10, "\x0c\xb1\xba\x00\x00\x00\x00\x00"}}},
	"zfs, last label":    {"zfs", []put{{odd&^(256<<10-1) - 128<<10, "\x00\x00\x00\x00\x00\xba\xb1\x0c"}}},
	"bcache":             {"bcache", []put{{4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"}}},
	"bluestore":          {"ceph bluestore", []put{{0, "bluestore block device\n1b0d2a5e-0000-4000-8000-000000000000\n"}}},
	"drbd":               {"drbd", []put{{odd&^4095 - 4096 + 60, "\x83\x74\x02\x6b"}}},
	"btrfs, two disks":   {"btrfs over several disks", []put{{64<<10 + 64, "_BHRfS_M"}, {64<<10 + 0x88, "\x02"}}},
	"btrfs, one disk":    {"", []put{{64<<10 + 64, "_BHRfS_M"}, {64<<10 + 0x88, "\x01"}}},
	"lvm1":               {"", []put{{0, "HM\x01\x00"}}},
	"nothing":            {"", []put{{100, "nothing"}}},
}

func TestMembers(t *testing.T) {
	for name, c := range superblocks {
		b := make([]byte, odd)
		for _, p := range c.put {
			copy(b[p.off:], p.data)
		}
		var want []string
		if c.name != "" {
			want = []string{c.name}
		}
		if got := Members(bytes.NewReader(b), odd); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	both := make([]byte, odd)
	binary.LittleEndian.PutUint32(both[4096:], mdMagic)
	copy(both[odd-512:], "\xde\x11\xde\x11")
	if got := Members(bytes.NewReader(both), odd); !slices.Equal(got, []string{"linux md", "ddf"}) {
		t.Errorf("%q", got)
	}
}

// Ceph writes its label in several places; the first may have been overwritten.
func TestBluestoreCopies(t *testing.T) {
	for _, off := range Bluestore {
		if got := Members(sparse{off, "bluestore block device\n"}, 2000<<30); !slices.Equal(got, []string{"ceph bluestore"}) {
			t.Errorf("at %d: %q", off, got)
		}
	}
}

// sparse is a disk of zeroes with a text in it.
type sparse struct {
	off  int64
	text string
}

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off == s.off {
		copy(p, s.text)
	}
	return len(p), nil
}

func TestSmallAndUnreadable(t *testing.T) {
	for _, size := range []int64{0, 1, 511, 512, 4096, 1 << 20} {
		if got := Members(bytes.NewReader(make([]byte, size)), size); len(got) > 0 {
			t.Error(size, got)
		}
		if got := Members(bytes.NewReader(nil), size); len(got) > 0 {
			t.Error(size, got)
		}
	}
}
