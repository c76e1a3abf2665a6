package redfish

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/stmcginnis/gofish"
	schema "github.com/stmcginnis/gofish/redfish"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
)

// Identify implements drivers.Identifier.
func (*Driver) Identify(ctx context.Context, t drivers.Target) (*api.BmcFacts, error) {
	facts := &api.BmcFacts{}
	err := fish(ctx, t, func(client *gofish.APIClient) error {
		sys, err := system(client)
		if err != nil {
			return err
		}
		facts.SystemUuid = strings.ToLower(clean(sys.UUID))
		facts.Serial = clean(sys.SerialNumber)
		facts.Vendor = clean(sys.Manufacturer)
		facts.Model = clean(sys.Model)
		managers, err := managersOf(client, sys)
		if err != nil {
			return err
		}
		for _, m := range managers {
			if facts.Firmware == "" {
				facts.Firmware = clean(m.FirmwareVersion)
			}
			if err := addresses(m, facts); err != nil {
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

// managersOf are the managers of a system; where the BMC does not link them,
// its only one.
func managersOf(client *gofish.APIClient, sys *schema.ComputerSystem) ([]*schema.Manager, error) {
	managers, err := sys.ManagedBy()
	if err != nil || len(managers) > 0 {
		return managers, err
	}
	managers, err = client.Service.Managers()
	if err != nil || len(managers) != 1 {
		return nil, err
	}
	return managers, nil
}

// addresses adds the manager's own addresses to the facts.
func addresses(m *schema.Manager, facts *api.BmcFacts) error {
	nics, err := m.EthernetInterfaces()
	if err != nil {
		return err
	}
	for _, nic := range nics {
		for _, mac := range []string{nic.MACAddress, nic.PermanentMACAddress} {
			mac = strings.ToLower(strings.ReplaceAll(clean(mac), "-", ":"))
			if mac != "" && mac != "00:00:00:00:00:00" && !slices.Contains(facts.BmcMacs, mac) {
				facts.BmcMacs = append(facts.BmcMacs, mac)
			}
		}
		var texts []string
		for _, a := range nic.IPv4Addresses {
			texts = append(texts, a.Address)
		}
		for _, a := range nic.IPv6Addresses {
			texts = append(texts, a.Address)
		}
		for _, text := range texts {
			ip, err := netip.ParseAddr(text)
			if err != nil || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || slices.Contains(facts.BmcAddresses, ip.String()) {
				continue // link-local addresses name no machine
			}
			facts.BmcAddresses = append(facts.BmcAddresses, ip.String())
		}
	}
	slices.Sort(facts.BmcMacs) // gofish reads collections in any order
	slices.Sort(facts.BmcAddresses)
	return nil
}
