package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
)

func newNodeBMCCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bmc",
		Short: "Ask the BMC of a machine, and change what it keeps",
		Long: `What the management controller of a machine knows and keeps, beside its power.

Only the peer that looks after the node asks its BMC, whichever peer you talk to.
Changes are work like any other: they are announced, made once, and proven by
reading; --wait waits for the end.`,
		Example: "  ironring node bmc sensors n1\n  ironring node bmc indicator n1 on --wait\n  ironring node bmc media insert n1 http://images/rescue.iso",
	}
	cmd.AddCommand(
		newBMCSensorsCmd(f), newBMCEventsCmd(f), newBMCItemsCmd(f), newBMCClearEventsCmd(f), newBMCIndicatorCmd(f), newBMCNMICmd(f),
		newBMCBootDeviceCmd(f), newBMCBootModeCmd(f), newBMCSecureBootCmd(f), newBMCMediaCmd(f), newBMCAcceptCmd(f), newBMCAcceptMachineCmd(f),
	)
	return cmd
}

// hardware has a BMC asked and prints what it said.
func (f *Factory) hardware(ctx context.Context, c *client.Client, ref string, show func(*api.GetHardwareReply) error, parts ...api.HardwarePart) error {
	ctx, cancel := f.waitContext(ctx) // else as long as the BMC takes
	defer cancel()
	rep, err := c.GetHardware(ctx, &api.GetHardwareRequest{Node: ref, Parts: parts})
	if err != nil {
		return err
	}
	if w := rep.GetWarning(); w != "" {
		fmt.Fprintln(f.Err, "warning: "+oneLine(w))
	}
	return f.print(rep, func() error { return show(rep) })
}

// newBMCReadCmd is a command that only reads one part.
func newBMCReadCmd(f *Factory, name, short, long, example string, part api.HardwarePart, show func(*api.GetHardwareReply) error) *cobra.Command {
	return &cobra.Command{
		Use: name + " NODE", Short: short, Long: long, Example: example, Args: cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			return f.hardware(ctx, c, args[0], show, part)
		}),
	}
}

// bmcChange is a command that changes something at the BMCs of one or several
// nodes.
type bmcChange struct {
	f     *Factory
	fleet *fleet
	wait  bool
}

func (b *bmcChange) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&b.wait, "wait", false, waitHelp)
	b.fleet.register(cmd)
}

// run asks for the change; req makes the request without its node.
func (b *bmcChange) run(ctx context.Context, c *client.Client, cmd *cobra.Command, refs []string, verb, loses string, req func() *api.ChangeHardwareRequest) error {
	ask := func(ctx context.Context, ref string, rev uint64) (*api.FlowReply, error) {
		r := req()
		r.Node, r.Rev = ref, rev
		return c.ChangeHardware(ctx, r)
	}
	return b.fleet.run(ctx, c, cmd, refs, work{
		verb: verb, loses: loses,
		one: func(ctx context.Context, c *client.Client, ref string, rev uint64) error {
			rep, err := ask(ctx, ref, rev)
			if err != nil {
				return err
			}
			if b.wait {
				return b.f.wait(ctx, c, ref, verb, until(rep, api.State_STATE_UNSPECIFIED))
			}
			return b.f.print(rep, func() error {
				_, err := fmt.Fprintf(b.f.Out, "%s of node %s accepted\n", verb, ref)
				return err
			})
		},
		each: func(ctx context.Context, c *client.Client, n *api.Node) (string, error) {
			rep, err := ask(ctx, n.GetId(), n.GetRev())
			if err != nil || !b.wait {
				return "accepted", err
			}
			return b.f.waitEach(ctx, c, n, until(rep, api.State_STATE_UNSPECIFIED))
		},
	})
}

// stateCommand is a command that reads a state, or sets it where the last
// argument is one.
type stateCommand[S comparable] struct {
	name, short, long, example string
	states                     map[string]S
	part                       api.HardwarePart
	show                       func(*api.GetHardwareReply) error
	request                    func(S) *api.ChangeHardwareRequest
}

func newStateCmd[S comparable](f *Factory, s stateCommand[S]) *cobra.Command {
	b := &bmcChange{f: f, fleet: &fleet{f: f}}
	names := strings.Join(slices.Sorted(maps.Keys(s.states)), "|")
	cmd := &cobra.Command{
		Use: s.name + " NODE... [" + names + "]", Short: s.short, Long: s.long, Example: s.example, Args: cobra.MinimumNArgs(1),
	}
	cmd.RunE = f.with(func(ctx context.Context, c *client.Client, args []string) error {
		last := len(args) - 1
		state, set := s.states[args[last]]
		switch {
		case set && (last > 0 || b.fleet.where != ""):
			return b.run(ctx, c, cmd, args[:last], s.name+" "+args[last], "", func() *api.ChangeHardwareRequest { return s.request(state) })
		case last == 0 && b.fleet.where == "":
			return f.hardware(ctx, c, args[0], s.show, s.part)
		}
		return errs.New(errs.Invalid, "%s %q: must be one of %s", s.name, args[last], strings.ReplaceAll(names, "|", ", "))
	})
	b.register(cmd)
	return cmd
}

// optionalNumber is a reading, or "".
func optionalNumber(v *float64) string {
	if v == nil {
		return ""
	}
	return strconv.FormatFloat(*v, 'f', -1, 64)
}

// eventTime is a moment by a BMC's clock, which may be anything.
func eventTime(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format(time.RFC3339)
}
