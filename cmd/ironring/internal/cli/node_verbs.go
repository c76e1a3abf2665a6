package cli

import (
	"cmp"
	"context"
	"encoding/json"
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

const rebuildLong = `Write an image to the root disk of a node that is active, or whose deployment
failed, and boot it from there. What the disk holds is lost; where Ironring did
not put it there, only with --wipe-existing.

The image and the hints are given anew; they mean the same as with deploy.

` + deploySecretsHelp

// newNodeDeployCmd is deploy, or rebuild: the same work on a node that has been
// deployed before.
func newNodeDeployCmd(f *Factory, ev api.Event) *cobra.Command {
	var image, checksum, compress, format, source string
	drive := &driveFlags{}
	evidence := &evidenceFlags{}
	var hints []string
	var wipe bool
	s := &fleet{f: f}
	ask := &asking{f: f, verb: ev, until: api.State_ACTIVE}
	cmd := &cobra.Command{
		Use:   "deploy NODE... --image URL --checksum ALGORITHM:HEX",
		Short: "Write an image to the node's disk and boot it",
		Long: `Write an image to the root disk of an available node and boot it from there.

With more than one disk that could be meant, the deployment is refused before a
byte is written, and the error lists the disks and the --root-device to give.
Hints are serial, wwn, name, model, vendor, size (GiB), rotational, hctl,
by_path, tran; values may begin with an operator, such as size=">= 100".

Where the chosen disk holds data that Ironring did not put there, or cannot be
read, nothing is written: the deployment fails and names the disk, and
--wipe-existing must be given.

A config drive is what cloud-init reads at the first boot. It goes onto a
partition of its own at the end of the disk.

` + deploySecretsHelp,
		Example: `  ironring node deploy n1 --image http://images/debian.raw --checksum sha256:2c26b46b... --wait
  ironring node deploy n1 --image https://images/debian.raw.zst --compress zstd --checksum sha256:fcde2b2e... --root-device serial=S4EVNX0R
  ironring node deploy n1 --image https://images/debian.qcow2 --checksum sha256:9f86d081... --user-data cloud-config.yaml
  ironring node deploy n1 --image @signed-url.txt --checksum sha256:9f86d081... --evidence phone_home --phone-home-token @token.txt
  ironring node deploy n1 --image http://images/debian.raw --checksum sha256:2c26b46b... --config-drive http://drives/n1.iso --config-drive-checksum sha256:baa5a096...`,
		Args: cobra.ArbitraryArgs,
	}
	cmd.RunE = f.with(func(ctx context.Context, c *client.Client, args []string) error {
		doc := map[string]any{}
		for k, v := range map[string]string{"checksum": checksum, "compress": compress, "image_format": format, "image_download_source": source} {
			if v != "" {
				doc[k] = v
			}
		}
		v := &values{f: f}
		if image != "" {
			text, err := v.url("image", image)
			if err != nil {
				return err
			}
			doc["image"] = text
		}
		root, err := v.document("root-device", hints)
		if err != nil {
			return err
		}
		if root != nil {
			doc["root_device"] = json.RawMessage(root)
		}
		if err := drive.into(doc, v); err != nil {
			return err
		}
		if err := evidence.into(doc, v, len(args) == 1 && s.where == ""); err != nil {
			return err
		}
		if wipe {
			doc["wipe_existing"] = true
			ask.loses = "what is on the root disk, whoever put it there"
		}
		data, err := json.Marshal(doc)
		if err != nil {
			return err
		}
		ask.args = data
		return ask.run(ctx, c, s, cmd, args)
	})
	if ev == api.Event_EV_REBUILD {
		ask.loses = "what is on the root disk"
		cmd.Use = "rebuild NODE... --image URL --checksum ALGORITHM:HEX"
		cmd.Short = "Write an image to a deployed node and boot it"
		cmd.Long = rebuildLong
		cmd.Example = "  ironring node rebuild n1 --image http://images/debian.raw --checksum sha256:2c26b46b... --wait"
	}
	fl := cmd.Flags()
	fl.StringVar(&image, "image", "", "http or https `URL` of the image; @FILE, - or env:NAME for one with a user, a password or a signature")
	fl.StringVar(&checksum, "checksum", "", "`ALGORITHM:HEX` of the file as served: sha256 or sha512")
	fl.StringVar(&source, "image-source", "", "`WHERE` the agent gets it: http, its URL, or local, the peers, which download it once (default: as node and settings say)")
	fl.StringVar(&compress, "compress", "", "`FORMAT` of the file: gzip or zstd")
	fl.StringVar(&format, "image-format", "", "`FORMAT` of the image, raw or qcow2; if left out the file itself says it")
	drive.register(fl)
	evidence.register(fl)
	fl.StringArrayVar(&hints, "root-device", nil, "`HINT=VALUE` that chooses the disk; repeat it")
	fl.BoolVar(&wipe, "wipe-existing", false, "also write to a disk with data that Ironring did not put there")
	s.register(cmd)
	ask.register(cmd)
	return cmd
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
