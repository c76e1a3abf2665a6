package ipmi

import (
	"encoding/hex"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// parseGUID reads the output of `raw 0x06 0x37` (Get System GUID): 16 bytes in
// hexadecimal. ok is false for what is no identity: all zeros, all ones.
func parseGUID(text string) (raw [16]byte, ok bool, err error) {
	data, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil || len(data) != 16 {
		return raw, false, strange("system GUID", text)
	}
	copy(raw[:], data)
	same := !slices.ContainsFunc(data, func(b byte) bool { return b != data[0] })
	return raw, !(same && (data[0] == 0 || data[0] == 0xff)), nil
}

// readings are the UUIDs that the bytes of a system GUID may stand for, the
// likeliest first. IPMI sends a GUID last byte first; most BMCs hand on the
// bytes of SMBIOS instead, whose first three fields are little-endian; some
// send them as they are read aloud. The bytes do not say which it is, but a
// UUID has a version and a variant, which come out right by chance only.
func readings(raw [16]byte) []string {
	smbios, ipmi := raw, raw
	slices.Reverse(smbios[0:4])
	slices.Reverse(smbios[4:6])
	slices.Reverse(smbios[6:8])
	slices.Reverse(ipmi[:])
	orders := []uuid.UUID{smbios, raw, ipmi}
	slices.SortStableFunc(orders, func(a, b uuid.UUID) int { return rank(a) - rank(b) })
	var out []string
	for _, u := range orders {
		if s := u.String(); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// rank is lower for what looks more like a UUID.
func rank(u uuid.UUID) int {
	switch v := u.Version(); {
	case u.Variant() != uuid.RFC4122 || v < 1 || v > 8:
		return 2
	case v == 1 || v == 4:
		return 0
	}
	return 1
}
