//go:build linux

package linuxhw

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
)

const mdMagic = 0xa92b4efc

// raidSignature names the RAID that the whole disk is a member of, "" for
// none. In the ramdisk no RAID is assembled, so that holders do not tell.
func (m *Machine) raidSignature(name string, size uint64) string {
	if m.cfg.Root != "" || size == 0 {
		return ""
	}
	f, err := os.Open("/dev/" + name)
	if err != nil {
		return ""
	}
	defer f.Close()
	return raidSignature(f, int64(size))
}

func raidSignature(r io.ReaderAt, size int64) string {
	at := func(off int64, n int) []byte {
		b := make([]byte, n)
		if off < 0 || off+int64(n) > size {
			return b
		}
		if _, err := r.ReadAt(b, off); err != nil {
			return make([]byte, n)
		}
		return b
	}
	// Linux md: 1.1 at the start, 1.2 at 4 KiB, 1.0 and 0.90 near the end.
	for _, off := range []int64{0, 4 << 10, (size/512 - 16) &^ 7 * 512, size&^(64<<10-1) - 64<<10} {
		if binary.LittleEndian.Uint32(at(off, 4)) == mdMagic {
			return "linux md"
		}
	}
	// Intel (IMSM) in the last but one sector, SNIA DDF in the last.
	if bytes.HasPrefix(at(size-1024, 32), []byte("Intel Raid ISM Cfg Sig. ")) {
		return "intel raid"
	}
	if bytes.Equal(at(size-512, 4), []byte{0xde, 0x11, 0xde, 0x11}) {
		return "ddf"
	}
	return ""
}
