package signature

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
)

func TestContents(t *testing.T) {
	const size = 4 << 20
	for _, c := range []struct {
		name string
		at   map[int64]string
		want []string
	}{
		{"blank", nil, []string{}},
		{"in the middle only", map[int64]string{2 << 20: "data"}, []string{}},
		{"head", map[int64]string{100: "x"}, []string{"unknown data"}},
		{"tail", map[int64]string{size - 1: "x"}, []string{"unknown data"}},
		{"GPT", map[int64]string{512: "EFI PART"}, []string{"GPT"}},
		{"GPT of large sectors", map[int64]string{4096: "EFI PART"}, []string{"GPT"}},
		{"GPT's copy only", map[int64]string{size - 512: "EFI PART"}, []string{"GPT"}},
		{"MBR", map[int64]string{450: "\x83", 510: "\x55\xaa"}, []string{"MBR partition table"}},
		{"boot sector without partitions", map[int64]string{0: "\xeb", 510: "\x55\xaa"}, []string{"unknown data"}},
		{"FAT", map[int64]string{54: "FAT16   ", 450: "\x83", 510: "\x55\xaa"}, []string{"fat"}},
		{"NTFS", map[int64]string{3: "NTFS    ", 450: "\x83", 510: "\x55\xaa"}, []string{"ntfs"}},
		{"LUKS", map[int64]string{0: "LUKS\xba\xbe"}, []string{"LUKS"}},
		{"ext", map[int64]string{0x438: "\x53\xef"}, []string{"ext"}},
		{"xfs", map[int64]string{0: "XFSB"}, []string{"xfs"}},
		{"swap", map[int64]string{4086: "SWAPSPACE2"}, []string{"swap"}},
		{"ISO", map[int64]string{0x8001: "CD001"}, []string{"ISO 9660"}},
		{"LVM", map[int64]string{512: "LABELONE", 536: "LVM2 001"}, []string{"lvm2"}},
	} {
		disk := make([]byte, size)
		for off, text := range c.at {
			copy(disk[off:], text)
		}
		got, err := Contents(bytes.NewReader(disk), size)
		if err != nil || got == nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
	}
	for _, size := range []int64{0, 1, 511, 512, 4096} {
		if got, err := Contents(bytes.NewReader(make([]byte, size)), size); err != nil || len(got) != 0 {
			t.Errorf("%d bytes: %q, %v", size, got, err)
		}
	}
	// Not to be able to look is not blank.
	if got, err := Contents(broken{}, size); err == nil {
		t.Errorf("a disk that cannot be read holds %q", got)
	}
}

// A place that cannot be read makes a disk unknown, wherever it is that
// something is looked for; what is found elsewhere is told all the same.
func TestContentsUnreadable(t *testing.T) {
	const size = 1<<30 + 8<<20
	for name, c := range map[string]struct {
		bad  [2]int64 // cannot be read
		ends int64    // of the disk, which says that it is larger
	}{
		"first sector":      {[2]int64{0, 512}, size},
		"in the first MiB":  {[2]int64{700 << 10, 700<<10 + 512}, size},
		"a label at 1 GiB":  {[2]int64{1 << 30, 1<<30 + 512}, size},
		"last sector":       {[2]int64{size - 512, size}, size},
		"shorter than told": {[2]int64{}, size - 1<<20},
		"nothing there":     {[2]int64{}, 0},
	} {
		d := patchy{bad: c.bad, ends: c.ends}
		if got, err := Contents(d, size); err == nil {
			t.Errorf("%s: the disk is said to hold %q", name, got)
		}
		if d.data = "LABELONE"; c.bad[0] == 0 && c.bad[1] > 0 || c.ends == 0 {
			continue
		}
		if got, err := Contents(d, size); err == nil && len(got) == 0 {
			t.Errorf("%s: a disk with data is blank", name)
		}
	}
	// Nothing looks there.
	if got, err := Contents(patchy{bad: [2]int64{100 << 20, 200 << 20}, ends: size}, size); err != nil || got == nil || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
}

// patchy is a blank disk with a place that cannot be read, and with data in its
// second sector.
type patchy struct {
	bad  [2]int64
	ends int64
	data string
}

func (d patchy) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	switch end := off + int64(len(p)); {
	case off < d.bad[1] && end > d.bad[0]:
		return 0, errors.New("input/output error")
	case end > d.ends:
		return int(max(0, d.ends-off)), io.EOF
	}
	if off <= 512 && off+int64(len(p)) >= 512+int64(len(d.data)) {
		copy(p[512-off:], d.data)
	}
	return len(p), nil
}

type broken struct{}

func (broken) ReadAt([]byte, int64) (int, error) { return 0, errors.New("input/output error") }

var _ io.ReaderAt = broken{}

func FuzzContents(f *testing.F) {
	f.Add([]byte("EFI PART"), int64(512))
	f.Add([]byte("LABELONE"), int64(0))
	f.Fuzz(func(t *testing.T, data []byte, off int64) {
		disk := make([]byte, 128<<10)
		if off >= 0 && off < int64(len(disk)) {
			copy(disk[off:], data)
		}
		got, err := Contents(bytes.NewReader(disk), int64(len(disk)))
		if blank := len(bytes.Trim(disk, "\x00")) == 0; err != nil || blank != (len(got) == 0) {
			t.Errorf("%q, %v of a disk that is blank: %v", got, err, blank)
		}
	})
}
