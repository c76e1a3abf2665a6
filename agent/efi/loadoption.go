package efi

import (
	"encoding/binary"
	"fmt"

	"github.com/ironring/ironring/internal/errs"
)

// LoadActive in LoadOption.Attributes lets the firmware boot the entry.
const LoadActive = 1

// LoadOption is the content of a Boot#### variable.
type LoadOption struct {
	Attributes  uint32
	Description string
	Path        DevicePath
	More        []byte // further device paths of the list, as they stood
	Data        []byte // optional data for the loader
}

// Encode gives the variable's bytes.
func (o LoadOption) Encode() []byte {
	path := append(o.Path.Encode(), o.More...)
	b := binary.LittleEndian.AppendUint32(nil, o.Attributes)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(path)))
	b = append(b, encodeString(o.Description)...)
	b = append(b, path...)
	return append(b, o.Data...)
}

// ParseLoadOption reads a Boot#### variable.
func ParseLoadOption(b []byte) (LoadOption, error) {
	if len(b) < 6 {
		return LoadOption{}, errs.New(errs.Invalid, "load option of %d bytes", len(b))
	}
	o := LoadOption{Attributes: binary.LittleEndian.Uint32(b)}
	n := int(binary.LittleEndian.Uint16(b[4:]))
	desc, rest, ok := decodeString(b[6:])
	if !ok {
		return LoadOption{}, errs.New(errs.Invalid, "load option with a description that does not end")
	}
	if n > len(rest) {
		return LoadOption{}, errs.New(errs.Invalid, "load option %q: path of %d bytes where %d are left", desc, n, len(rest))
	}
	path, more, err := ParseDevicePath(rest[:n])
	if err != nil {
		return LoadOption{}, fmt.Errorf("load option %q: %w", desc, err)
	}
	o.Description, o.Path = desc, path
	o.More = append([]byte(nil), more...)
	o.Data = append([]byte(nil), rest[n:]...)
	return o, nil
}

// ParseOrder reads BootOrder (or BootCurrent, BootNext: one number).
func ParseOrder(b []byte) ([]uint16, error) {
	if len(b)%2 != 0 {
		return nil, errs.New(errs.Invalid, "boot order of %d bytes", len(b))
	}
	out := make([]uint16, 0, len(b)/2)
	for ; len(b) > 0; b = b[2:] {
		out = append(out, binary.LittleEndian.Uint16(b))
	}
	return out, nil
}

// EncodeOrder is the inverse of ParseOrder.
func EncodeOrder(order []uint16) []byte {
	var b []byte
	for _, n := range order {
		b = binary.LittleEndian.AppendUint16(b, n)
	}
	return b
}

// BootName is the variable's name of entry n.
func BootName(n uint16) string { return fmt.Sprintf("Boot%04X", n) }

// ParseBootName reads "Boot001F"; false for any other name.
func ParseBootName(s string) (uint16, bool) {
	if len(s) != 8 || s[:4] != "Boot" {
		return 0, false
	}
	var n uint16
	for _, c := range []byte(s[4:]) {
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | uint16(c-'0')
		case c >= 'A' && c <= 'F':
			n = n<<4 | uint16(c-'A'+10)
		default:
			return 0, false // the specification wants upper case
		}
	}
	return n, true
}
