package node

import (
	"encoding/hex"
	"slices"
	"strings"
)

// Firmware of many makers has the same UUID or serial number in each machine
// when nobody filled them in. What two machines may share proves nothing about
// either.

// TellingUUID reports whether a UUID can tell one machine from another.
func TellingUUID(s string) bool {
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(s), "-", ""))
	if err != nil || len(b) != 16 {
		return false
	}
	if !slices.ContainsFunc(b, func(x byte) bool { return x != b[0] }) {
		return false
	}
	swapped := slices.Clone(b)
	for _, field := range [][]byte{swapped[0:4], swapped[4:6], swapped[6:8]} {
		slices.Reverse(field)
	}
	return !sharedUUIDs[hex.EncodeToString(b)] && !sharedUUIDs[hex.EncodeToString(swapped)]
}

// UUIDKey is the same for all orders of bytes that a UUID is told in: as it is
// read aloud, as SMBIOS stores it, as IPMI sends it. It is "" for what is none.
func UUIDKey(s string) string {
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(s), "-", ""))
	if err != nil || len(b) != 16 {
		return ""
	}
	// The least of all that come of turning the whole and turning the first
	// three fields, from either end: so that it does not matter where one begins.
	least := ""
	for way := range 8 {
		c := slices.Clone(b)
		for i, first := range []int{0, 4, 6} {
			last := []int{4, 6, 8}[i]
			if way&1 != 0 {
				slices.Reverse(c[first:last])
			}
			if way&2 != 0 {
				slices.Reverse(c[16-last : 16-first])
			}
		}
		if way&4 != 0 {
			slices.Reverse(c)
		}
		if key := hex.EncodeToString(c); least == "" || key < least {
			least = key
		}
	}
	return least
}

var sharedUUIDs = map[string]bool{
	"03000200040005000006000700080009":      true,
	"1234567812345678" + "90abcddeefaabbcc": true,
	"1234567812341234" + "1234123456789abc": true,
	"11111111222233334444555555555555":      true,
	"00112233445566778899aabbccddeeff":      true,
}

// TellingSerial reports whether a serial number can tell one machine from
// another.
func TellingSerial(s string) bool {
	s = strings.ToLower(strings.TrimSpace(s))
	if len(s) < 2 || strings.Trim(s, s[:1]) == "" || sharedSerials[s] {
		return false
	}
	for _, lead := range []string{"to be filled", "default", "not ", "system serial", "chassis serial", "invalid"} {
		if strings.HasPrefix(s, lead) {
			return false
		}
	}
	return true
}

var sharedSerials = map[string]bool{
	"none": true, "null": true, "n/a": true, "na": true, "unknown": true, "unspecified": true, "empty": true,
	"oem": true, "o.e.m.": true, "serial": true, "serial number": true, "test": true,
	"0123456789": true, "123456789": true, "1234567890": true, "12345678": true, "1234567": true, "123456": true, "12345": true,
}
