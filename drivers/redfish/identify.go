package redfish

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
)

// nic is an EthernetInterface.
type nic struct {
	ID                  string `json:"Id"`
	MACAddress          string
	PermanentMACAddress string
	IPv4Addresses       []struct{ Address string }
	IPv6Addresses       []struct{ Address string }
	Status              status
}

// Identify implements drivers.Identifier.
func (d *Driver) Identify(ctx context.Context, t drivers.Target) (*api.BmcFacts, error) {
	facts := &api.BmcFacts{}
	err := d.readSystem(ctx, t, func(l *link, s *system) error {
		facts.SystemUuid = strings.ToLower(clean(s.UUID))
		facts.Serial = clean(s.SerialNumber)
		facts.Vendor = clean(s.Manufacturer)
		facts.Model = clean(s.Model)
		facts.BmcKey = l.call.set.key(s.path)
		managers, err := l.managers()
		if err != nil {
			return err
		}
		for _, m := range managers {
			if facts.Firmware == "" {
				facts.Firmware = clean(m.FirmwareVersion)
			}
			if err := l.addresses(m, facts); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return facts, nil
}

// key names a system of a BMC, however driver_info spells them.
func (s *settings) key(system string) string {
	host := strings.TrimSuffix(strings.ToLower(s.host), ".")
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	return host + " " + s.port + " " + clean(strings.TrimRight(system, "/"))
}

// addresses adds the manager's own addresses to the facts.
func (l *link) addresses(m *manager, facts *api.BmcFacts) error {
	paths, err := l.list(m.EthernetInterfaces.ID)
	if err != nil {
		return err
	}
	for _, p := range paths[:min(len(paths), maxNICs)] {
		var n nic
		if _, err := l.get(p, &n); err != nil {
			return err
		}
		for _, mac := range []string{n.MACAddress, n.PermanentMACAddress} {
			mac = normalMAC(mac)
			if mac != "" && mac != "00:00:00:00:00:00" && !slices.Contains(facts.BmcMacs, mac) {
				facts.BmcMacs = append(facts.BmcMacs, mac)
			}
		}
		for _, a := range append(n.IPv4Addresses, n.IPv6Addresses...) {
			ip, err := netip.ParseAddr(a.Address)
			if err != nil || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || slices.Contains(facts.BmcAddresses, ip.String()) {
				continue // link-local addresses name no machine
			}
			facts.BmcAddresses = append(facts.BmcAddresses, ip.String())
		}
	}
	return nil
}

func normalMAC(text string) string {
	return strings.ToLower(strings.ReplaceAll(clean(text), "-", ":"))
}
