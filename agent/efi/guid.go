package efi

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/ironring/ironring/internal/errs"
)

// ParseGUID reads "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" into the mixed-endian
// form that firmware and GPT store.
func ParseGUID(s string) (g [16]byte, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 16 || len(s) != 36 {
		return g, errs.New(errs.Invalid, "%q is not a GUID", s)
	}
	binary.LittleEndian.PutUint32(g[0:], binary.BigEndian.Uint32(b[0:]))
	binary.LittleEndian.PutUint16(g[4:], binary.BigEndian.Uint16(b[4:]))
	binary.LittleEndian.PutUint16(g[6:], binary.BigEndian.Uint16(b[6:]))
	copy(g[8:], b[8:])
	return g, nil
}

// FormatGUID is the inverse of ParseGUID, in lower case.
func FormatGUID(g [16]byte) string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(g[0:]),
		binary.LittleEndian.Uint16(g[4:]), binary.LittleEndian.Uint16(g[6:]), g[8:10], g[10:])
}
