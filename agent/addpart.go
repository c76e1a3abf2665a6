package agent

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/ironring/ironring/internal/configdrive"
	"github.com/ironring/ironring/internal/errs"
)

// room is a place for the config drive: a partition that is there, or one that
// add makes.
type room struct {
	number int
	start  int64 // bytes
	size   int64
	exists bool
	add    func() error
}

// partAlign is where new partitions begin, in bytes.
const partAlign = 1 << 20

// findRoom finds a place for n bytes: the partition of that name, or new room
// at the end of the disk. Nothing is written before add is called.
func findRoom(dev BlockDevice, block int, n int64) (r room, err error) {
	// The bytes are whatever is on the disk and the library is not ours.
	defer func() {
		if p := recover(); p != nil {
			r, err = room{}, errs.New(errs.Invalid, "partition table cannot be read: %v", p)
		}
	}()
	block = max(512, block)
	parts, err := readPartitions(dev, block)
	if err != nil {
		return room{}, err
	}
	if len(parts) == 0 || parts[0].format == 0 {
		return room{}, errs.New(errs.Invalid, "the image has no partition table")
	}
	n = (n + partAlign - 1) / partAlign * partAlign
	if parts[0].format == 2 {
		return roomGPT(dev, int64(block), n)
	}
	return roomMBR(dev, parts, int64(block), n)
}

// behind is the last place of n bytes before limit, if it begins behind all
// partitions.
func behind(end, limit, n int64) (int64, error) {
	start := (limit - n) / partAlign * partAlign
	if start < end {
		return 0, errs.New(errs.Invalid, "no room for the config drive at the end of the disk: it needs %d MiB, %d MiB are free behind the last partition", n>>20, max(0, limit-end)>>20)
	}
	return start, nil
}

func roomGPT(dev BlockDevice, block, n int64) (room, error) {
	t, err := gpt.Read(storage{dev, io.NewSectionReader(dev, 0, dev.Size())}, int(block), int(block))
	if err != nil {
		return room{}, errs.New(errs.Invalid, "damaged GPT: %w", err)
	}
	t.Partitions = slices.DeleteFunc(t.Partitions, func(p *gpt.Partition) bool { return p == nil || p.Type == gpt.Unused })
	var end int64
	used := map[int]bool{}
	for _, p := range t.Partitions {
		if p.Start == 0 || p.End < p.Start || p.End >= uint64(dev.Size()/block) {
			return room{}, errs.New(errs.Invalid, "damaged GPT: partition %d lies outside the disk", p.Index)
		}
		used[p.Index] = true
		end = max(end, int64(p.End+1)*block)
		size := int64(p.End-p.Start+1) * block
		if p.Name == configdrive.Label && size >= n {
			return room{number: p.Index, start: int64(p.Start) * block, size: size, exists: true}, nil
		}
	}
	index := 1
	for used[index] {
		index++
	}
	// The image's table ends where the image does.
	t.Resize(uint64(dev.Size()))
	start, err := behind(end, int64(t.LastDataSector()+1)*block, n)
	if err != nil {
		return room{}, err
	}
	return room{number: index, start: start, size: n, add: func() error {
		t.Partitions = append(t.Partitions, &gpt.Partition{
			Index: index, Start: uint64(start / block), End: uint64((start+n)/block) - 1, Type: gpt.LinuxFilesystem, Name: configdrive.Label,
		})
		// The library would drop what else is in the MBR, such as the flag
		// that old firmware boots by.
		t.ProtectiveMBR = false
		if err := t.Write(writable{storage{dev, io.NewSectionReader(dev, 0, dev.Size())}}, dev.Size()); err != nil {
			return fmt.Errorf("write the GPT: %w", err)
		}
		return growGuard(dev, block)
	}}, nil
}

// growGuard makes the protective entry of the MBR as long as the disk, if it
// is the only entry.
func growGuard(dev BlockDevice, block int64) error {
	mbr := make([]byte, 512)
	if _, err := dev.ReadAt(mbr, 0); err != nil {
		return fmt.Errorf("read the first sector: %w", err)
	}
	e := mbr[446:]
	if e[4] != guardMBR || !isZero(e[16:64]) {
		return nil
	}
	binary.LittleEndian.PutUint32(e[12:], uint32(min(dev.Size()/block-1, 0xffffffff)))
	if _, err := dev.WriteAt(mbr, 0); err != nil {
		return fmt.Errorf("write the first sector: %w", err)
	}
	return nil
}

// driveMBR is the kind of entry that a config drive has in an MBR, which knows
// no names: it is known again by what is on it.
const driveMBR = 0x83

func roomMBR(dev BlockDevice, parts []partition, block, n int64) (room, error) {
	var end int64
	free := []int{1, 2, 3, 4}
	for _, p := range parts {
		free = slices.DeleteFunc(free, func(i int) bool { return i == int(p.number) })
		start, size := int64(p.start)*block, int64(p.blocks)*block
		end = max(end, start+size)
		if p.kind == driveMBR && size >= n && size <= n+partAlign && volumeAt(dev, start) == configdrive.Label {
			return room{number: int(p.number), start: start, size: size, exists: true}, nil
		}
	}
	if len(free) == 0 {
		return room{}, errs.New(errs.Unsupported, "the image's MBR has no free entry for the config drive; use an image with a GPT")
	}
	start, err := behind(end, min(dev.Size(), 1<<32*block), n)
	if err != nil {
		return room{}, err
	}
	return room{number: free[0], start: start, size: n, add: func() error {
		mbr := make([]byte, 512)
		if _, err := dev.ReadAt(mbr, 0); err != nil {
			return fmt.Errorf("read the first sector: %w", err)
		}
		e := mbr[446+16*(free[0]-1):][:16]
		// Too far for cylinders and heads.
		copy(e, []byte{0, 0xfe, 0xff, 0xff, driveMBR, 0xfe, 0xff, 0xff})
		binary.LittleEndian.PutUint32(e[8:], uint32(start/block))
		binary.LittleEndian.PutUint32(e[12:], uint32(n/block))
		if _, err := dev.WriteAt(mbr, 0); err != nil {
			return fmt.Errorf("write the first sector: %w", err)
		}
		return nil
	}}, nil
}

// volumeAt is the label of the volume that begins there.
func volumeAt(dev BlockDevice, start int64) string {
	b := make([]byte, isoPVD+2048)
	if start+int64(len(b)) > dev.Size() {
		return ""
	}
	if _, err := dev.ReadAt(b, start); err != nil {
		return ""
	}
	return configdrive.VolumeLabel(b)
}

// writable shows a BlockDevice to go-diskfs, for writing too.
type writable struct{ storage }

var _ backend.WritableFile = writable{}
