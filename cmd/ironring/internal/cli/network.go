package cli

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
)

func newNetworkCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "network",
		Aliases: []string{"networks"},
		Short:   "Manage the networks that peers serve DHCP on",
		Example: "  ironring network set provisioning --cidr 10.77.0.0/24 --range 10.77.0.100-10.77.0.200 --gateway 10.77.0.1",
	}
	cmd.AddCommand(newNetworkSetCmd(f), newNetworkListCmd(f), newNetworkDeleteCmd(f))
	return cmd
}

func newNetworkSetCmd(f *Factory) *cobra.Command {
	net := &api.Network{}
	var addresses string
	var lease time.Duration
	var mode string
	var peers []string
	cmd := &cobra.Command{
		Use:   "set NAME --cidr CIDR --range FIRST-LAST",
		Short: "Create a network or replace it",
		Long: `Create a network or replace it. Its addresses are given to known ports only,
one to each MAC, the same from every peer.

With --dhcp proxy another DHCP server gives the addresses and the peers only say
what to boot; with --dhcp off they say nothing. Both need no --range.

Machines reach a peer at its address inside the network. Where it has none, as
behind a relay, they are told the address that the relay sends to, or the one
given with --peer-address.`,
		Example: `  ironring network set provisioning --cidr 10.77.0.0/24 --range 10.77.0.100-10.77.0.200 --gateway 10.77.0.1 --dns 10.77.0.1
  ironring network set rack7 --cidr 10.78.0.0/24 --range 10.78.0.10-10.78.0.99 --relay 192.0.2.7 --rev 3
  ironring network set office --cidr 10.79.0.0/24 --dhcp proxy
  ironring network set far --cidr 10.80.0.0/24 --range 10.80.0.10-10.80.0.99 --peer-address p1=172.16.0.1 --peer-address p2=172.16.0.2`,
		Args: cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			first, last, ok := strings.Cut(addresses, "-")
			if !ok && addresses != "" {
				return errs.About(errs.Invalid, "range", "--range %q: must be FIRST-LAST", addresses)
			}
			if lease < 0 || lease.Seconds() > math.MaxUint32 {
				return errs.About(errs.Invalid, "lease", "--lease %s: out of range", lease)
			}
			var err error
			if net.Mode, err = dhcpMode(mode); err != nil {
				return err
			}
			net.Peers = nil
			for _, p := range peers {
				id, address, ok := strings.Cut(p, "=")
				if !ok {
					return errs.About(errs.Invalid, "peer-address", "--peer-address %q: must be PEER=ADDRESS", p)
				}
				net.Peers = append(net.Peers, &api.PeerAddress{Peer: id, Address: address})
			}
			net.Name, net.RangeStart, net.RangeEnd = args[0], strings.TrimSpace(first), strings.TrimSpace(last)
			net.LeaseSeconds = uint32(lease.Seconds())
			rep, err := c.SetNetwork(ctx, &api.SetNetworkRequest{Network: net})
			if err != nil {
				return err
			}
			return f.print(rep, func() error {
				_, err := fmt.Fprintf(f.Out, "network %s set\n", args[0])
				return err
			})
		}),
	}
	fl := cmd.Flags()
	fl.StringVar(&net.Cidr, "cidr", "", "addresses of the network, as `CIDR`")
	fl.StringVar(&addresses, "range", "", "addresses to give out, as `FIRST-LAST`")
	fl.StringVar(&net.Gateway, "gateway", "", "`ADDRESS` of the router")
	fl.StringArrayVar(&net.Dns, "dns", nil, "`ADDRESS` of a DNS server; repeat it")
	fl.StringArrayVar(&net.Relays, "relay", nil, "`ADDRESS` of a DHCP relay outside of the CIDR; repeat it")
	fl.StringVar(&mode, "dhcp", "full", "`MODE` of DHCP: full, proxy or off")
	fl.StringArrayVar(&peers, "peer-address", nil, "how machines of this network reach a peer, as `PEER=ADDRESS`; repeat it")
	fl.DurationVar(&lease, "lease", 0, "lease time (10 minutes when not given)")
	fl.Uint64Var(&net.Rev, "rev", 0, "`REVISION` to replace; not needed for a new network")
	return cmd
}

var dhcpModes = map[string]api.DHCPMode{"full": api.DHCPMode_DHCP_FULL, "proxy": api.DHCPMode_DHCP_PROXY, "off": api.DHCPMode_DHCP_OFF}

func dhcpMode(s string) (api.DHCPMode, error) {
	m, ok := dhcpModes[s]
	if !ok {
		return 0, errs.About(errs.Invalid, "dhcp", "--dhcp %q: must be full, proxy or off", s)
	}
	return m, nil
}

func dhcpModeText(m api.DHCPMode) string {
	for text, mode := range dhcpModes {
		if mode == m {
			return text
		}
	}
	return m.String()
}

func newNetworkListCmd(f *Factory) *cobra.Command {
	var addresses bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List networks",
		Example: "  ironring network list --addresses",
		Args:    cobra.NoArgs,
		RunE: f.with(func(ctx context.Context, c *client.Client, _ []string) error {
			rep, err := c.ListNetworks(ctx, &api.ListNetworksRequest{})
			if err != nil {
				return err
			}
			return f.print(rep, func() error {
				if addresses {
					t := newTable("NETWORK", "ADDRESS", "MAC", "NODE")
					names, err := labels(ctx, c, len(rep.GetAddresses()) > 0)
					if err != nil {
						return err
					}
					for _, a := range rep.GetAddresses() {
						t.add(a.GetNetwork(), a.GetIp(), a.GetMac(), names(a.GetNodeId()))
					}
					return f.printTable(t)
				}
				t := newTable("NAME", "CIDR", "DHCP", "RANGE", "GATEWAY", "DNS", "RELAYS", "GIVEN OUT", "REVISION")
				given := map[string]int{}
				for _, a := range rep.GetAddresses() {
					given[a.GetNetwork()]++
				}
				for _, n := range rep.GetNetworks() {
					t.add(n.GetName(), n.GetCidr(), dhcpModeText(n.GetMode()), strings.Trim(n.GetRangeStart()+"-"+n.GetRangeEnd(), "-"), n.GetGateway(),
						strings.Join(n.GetDns(), " "), strings.Join(n.GetRelays(), " "), given[n.GetName()], n.GetRev())
				}
				return f.printTable(t)
			})
		}),
	}
	cmd.Flags().BoolVar(&addresses, "addresses", false, "the addresses given out instead")
	return cmd
}

func newNetworkDeleteCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:     "delete NAME",
		Short:   "Remove a network",
		Example: "  ironring network delete provisioning",
		Args:    cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			rep, err := c.DeleteNetwork(ctx, &api.DeleteNetworkRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return f.print(rep, func() error {
				_, err := fmt.Fprintf(f.Out, "network %s deleted\n", args[0])
				return err
			})
		}),
	}
}
