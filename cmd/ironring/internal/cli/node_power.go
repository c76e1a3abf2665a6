package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

var powerActions = map[string]api.PowerAction{
	"on":       api.PowerAction_POWER_ACTION_ON,
	"off":      api.PowerAction_POWER_ACTION_OFF,
	"reboot":   api.PowerAction_POWER_ACTION_REBOOT,
	"soft-off": api.PowerAction_POWER_ACTION_SOFT_OFF,
}

func newNodePowerCmd(f *Factory) *cobra.Command {
	s := &fleet{f: f}
	var wait bool
	cmd := &cobra.Command{
		Use:   "power NODE... on|off|reboot|soft-off",
		Short: "Switch machines on or off",
		Long: `Switch machines on or off through their BMCs. reboot is off, seen off, on, seen
on. soft-off asks the operating system, which may refuse.`,
		Example: "  ironring node power n1 on --wait\n  ironring node power n1 n2 reboot\n  ironring node power off --where 'owner == \"p3\"'",
		Args:    cobra.MinimumNArgs(1),
	}
	cmd.RunE = f.with(func(ctx context.Context, c *client.Client, args []string) error {
		last := len(args) - 1
		action, ok := powerActions[args[last]]
		if !ok {
			return errs.New(errs.Invalid, "power %q: the action comes last, after the nodes, and must be one of %s", args[last], strings.Join(slices.Sorted(maps.Keys(powerActions)), ", "))
		}
		verb := "power " + args[last]
		return s.run(ctx, c, cmd, args[:last], work{
			verb: verb,
			one: func(ctx context.Context, c *client.Client, ref string, rev uint64) error {
				rep, err := c.Power(ctx, &api.PowerRequest{Node: ref, Action: action, Rev: rev})
				if err != nil {
					return err
				}
				if wait {
					return f.wait(ctx, c, ref, verb, until(rep, api.State_STATE_UNSPECIFIED))
				}
				return f.print(rep, func() error {
					_, err := fmt.Fprintf(f.Out, "%s of node %s accepted\n", verb, node.Label(rep.GetNode()))
					return err
				})
			},
			each: func(ctx context.Context, c *client.Client, n *api.Node) (string, error) {
				rep, err := c.Power(ctx, &api.PowerRequest{Node: n.GetId(), Action: action, Rev: n.GetRev()})
				if err != nil || !wait {
					return "accepted", err
				}
				return f.waitEach(ctx, c, n, until(rep, api.State_STATE_UNSPECIFIED))
			},
		})
	})
	cmd.Flags().BoolVar(&wait, "wait", false, waitHelp)
	s.register(cmd)
	return cmd
}
