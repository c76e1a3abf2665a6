package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// verb is a command that asks for a verb of the lifecycle.
type verb struct {
	event   api.Event
	until   api.State // of --wait; STATE_UNSPECIFIED: the end of the flow
	loses   string    // what is lost for good; "" when nothing is
	short   string
	long    string
	example string
}

var (
	manageVerb = verb{api.Event_EV_MANAGE, api.State_MANAGEABLE, "", "Check the BMC and make the node manageable",
		"Check that the node's BMC answers with the credentials given, and make the node manageable. From available it goes back without a check.",
		"  ironring node manage n1 --wait"}
	provideVerb = verb{api.Event_EV_PROVIDE, api.State_AVAILABLE, "the partition tables and signatures of all disks of the machine", "Clean the node and make it available",
		`Wipe the partition tables and signatures of the node's disks and make it
available. Only metadata is wiped: the data remains on the disks.

Where a disk holds data that Ironring did not put there, or cannot be read,
nothing is wiped: the clean fails and names the disks, and --wipe-existing must
be given.`,
		"  ironring node provide n1 --wait\n  ironring node provide n1 --wipe-existing --wait --yes"}
	inspectVerb = verb{api.Event_EV_INSPECT, api.State_MANAGEABLE, "", "Boot the ramdisk and take the inventory",
		"Boot the ramdisk on the node and record what it is made of.",
		"  ironring node inspect n1 --wait\n  ironring node inventory n1"}
	undeployVerb = verb{api.Event_EV_DELETE, api.State_AVAILABLE, "what runs on the machine, and the partition tables of its disks", "Tear down what is deployed, clean, make available",
		`Power the node off, wipe the metadata of its disks and make it available again.
A deploy that waits for its machine ("wait call-back") is ended. While a power
action or a change at the BMC is under way it is refused: try again when it has
ended.`,
		"  ironring node undeploy n1 --wait"}
	abortVerb = verb{api.Event_EV_ABORT, api.State_STATE_UNSPECIFIED, "", "End the work on a node that waits for its machine",
		`End the work on a node that waits for its machine or agent (states "wait
call-back", "clean wait", "inspect wait"). While the node is being worked on
("deploying", "cleaning") it is refused: those steps are short, try again. The
machine stays powered on.`,
		"  ironring node abort n1 --wait"}
)

const waitHelp = "wait for the end and show the steps; exit code 1 when the work fails"

func newVerbCmd(f *Factory, v verb) *cobra.Command {
	s := &fleet{f: f}
	ask := &asking{f: f, verb: v.event, until: v.until, loses: v.loses}
	cmd := &cobra.Command{
		Use:     node.VerbName(v.event) + " NODE...",
		Short:   v.short,
		Long:    v.long,
		Example: v.example,
		Args:    cobra.ArbitraryArgs,
	}
	wipe := false
	cmd.RunE = f.with(func(ctx context.Context, c *client.Client, args []string) error {
		if wipe {
			ask.args = []byte(`{"wipe_existing":true}`)
			ask.loses = "what is on the disks of the machine, whoever put it there"
		}
		return ask.run(ctx, c, s, cmd, args)
	})
	s.register(cmd)
	ask.register(cmd)
	if v.event == api.Event_EV_PROVIDE {
		cmd.Flags().BoolVar(&wipe, "wipe-existing", false, "also wipe disks with data that Ironring did not put there")
	}
	return cmd
}

// asking is a verb that is asked of nodes.
type asking struct {
	f     *Factory
	verb  api.Event
	until api.State // of --wait; STATE_UNSPECIFIED: the end of the flow
	loses string
	args  []byte
	rev   uint64
	wait  bool
}

func (a *asking) register(cmd *cobra.Command) {
	cmd.Flags().Uint64Var(&a.rev, "rev", 0, "only if the node still has this `REVISION`; for one node")
	cmd.Flags().BoolVar(&a.wait, "wait", false, waitHelp)
}

func (a *asking) run(ctx context.Context, c *client.Client, s *fleet, cmd *cobra.Command, refs []string) error {
	if a.rev != 0 && len(refs) != 1 {
		return errs.About(errs.Invalid, "rev", "--rev is for one node")
	}
	req := func(ref string, rev uint64) *api.ProvisionRequest {
		return &api.ProvisionRequest{Node: ref, Verb: a.verb, Rev: cmp.Or(a.rev, rev), Args: a.args}
	}
	return s.run(ctx, c, cmd, refs, work{
		verb: node.VerbName(a.verb), loses: a.loses,
		would: func(n *api.Node) error { return node.CheckVerb(n, a.verb) },
		one: func(ctx context.Context, c *client.Client, ref string, rev uint64) error {
			return a.f.provision(ctx, c, req(ref, rev), a.until, a.wait)
		},
		each: func(ctx context.Context, c *client.Client, n *api.Node) (string, error) {
			rep, err := c.Provision(ctx, req(n.GetId(), n.GetRev()))
			if err != nil || !a.wait {
				return "accepted, state " + node.StateName(rep.GetNode().GetState()), err
			}
			if a.verb == api.Event_EV_ABORT {
				return a.f.abortedEach(ctx, c, n, rep)
			}
			return a.f.waitEach(ctx, c, n, until(rep, a.until))
		},
	})
}

