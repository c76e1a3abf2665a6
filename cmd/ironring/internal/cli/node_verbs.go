package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// verb is a command that asks for a verb of the lifecycle.
type verb struct {
	event   api.Event
	until   api.State // of --wait; STATE_UNSPECIFIED: there is no --wait
	short   string
	long    string
	example string
}

var (
	manageVerb = verb{api.Event_EV_MANAGE, api.State_MANAGEABLE, "Check the BMC and make the node manageable",
		"Check that the node's BMC answers with the credentials given, and make the node manageable. From available it goes back without a check.",
		"  ironring node manage n1 --wait"}
	provideVerb = verb{api.Event_EV_PROVIDE, api.State_AVAILABLE, "Clean the node and make it available",
		"Wipe the partition tables and signatures of the node's disks and make it available. Only metadata is wiped: the data remains on the disks.",
		"  ironring node provide n1 --wait"}
	inspectVerb = verb{api.Event_EV_INSPECT, api.State_MANAGEABLE, "Boot the ramdisk and take the inventory",
		"Boot the ramdisk on the node and record what it is made of.",
		"  ironring node inspect n1 --wait\n  ironring node inventory n1"}
	undeployVerb = verb{api.Event_EV_DELETE, api.State_AVAILABLE, "Tear down what is deployed, clean, make available",
		"Power the node off, wipe the metadata of its disks and make it available again.",
		"  ironring node undeploy n1 --wait"}
	abortVerb = verb{api.Event_EV_ABORT, api.State_STATE_UNSPECIFIED, "Stop the work on a node where that is safe",
		"Ask the holder of the node's flow to stop it at the next point where that is safe.",
		"  ironring node abort n1 --wait"}
)

const waitHelp = "wait for the end and show the steps; exit code 1 when the work fails"

func newVerbCmd(f *Factory, v verb) *cobra.Command {
	var wait bool
	var rev uint64
	cmd := &cobra.Command{
		Use:     node.VerbName(v.event) + " NODE",
		Short:   v.short,
		Long:    v.long,
		Example: v.example,
		Args:    cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			return f.provision(ctx, c, &api.ProvisionRequest{Node: args[0], Verb: v.event, Rev: rev}, v.until, wait)
		}),
	}
	cmd.Flags().Uint64Var(&rev, "rev", 0, "only if the node still has this `REVISION`")
	if v.until != api.State_STATE_UNSPECIFIED {
		cmd.Flags().BoolVar(&wait, "wait", false, waitHelp)
	}
	return cmd
}

const rebuildLong = `Write an image to the root disk of a node that is active, or whose deployment
failed, and boot it from there. What the disk holds is lost.

The image and the hints are given anew; they mean the same as with deploy.`

// newNodeDeployCmd is deploy, or rebuild: the same work on a node that has been
// deployed before.
func newNodeDeployCmd(f *Factory, ev api.Event) *cobra.Command {
	var image, checksum, compress string
	var hints []string
	var wait bool
	var rev uint64
	cmd := &cobra.Command{
		Use:   "deploy NODE --image URL --checksum ALGORITHM:HEX",
		Short: "Write an image to the node's disk and boot it",
		Long: `Write an image to the root disk of an available node and boot it from there.

With more than one disk that could be meant, the deployment is refused before a
byte is written, and the error lists the disks and the --root-device to give.
Hints are serial, wwn, name, model, vendor, size (GiB), rotational, hctl,
by_path, tran; values may begin with an operator, such as size=">= 100".`,
		Example: `  ironring node deploy n1 --image http://images/debian.raw --checksum sha256:2c26b46b... --wait
  ironring node deploy n1 --image https://images/debian.raw.zst --compress zstd --checksum sha256:fcde2b2e... --root-device serial=S4EVNX0R`,
		Args: cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			doc := map[string]any{}
			for k, v := range map[string]string{"image": image, "checksum": checksum, "compress": compress} {
				if v != "" {
					doc[k] = v
				}
			}
			v := &values{f: f}
			root, err := v.document("root-device", hints)
			if err != nil {
				return err
			}
			if root != nil {
				doc["root_device"] = json.RawMessage(root)
			}
			data, err := json.Marshal(doc)
			if err != nil {
				return err
			}
			req := &api.ProvisionRequest{Node: args[0], Verb: ev, Rev: rev, Args: data}
			return f.provision(ctx, c, req, api.State_ACTIVE, wait)
		}),
	}
	if ev == api.Event_EV_REBUILD {
		cmd.Use = "rebuild NODE --image URL --checksum ALGORITHM:HEX"
		cmd.Short = "Write an image to a deployed node and boot it"
		cmd.Long = rebuildLong
		cmd.Example = "  ironring node rebuild n1 --image http://images/debian.raw --checksum sha256:2c26b46b... --wait"
	}
	fl := cmd.Flags()
	fl.StringVar(&image, "image", "", "http or https `URL` of the image")
	fl.StringVar(&checksum, "checksum", "", "`ALGORITHM:HEX` of the file as served: sha256 or sha512")
	fl.StringVar(&compress, "compress", "", "`FORMAT` of the file: gzip or zstd")
	fl.StringArrayVar(&hints, "root-device", nil, "`HINT=VALUE` that chooses the disk; repeat it")
	fl.Uint64Var(&rev, "rev", 0, "only if the node still has this `REVISION`")
	fl.BoolVar(&wait, "wait", false, waitHelp)
	return cmd
}

// provision asks for a verb and, if wanted, waits for the end.
func (f *Factory) provision(ctx context.Context, c *client.Client, req *api.ProvisionRequest, until api.State, wait bool) error {
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
	what := client.Until{State: until, Flow: rep.GetFlow().GetId(), After: rep.GetIndex()}
	return f.wait(ctx, c, req.GetNode(), node.VerbName(req.GetVerb()), what)
}

// wait shows work until it ends. Failed work is explained and is exit code 1.
func (f *Factory) wait(ctx context.Context, c *client.Client, ref, what string, until client.Until) error {
	ctx, cancel := f.waitContext(ctx)
	defer cancel()
	p := newProgress(f, f.Err)
	ev, err := c.Wait(ctx, ref, until, p.event)
	p.close()
	var failed *client.WorkFailed
	switch {
	case errors.As(err, &failed):
		if f.json() {
			if err := f.printJSON(ev); err != nil {
				return err
			}
		}
		name := node.Label(failed.Node)
		return fmt.Errorf("%s failed: %w\nsee:  ironring node explain %s\nthen: %s", what, err, name, nextCommand(failed.Node))
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

// nextCommand is what to run once the reason of a failure is gone.
func nextCommand(n *api.Node) string {
	name := node.Label(n)
	switch n.GetState() {
	case api.State_DEPLOY_FAILED, api.State_AVAILABLE:
		return "ironring node deploy " + name + " --image URL --checksum ALGORITHM:HEX --wait"
	case api.State_CLEAN_FAILED, api.State_INSPECT_FAILED:
		return "ironring node manage " + name + " --wait"
	case api.State_ENROLL:
		return "ironring node set " + name + " --driver-info KEY=VALUE; ironring node manage " + name + " --wait"
	case api.State_MANAGEABLE:
		return "ironring node provide " + name + " --wait"
	case api.State_ERROR:
		return "ironring node undeploy " + name + " --wait"
	}
	return "ironring node history " + name
}
