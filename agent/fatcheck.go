package agent

import (
	"encoding/binary"
	"fmt"

	"github.com/ironring/ironring/internal/errs"
)

// maxFAT is more than the allocation table of any EFI system partition.
const maxFAT = 64 << 20

// checkFAT refuses a FAT file system that the library would not survive: it
// believes the table's length, and follows chains of clusters without end. It
// returns which kind it is: 12, 16 or 32. boot is the first sector at start.
func checkFAT(dev BlockDevice, boot []byte, start, size int64) (bits int, err error) {
	sectors := int64(binary.LittleEndian.Uint16(boot[22:]))
	switch {
	case string(boot[82:87]) == "FAT32":
		bits, sectors = 32, int64(binary.LittleEndian.Uint32(boot[36:]))
	case string(boot[54:59]) == "FAT16":
		bits = 16
	case string(boot[54:59]) == "FAT12":
		bits = 12
	default:
		return 0, errs.New(errs.Invalid, "it holds no FAT file system")
	}
	sector := int64(binary.LittleEndian.Uint16(boot[11:]))
	first, length := int64(binary.LittleEndian.Uint16(boot[14:]))*sector, sectors*sector
	if length > maxFAT || first+length > size {
		return 0, errs.New(errs.Invalid, "damaged FAT: a table of %d bytes at %d in a partition of %d", length, first, size)
	}
	table := make([]byte, length)
	if _, err := dev.ReadAt(table, start+first); err != nil {
		return 0, fmt.Errorf("read its table: %w", err)
	}
	return bits, checkChains(table, bits)
}

// checkChains refuses chains of clusters that end in a circle.
func checkChains(table []byte, bits int) error {
	n := len(table) * 8 / bits
	next := func(c int) int {
		switch bits {
		case 32:
			return int(binary.LittleEndian.Uint32(table[4*c:]) & 0x0fffffff)
		case 16:
			return int(binary.LittleEndian.Uint16(table[2*c:]))
		}
		i := c * 3 / 2
		if i+1 >= len(table) {
			return 0
		}
		v := int(binary.LittleEndian.Uint16(table[i:]))
		if c%2 == 1 {
			return v >> 4
		}
		return v & 0xfff
	}
	// A cluster is new, on the way that is being followed, or known to end.
	const onWay, ends = 1, 2
	state := make([]byte, n)
	for from := range n {
		c := from
		for c < n && state[c] == 0 {
			state[c] = onWay
			c = next(c)
		}
		if c < n && state[c] == onWay && !(c < 2) {
			return errs.New(errs.Invalid, "damaged FAT: the chain of cluster %d is a circle", c)
		}
		for c = from; c < n && state[c] == onWay; c = next(c) {
			state[c] = ends
		}
	}
	return nil
}