// until is what the end of accepted work looks like.
func until(rep *api.FlowReply, state api.State) client.Until {
	return client.Until{State: state, Flow: rep.GetFlow().GetId(), After: rep.GetIndex()}
}

// waitEach waits for the end of the work on one of several nodes.
func (f *Factory) waitEach(ctx context.Context, c *client.Client, n *api.Node, what client.Until) (string, error) {
	ctx, cancel := f.waitContext(ctx)
	defer cancel()
	ev, err := c.Wait(ctx, n.GetId(), what, nil)
	return "state " + node.StateName(ev.GetNode().GetState()), f.overdue(ctx, err)
}

// provision asks for a verb and, if wanted, waits for the end.
func (f *Factory) provision(ctx context.Context, c *client.Client, req *api.ProvisionRequest, state api.State, wait bool) error {
	rep, err := c.Provision(ctx, req)
	if err != nil {
		return err
	}
	if !wait {
		return f.print(rep, func() error {
			_, err := fmt.Fprintf(f.Out, "%s of node %s accepted, state %s\nfollow it: ironring node explain %s\n",
				node.VerbName(req.GetVerb()), node.Label(rep.GetNode()), node.StateName(rep.GetNode().GetState()), node.Label(rep.GetNode()))
			return err
		})
	}
	if req.GetVerb() == api.Event_EV_ABORT {
		return f.waitAborted(ctx, c, rep)
	}
	err = f.wait(ctx, c, req.GetNode(), node.VerbName(req.GetVerb()), until(rep, state))
	var failed *client.WorkFailed
	if errors.As(err, &failed) {
		if next := nextCommand(failed); next != "" {
			err = fmt.Errorf("%w\nthen: %s", err, next)
		}
	}
	return err
}

// wait shows work until it ends. Failed work is explained and is exit code 1.
func (f *Factory) wait(ctx context.Context, c *client.Client, ref, what string, until client.Until) error {
	ctx, cancel := f.waitContext(ctx)
	defer cancel()
	p := newProgress(f, f.Err)
	ev, err := c.Wait(ctx, ref, until, p.event)
	err = f.overdue(ctx, err)
	p.close()
	var failed *client.WorkFailed
	switch {
	case errors.As(err, &failed):
		if f.json() {
			if err := f.printJSON(ev); err != nil {
				return err
			}
		}
		return fmt.Errorf("%s failed: %w\nsee:  ironring node explain %s", what, err, node.Label(failed.Node))
	case errors.Is(err, errs.Timeout):
		return fmt.Errorf("%w\nthe work goes on without us; see: ironring node explain %s", err, ref)
	case err != nil:
		return err
	}
	return f.print(ev, func() error {
		_, err := fmt.Fprintf(f.Out, "node %s: %s done, state %s, power %s\n", node.Label(ev.GetNode()), what, node.StateName(ev.GetNode().GetState()), powerText(ev.GetNode()))
		return err
	})
}

// waitAborted waits for the end of a flow that was asked to stop. That it came
// to its own end first is no success: it was not stopped.
func (f *Factory) waitAborted(ctx context.Context, c *client.Client, rep *api.FlowReply) error {
	text, err := f.abortedEach(ctx, c, rep.GetNode(), rep)
	if err != nil {
		return err
	}
	return f.print(rep, func() error {
		_, err := fmt.Fprintf(f.Out, "node %s: %s\n", node.Label(rep.GetNode()), text)
		return err
	})
}

func (f *Factory) abortedEach(ctx context.Context, c *client.Client, n *api.Node, rep *api.FlowReply) (string, error) {
	if fl := rep.GetFlow(); fl.GetId() == "" || fl.GetStatus() != api.FlowStatus_FLOW_RUNNING {
		return "aborted, state " + node.StateName(rep.GetNode().GetState()), nil // only the state had to move
	}
	text, err := f.waitEach(ctx, c, n, until(rep, api.State_STATE_UNSPECIFIED))
	var failed *client.WorkFailed
	switch {
	case err == nil:
		return "", errs.About(errs.WrongState, n.GetId(), "node %s: the work came to its end before it could be stopped: %s", node.Label(n), text)
	case errors.As(err, &failed):
		return "aborted, " + text, nil
	}
	return "", err
}

// nextCommand is what to run once the reason is gone for which work of the
// lifecycle failed. Where it is not clear whose machine it is, nothing is named
// that would wipe it: "" then.
func nextCommand(failed *client.WorkFailed) string {
	n := failed.Node
	name := node.Label(n)
	switch n.GetState() {
	case api.State_CLEAN_FAILED, api.State_INSPECT_FAILED:
		return "ironring node manage " + name + " --wait"
	case api.State_ENROLL:
		return "ironring node set " + name + " --driver-info KEY=VALUE; ironring node manage " + name + " --wait"
	}
	if node.BMCChanged(n) || strings.Contains(failed.Reason, node.IdentityMismatch) {
		return ""
	}
	switch n.GetState() {
	case api.State_DEPLOY_FAILED, api.State_AVAILABLE:
		return "ironring node deploy " + name + " --image URL --checksum ALGORITHM:HEX --wait"
	case api.State_MANAGEABLE:
		return "ironring node provide " + name + " --wait"
	case api.State_ERROR:
		return "ironring node undeploy " + name + " --wait"
	}
	return "ironring node history " + name
}
