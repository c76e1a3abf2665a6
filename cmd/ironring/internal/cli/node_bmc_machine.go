package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
)

func newBMCAcceptMachineCmd(f *Factory) *cobra.Command {
	var is string
	var wait bool
	cmd := &cobra.Command{
		Use: "accept-machine NODE", Short: "Take the machine behind the BMC for the node's",
		Long: `Take the machine that is behind the BMC now for the node's, after its main board
or the whole of it was replaced.

Once driver_info has changed, nothing is changed at a BMC that is not that of the
machine which the node was verified with: the address may be another node's. The
error names what was found. --is names it again, so that nothing is accepted that
nobody has looked at. Nothing is changed at the BMC. A node in enroll needs
"node manage" instead.`,
		Example: "  ironring node bmc accept-machine n1 --is 4c4c4544-0035-4d10-8032-b4c04f4a3332 --wait",
		Args:    cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			n, err := c.GetNode(ctx, &api.GetNodeRequest{Node: args[0], Read: &api.ReadOptions{Linearizable: true}})
			if err != nil {
				return err
			}
			rep, err := c.ChangeHardware(ctx, &api.ChangeHardwareRequest{
				Node: n.GetNode().GetId(), Rev: n.GetNode().GetRev(), Change: &api.ChangeHardwareRequest_AcceptMachine{AcceptMachine: is},
			})
			if err != nil {
				return err
			}
			if wait {
				return f.wait(ctx, c, args[0], "accept-machine", until(rep, api.State_STATE_UNSPECIFIED))
			}
			return f.print(rep, func() error { return f.say(fmt.Sprintf("accept-machine of node %s accepted", args[0])) })
		}),
	}
	cmd.Flags().StringVar(&is, "is", "", "UUID or serial `NUMBER` of the machine that is there, as the error has it")
	cmd.Flags().BoolVar(&wait, "wait", false, waitHelp)
	if err := cmd.MarkFlagRequired("is"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}
