package node

import (
	"net"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/canon"
)

// MaxPhysicalNetwork is the longest name of a physical network.
const MaxPhysicalNetwork = 64

// NormalizeMAC is a 48-bit MAC address in the form in which records have it:
// lower case with colons. It reads all that net.ParseMAC does. Addresses that no
// NIC can have (all zero, multicast, broadcast) are refused.
func NormalizeMAC(s string) (string, error) {
	hw, err := net.ParseMAC(strings.TrimSpace(s))
	switch {
	case err != nil || len(hw) != 6:
		return "", invalid("address", "%q is not a MAC address", clip(s))
	case hw[0]&1 != 0:
		return "", invalid("address", "%s is a multicast address", hw)
	case hw.String() == "00:00:00:00:00:00":
		return "", invalid("address", "%s is no address of a NIC", hw)
	}
	return hw.String(), nil
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
		return invalid("id", "%q is not a UUID in lower case", clip(p.GetId()))
	}
	if !ValidID(p.GetNodeId()) {
		return invalid("node_id", "%q is not a UUID in lower case", clip(p.GetNodeId()))
	}
	if mac, err := NormalizeMAC(p.GetAddress()); err != nil {
		return err
	} else if mac != p.GetAddress() {
		return invalid("address", "%q is not in lower case with colons", clip(p.GetAddress()))
	}
	if len(p.GetPhysicalNetwork()) > MaxPhysicalNetwork || !only(p.GetPhysicalNetwork(), "-._") {
		return invalid("physical_network", "%q: at most %d letters, digits, '-', '.' and '_'",
			clip(p.GetPhysicalNetwork()), MaxPhysicalNetwork)
	}
	if _, err := canon.Object(p.GetExtra(), MaxDocument); err != nil {
		return fieldError("extra", err)
	}
	return nil
}
