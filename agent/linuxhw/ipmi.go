//go:build linux

package linuxhw

import (
	"context"
	"encoding/hex"
	"os"
	"slices"
	"time"

	"github.com/bougou/go-ipmi/pkg/client"
	"github.com/bougou/go-ipmi/pkg/types"

	"github.com/ironring/ironring/internal/agentproto"
)

// lanChannels are asked for their addresses: makers put the BMC's port on
// different ones, and there are not more.
const lanChannels = 8

// bmc asks the BMC through the kernel's driver. It only reads.
func (m *Machine) bmc(ctx context.Context) agentproto.BMC {
	if m.cfg.Root != "" {
		return bmcError("no in-band interface to a BMC")
	}
	if _, err := os.Stat("/dev/ipmi0"); err != nil {
		return bmcError("no in-band interface to a BMC: /dev/ipmi0 is not there")
	}
	c, err := client.NewOpenClient()
	if err != nil {
		return bmcError("in-band interface to the BMC: %w", err)
	}
	c.WithTimeout(3 * time.Second)
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := c.Connect(ctx); err != nil {
		return bmcError("in-band interface to the BMC: %w", err)
	}
	defer c.Close(ctx)
	if _, err := c.GetDeviceID(ctx); err != nil {
		return bmcError("the BMC does not answer in-band: %w", err)
	}
	var out agentproto.BMC
	if g, err := c.GetDeviceGUID(ctx); err == nil && g.GUID != [16]byte{} {
		out.GUID = hex.EncodeToString(g.GUID[:])
	}
	for ch := uint8(1); ch <= lanChannels && ctx.Err() == nil; ch++ {
		var ip types.LanConfigParam_IP
		if c.GetLanConfigParamFor(ctx, ch, &ip) != nil {
			continue // not a LAN channel
		}
		// Link-local addresses are the BMC's network over USB: every machine
		// has the same.
		if a := ip.IP; len(a) > 0 && !a.IsUnspecified() && !a.IsLinkLocalUnicast() {
			out.Addresses = append(out.Addresses, a.String())
		}
		var mac types.LanConfigParam_MAC
		if c.GetLanConfigParamFor(ctx, ch, &mac) == nil && len(mac.MAC) == 6 && mac.MAC.String() != "00:00:00:00:00:00" {
			out.MACs = append(out.MACs, mac.MAC.String())
		}
	}
	slices.Sort(out.Addresses)
	slices.Sort(out.MACs)
	out.Addresses, out.MACs = slices.Compact(out.Addresses), slices.Compact(out.MACs)
	if len(out.Addresses) == 0 && len(out.MACs) == 0 {
		out.Error = "the BMC answers in-band, but has no LAN channel with an address"
	}
	return out
}
