package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
)

func newPortCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "port",
		Aliases: []string{"ports"},
		Short:   "Manage the NICs of nodes",
		Long:    "A port is a NIC of a node. Peers answer DHCP requests of known ports only.",
		Example: "  ironring port create n1 52:54:00:12:34:56\n  ironring port list --node n1",
	}
	cmd.AddCommand(newPortCreateCmd(f), newPortListCmd(f), newPortDeleteCmd(f))
	return cmd
}

func newPortCreateCmd(f *Factory) *cobra.Command {
	port := &api.Port{}
	var noPXE bool
	var extra []string
	cmd := &cobra.Command{
		Use:     "create NODE MAC",
		Short:   "Add a NIC to a node",
		Long:    "Add a NIC to a node.\n\n" + valuesHelp,
		Example: "  ironring port create n1 52:54:00:12:34:56 --physical-network provisioning",
		Args:    cobra.ExactArgs(2),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			var err error
			v := &values{f: f}
			if port.Extra, err = v.document("extra", extra); err != nil {
				return err
			}
			port.Address, port.PxeEnabled = args[1], !noPXE
			rep, err := c.CreatePort(ctx, &api.CreatePortRequest{Node: args[0], Port: port})
			if err != nil {
				return err
			}
			return f.print(rep, func() error {
				_, err := fmt.Fprintf(f.Out, "port %s created as %s\n", rep.GetPort().GetAddress(), rep.GetPort().GetId())
				return err
			})
		}),
	}
	cmd.Flags().BoolVar(&noPXE, "no-pxe", false, "the machine does not boot from it")
	cmd.Flags().StringVar(&port.PhysicalNetwork, "physical-network", "", "`NAME` of the network that it is plugged into")
	cmd.Flags().StringArrayVar(&extra, "extra", nil, "`KEY=VALUE` of your own; repeat it")
	return cmd
}

func newPortListCmd(f *Factory) *cobra.Command {
	var ref string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List NICs",
		Example: "  ironring port list --node n1",
		Args:    cobra.NoArgs,
		RunE: f.with(func(ctx context.Context, c *client.Client, _ []string) error {
			rep, err := c.ListPorts(ctx, &api.ListPortsRequest{Node: ref})
			if err != nil {
				return err
			}
			return f.print(rep, func() error {
				names, err := labels(ctx, c, len(rep.GetPorts()) > 0)
				if err != nil {
					return err
				}
				t := newTable("MAC", "NODE", "PXE", "NETWORK", "UUID")
				for _, p := range rep.GetPorts() {
					pxe := "no"
					if p.GetPxeEnabled() {
						pxe = "yes"
					}
					t.add(p.GetAddress(), names(p.GetNodeId()), pxe, p.GetPhysicalNetwork(), p.GetId())
				}
				return f.printTable(t)
			})
		}),
	}
	cmd.Flags().StringVar(&ref, "node", "", "only those of this `NODE`")
	return cmd
}

func newPortDeleteCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:     "delete PORT...",
		Short:   "Remove NICs, given by MAC or UUID",
		Example: "  ironring port delete 52:54:00:12:34:56",
		Args:    cobra.MinimumNArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			for _, ref := range args {
				rep, err := c.DeletePort(ctx, &api.DeletePortRequest{Port: ref})
				if err != nil {
					return err
				}
				if err := f.print(rep, func() error {
					_, err := fmt.Fprintf(f.Out, "port %s deleted\n", ref)
					return err
				}); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}
