package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/ironring/ironring/agent/efi"
	"github.com/ironring/ironring/agent/qcow2"
	"github.com/ironring/ironring/internal/errs"
)

// memDisk is a disk in memory.
type memDisk []byte

func (m memDisk) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}

func (m memDisk) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > int64(len(m)) {
		return 0, io.ErrShortWrite
	}
	return copy(m[off:], p), nil
}
func (m memDisk) Close() error            { return nil }
func (m memDisk) Size() int64             { return int64(len(m)) }
func (m memDisk) Sync() error             { return nil }
func (m memDisk) DropCaches() error       { return nil }
func (m memDisk) RereadPartitions() error { return nil }

func mbrDisk(kind byte) memDisk {
	d := make(memDisk, 1<<20)
	d[510], d[511] = 0x55, 0xaa
	copy(d[440:], []byte{1, 2, 3, 4})
	d[446+4] = kind
	binary.LittleEndian.PutUint32(d[446+8:], 63)
	binary.LittleEndian.PutUint32(d[446+12:], 100)
	return d
}

func TestReadMBR(t *testing.T) {
	p, err := readPartitions(mbrDisk(espMBR), 512)
	if err != nil || len(p) != 1 || !p[0].isESP || p[0].start != 63 || p[0].blocks != 100 || p[0].sigType != efi.SignatureMBR || p[0].signature[3] != 4 {
		t.Errorf("%+v %v", p, err)
	}
	if p, err := readPartitions(make(memDisk, 1<<20), 512); err != nil || len(p) != 0 {
		t.Errorf("empty disk: %+v %v", p, err)
	}
	// A protective MBR without a GPT is a damaged one, not an empty disk.
	if p, err := readPartitions(mbrDisk(guardMBR), 512); !errors.Is(err, errs.Invalid) {
		t.Errorf("%+v %v", p, err)
	}
	huge := mbrDisk(guardMBR)
	copy(huge[512:], "EFI PART")
	binary.LittleEndian.PutUint32(huge[512+80:], 0xffffffff)
	binary.LittleEndian.PutUint32(huge[512+84:], 128)
	if _, err := readPartitions(huge, 512); !errors.Is(err, errs.Invalid) {
		t.Error(err)
	}
}

func TestEraseSpansStayInside(t *testing.T) {
	for _, size := range []int64{512, 1 << 20, 5 << 20, 70 << 20, 300 << 30} {
		for _, s := range eraseSpans(size, []partition{{start: 1, blocks: 1 << 60, format: 2}, {start: 1 << 62, blocks: 5, format: 2}, {start: 2, blocks: 1, format: 1}}, 512) {
			if s.off < 0 || s.n <= 0 || s.off+s.n > size {
				t.Errorf("size %d: %+v", size, s)
			}
		}
	}
}

