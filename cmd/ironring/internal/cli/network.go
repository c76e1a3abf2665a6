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
	cmd := &cobra.Command{
		Use:   "set NAME --cidr CIDR --range FIRST-LAST",
		Short: "Create a network or replace it",
		Long: `Create a network or replace it. Its addresses are given to known ports only,
one to each MAC, the same from every peer.`,
		Example: `  ironring network set provisioning --cidr 10.77.0.0/24 --range 10.77.0.100-10.77.0.200 --gateway 10.77.0.1 --dns 10.77.0.1
  ironring network set rack7 --cidr 10.78.0.0/24 --range 10.78.0.10-10.78.0.99 --relay 192.0.2.7 --rev 3`,
		Args: cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			first, last, ok := strings.Cut(addresses, "-")
			if !ok && addresses != "" {
				return errs.About(errs.Invalid, "range", "--range %q: must be FIRST-LAST", addresses)
			}
			if lease < 0 || lease.Seconds() > math.MaxUint32 {
				return errs.About(errs.Invalid, "lease", "--lease %s: out of range", lease)
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
	fl.DurationVar(&lease, "lease", 0, "lease time (10 minutes when not given)")
	fl.Uint64Var(&net.Rev, "rev", 0, "`REVISION` to replace; not needed for a new network")
	return cmd
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
					for _, a := range rep.GetAddresses() {
						t.add(a.GetNetwork(), a.GetIp(), a.GetMac(), a.GetNodeId())
					}
					return f.printTable(t)
				}
				t := newTable("NAME", "CIDR", "RANGE", "GATEWAY", "DNS", "RELAYS", "GIVEN OUT", "REVISION")
				given := map[string]int{}
				for _, a := range rep.GetAddresses() {
					given[a.GetNetwork()]++
				}
				for _, n := range rep.GetNetworks() {
					t.add(n.GetName(), n.GetCidr(), n.GetRangeStart()+"-"+n.GetRangeEnd(), n.GetGateway(),
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
