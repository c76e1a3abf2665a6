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
	var wait bool
	cmd := &cobra.Command{
		Use:   "power NODE on|off|reboot|soft-off",
		Short: "Switch a machine on or off",
		Long: `Switch a machine on or off through its BMC. reboot is off, seen off, on, seen
on. soft-off asks the operating system, which may refuse.`,
		Example: "  ironring node power n1 on --wait\n  ironring node power n1 reboot",
		Args:    cobra.ExactArgs(2),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			action, ok := powerActions[args[1]]
			if !ok {
				return errs.New(errs.Invalid, "power %q: must be one of %s", args[1], strings.Join(slices.Sorted(maps.Keys(powerActions)), ", "))
			}
			rep, err := c.Power(ctx, &api.PowerRequest{Node: args[0], Action: action})
			if err != nil {
				return err
			}
			if wait {
				return f.wait(ctx, c, args[0], "power "+args[1], client.Until{Flow: rep.GetFlow().GetId(), After: rep.GetIndex()})
			}
			return f.print(rep, func() error {
				_, err := fmt.Fprintf(f.Out, "power %s of node %s accepted\n", args[1], node.Label(rep.GetNode()))
				return err
			})
		}),
	}
	cmd.Flags().BoolVar(&wait, "wait", false, waitHelp)
	return cmd
}