func TestCheckChains(t *testing.T) {
	fat32 := func(next ...uint32) []byte {
		var b []byte
		for _, n := range next {
			b = binary.LittleEndian.AppendUint32(b, n)
		}
		return b
	}
	const end = 0x0fffffff
	for name, c := range map[string]struct {
		table []byte
		bits  int
		ok    bool
	}{
		"chains":       {fat32(0x0ffffff8, end, 3, 4, end, 0, 2), 32, true},
		"to itself":    {fat32(0x0ffffff8, end, 2), 32, false},
		"circle":       {fat32(0x0ffffff8, end, 3, 4, 2), 32, false},
		"into circle":  {fat32(0x0ffffff8, end, 3, 4, 3), 32, false},
		"free":         {make([]byte, 64), 32, true},
		"16 circle":    {[]byte{0xf8, 0xff, 0xff, 0xff, 3, 0, 2, 0}, 16, false},
		"16 chain":     {[]byte{0xf8, 0xff, 0xff, 0xff, 3, 0, 0xff, 0xff}, 16, true},
		"12 circle":    {[]byte{0xf8, 0xff, 0xff, 0x03, 0x20, 0x00}, 12, false}, // 2 -> 3 -> 2
		"12 chain":     {[]byte{0xf8, 0xff, 0xff, 0x03, 0xf0, 0xff}, 12, true},
		"beyond table": {fat32(0x0ffffff8, end, 500), 32, true},
		"empty":        {nil, 32, true},
	} {
		if err := checkChains(c.table, c.bits); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// gptHead is the head of a disk with a GPT that ends before the disk does.
func gptHead(tb testing.TB) []byte {
	tb.Helper()
	d := make(memDisk, 3<<20)
	t := &gpt.Table{LogicalSectorSize: 512, PhysicalSectorSize: 512, ProtectiveMBR: true, Partitions: []*gpt.Partition{
		{Index: 1, Start: 100, End: 200, Type: gpt.LinuxFilesystem, Name: "root"},
	}}
	if err := t.Write(writable{storage{d, io.NewSectionReader(d, 0, d.Size())}}, 1<<20); err != nil {
		tb.Fatal(err)
	}
	return d[:34*512]
}

// Clusters come from a file that may be an enemy's.
func FuzzUnpack(f *testing.F) {
	f.Add([]byte{0x63, 0, 0}, false)
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 0}, true)
	f.Fuzz(func(t *testing.T, b []byte, isZstd bool) {
		u := &unpacker{out: make([]byte, 4096)}
		if isZstd {
			u.kind = qcow2.Zstd
		}
		defer u.close()
		for range 2 { // what went wrong before must not matter
			if p, err := u.cluster(b); err == nil && len(p) != 4096 {
				t.Fatal(len(p))
			}
		}
	})
}

// What is on a disk is not ours: nothing of it may stop the agent.
func FuzzDisk(f *testing.F) {
	boot := make([]byte, 8<<10)
	boot[510], boot[511] = 0x55, 0xaa
	binary.LittleEndian.PutUint16(boot[11:], 512) // bytes in a sector
	boot[13], boot[16] = 1, 2                     // sectors in a cluster, tables
	binary.LittleEndian.PutUint16(boot[14:], 2)   // first table's sector
	binary.LittleEndian.PutUint32(boot[36:], 2)   // sectors of a table
	binary.LittleEndian.PutUint32(boot[44:], 2)   // root directory
	boot[48], boot[50] = 1, 6
	copy(boot[82:], "FAT32   ")
	copy(boot[512:], "RRaA")
	copy(boot[512+484:], "rrAa")
	boot[512+510], boot[512+511] = 0x55, 0xaa
	for _, off := range []int{1024, 2048} {
		for c := range uint32(3) {
			binary.LittleEndian.PutUint32(boot[off+4*int(c):], 0x0fffffff)
		}
	}
	f.Add([]byte(mbrDisk(espMBR)[:512]), boot)
	f.Add(gptHead(f), boot)
	f.Fuzz(func(t *testing.T, head, part []byte) {
		d := make(memDisk, 3<<20)
		copy(d, head[:min(len(head), 64<<10)])
		copy(d[64<<10:], part[:min(len(part), 64<<10)])
		parts, err := readPartitions(d, 512)
		if err == nil {
			parts = append(parts, logicalPartitions(d, parts, 512)...)
			for _, s := range eraseSpans(d.Size(), parts, 512) {
				if s.off < 0 || s.n <= 0 || s.off+s.n > d.Size() {
					t.Fatalf("%+v is outside the disk", s)
				}
			}
		}
		if r, err := findRoom(d, 512, 4096); err == nil {
			if r.start < 0 || r.size < 4096 || r.start+r.size > d.Size() {
				t.Fatalf("%+v is outside the disk", r)
			}
			for _, p := range parts {
				if !r.exists && p.format != 0 && int64(p.start)*512 < r.start+r.size && r.start < int64(p.start+p.blocks)*512 {
					t.Fatalf("%+v is inside %+v", r, p)
				}
			}
		}
		_, _ = findESP(d, 512)
		_, _ = hasLoader(d, partition{start: 128, blocks: 128}, 512)
	})
}
