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
