package node

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/canon"
	"github.com/ironring/ironring/internal/errs"
)

// MaxPhysicalNetwork is the longest name of a physical network.
const MaxPhysicalNetwork = 64

// NormalizeMAC is a 48-bit MAC address in the form in which records have it:
// lower case with colons. It reads aa:bb:cc:dd:ee:ff, aa-bb-cc-dd-ee-ff,
// aabb.ccdd.eeff and aabbccddeeff. Addresses that no NIC can have (all zero, multicast,
// broadcast) are refused.
func NormalizeMAC(s string) (string, error) {
	hw, ok := parseMAC(strings.TrimSpace(s))
	if !ok {
		return "", invalid("address", "%q is not a MAC address", errs.Clip(s))
	}
	text := fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", hw[0], hw[1], hw[2], hw[3], hw[4], hw[5])
	switch {
	case hw[0]&1 != 0:
		return "", invalid("address", "%s is a multicast address", text)
	case hw == [6]byte{}:
		return "", invalid("address", "%s is no address of a NIC", text)
	}
	return text, nil
}

// parseMAC reads the digits of a MAC address. Package net has it too, but this
// package must not know the network.
func parseMAC(s string) (hw [6]byte, ok bool) {
	digits := s
	switch {
	case len(s) == 14 && s[4] == '.' && s[9] == '.':
		digits = s[:4] + s[5:9] + s[10:]
	case len(s) == 17 && (s[2] == ':' || s[2] == '-'):
		parts := strings.Split(s, s[2:3])
		if len(parts) != 6 || slices.ContainsFunc(parts, func(p string) bool { return len(p) != 2 }) {
			return hw, false
		}
		digits = strings.Join(parts, "")
	}
	if len(digits) != 12 {
		return hw, false
	}
	n, err := hex.Decode(hw[:], []byte(digits))
	return hw, err == nil && n == len(hw)
}

// ValidMAC reports whether s is a MAC address in the form of records.
func ValidMAC(s string) bool {
	norm, err := NormalizeMAC(s)
	return err == nil && norm == s
}

// NormalizePort brings a port into the form in which it is stored.
func NormalizePort(p *api.Port) error {
	mac, err := NormalizeMAC(p.GetAddress())
	if err != nil {
		return err
	}
	extra, err := canon.Object(p.GetExtra(), MaxDocument)
	if err != nil {
		return fieldError("extra", err)
	}
	p.Address, p.Extra = mac, extra
	return nil
}

// CheckPort holds the rules for a port's record.
func CheckPort(p *api.Port) error {
	if !ValidID(p.GetId()) {
		return invalid("id", "%q is not a UUID in lower case", errs.Clip(p.GetId()))
	}
	if !ValidID(p.GetNodeId()) {
		return invalid("node_id", "%q is not a UUID in lower case", errs.Clip(p.GetNodeId()))
	}
	if mac, err := NormalizeMAC(p.GetAddress()); err != nil {
		return err
	} else if mac != p.GetAddress() {
		return invalid("address", "%q is not in lower case with colons", errs.Clip(p.GetAddress()))
	}
	if len(p.GetPhysicalNetwork()) > MaxPhysicalNetwork || !only(p.GetPhysicalNetwork(), "-._") {
		return invalid("physical_network", "%q: at most %d letters, digits, '-', '.' and '_'",
			errs.Clip(p.GetPhysicalNetwork()), MaxPhysicalNetwork)
	}
	if _, err := canon.Object(p.GetExtra(), MaxDocument); err != nil {
		return fieldError("extra", err)
	}
	return nil
}
