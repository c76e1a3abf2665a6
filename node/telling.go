package node

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
)

// Firmware of many makers has the same UUID, serial number or MAC address in each
// machine when nobody filled them in. What two machines may share proves nothing about
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
	var least, turned [16]byte
	for way := range 8 {
		copy(turned[:], b)
		for i, first := range []int{0, 4, 6} {
			last := []int{4, 6, 8}[i]
			if way&1 != 0 {
				slices.Reverse(turned[first:last])
			}
			if way&2 != 0 {
				slices.Reverse(turned[16-last : 16-first])
			}
		}
		if way&4 != 0 {
			slices.Reverse(turned[:])
		}
		if way == 0 || bytes.Compare(turned[:], least[:]) < 0 {
			least = turned
		}
	}
	return hex.EncodeToString(least[:])
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
	for _, lead := range []string{"to be filled", "default", "not ", "none ", "no ", "system serial", "chassis serial", "board serial", "invalid", "undefined"} {
		if strings.HasPrefix(s, lead) {
			return false
		}
	}
	return true
}

var sharedSerials = map[string]bool{
	"none": true, "null": true, "n/a": true, "na": true, "unknown": true, "unspecified": true, "empty": true,
	"n.a.": true, "unset": true, "tbd": true, "s/n": true, "sn": true,
	"oem": true, "o.e.m.": true, "serial": true, "serial number": true, "test": true,
	"0123456789abcdef": true, "123456789abc": true, "123456789012": true,
	"0123456789": true, "123456789": true, "1234567890": true, "12345678": true, "1234567": true, "123456": true, "12345": true,
}

// tellingMAC reports whether a MAC address, in normal form, can tell one BMC
// from another: not what a maker's NICs have that nobody gave a number, nor the
// examples of data sheets, nor the fixed one of AMI's USB NIC.
func tellingMAC(m string) bool {
	return !strings.HasSuffix(m, ":00:00:00") && strings.Trim(m, m[:1]+":") != "" && !sharedMACs[m]
}

var sharedMACs = map[string]bool{
	"00:11:22:33:44:55": true, "00:01:02:03:04:05": true, "02:01:02:03:04:05": true,
	"12:34:56:78:9a:bc": true, "be:3a:f2:b6:05:9f": true,
}
