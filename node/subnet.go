package node

import (
	"encoding/json"
	"net/netip"
	"net/url"
	"strings"

	"github.com/ironring/ironring/api"
)

// addressKeys are where driver_info names the BMC, as an address, a host and
// port, or a URL.
var addressKeys = []string{"ipmi_address", "redfish_address", "fake_address"}

// BMCSubnet is the subnet that the node's BMC is in: the /24 or /64 of the
// address in driver_info, or, where that is a name, of the first address that
// the BMC gave of itself, as long as it is verified. "" when neither tells.
func BMCSubnet(n *api.Node) string {
	var info map[string]json.RawMessage
	_ = json.Unmarshal(n.GetDriverInfo(), &info) // canonical JSON: checked on entry
	for _, key := range addressKeys {
		var text string
		if json.Unmarshal(info[key], &text) != nil {
			continue
		}
		if a, ok := hostAddress(text); ok {
			return subnetOf(a)
		}
	}
	if BMCChanged(n) {
		return "" // those were another name's, perhaps
	}
	for _, text := range n.GetBmc().GetBmcAddresses() {
		if a, err := netip.ParseAddr(text); err == nil && !a.IsUnspecified() && !a.IsLinkLocalUnicast() {
			return subnetOf(a)
		}
	}
	return ""
}

// hostAddress takes the IP address out of an address, host:port or URL.
func hostAddress(text string) (netip.Addr, bool) {
	if strings.Contains(text, "://") {
		u, err := url.Parse(text)
		if err != nil {
			return netip.Addr{}, false
		}
		text = u.Hostname()
	} else if with, err := netip.ParseAddrPort(text); err == nil {
		return with.Addr(), true
	}
	a, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return a, err == nil
}

func subnetOf(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	bits := 64
	if a.Is4() {
		bits = 24
	}
	return netip.PrefixFrom(a, bits).Masked().String()
}
