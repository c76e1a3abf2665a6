package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// setFields are the flags of `node set` that replace a whole field.
var setFields = map[string]string{
	"name": "name", "driver": "driver", "group": "conductor_group", "resource-class": "resource_class",
	"description": "description", "enforce-power": "enforce_power", "protected": "protected",
	"maintenance": "maintenance", "maintenance-reason": "maintenance_reason",
}

func newNodeSetCmd(f *Factory) *cobra.Command {
	var spec specFlags
	var unset []string
	var rev uint64
	cmd := &cobra.Command{
		Use:   "set NODE",
		Short: "Change what is known of a node",
		Long:  "Change fields of a node. KEY of a document may be a path: a/b is b inside of a.\n\n" + valuesHelp,
		Example: `  ironring node set n1 --property root_device/serial=S4EVNX0R --unset extra/rack
  ironring node set n1 --driver-info ipmi_password=@/root/new-password
  ironring node set n1 --maintenance --maintenance-reason "fan 3 is broken"
  ironring node set n1 --maintenance=false`,
		Args: cobra.ExactArgs(1),
	}
	spec.register(cmd)
	fl := cmd.Flags()
	fl.BoolVar(&spec.maintenance, "maintenance", false, "take it out of service; --maintenance=false puts it back")
	fl.StringVar(&spec.maintenanceReason, "maintenance-reason", "", "why, as `TEXT`")
	fl.StringArrayVar(&unset, "unset", nil, "remove `FIELD/KEY`, e.g. properties/root_device; repeat it")
	fl.Uint64Var(&rev, "rev", 0, "only if the node still has this `REVISION`")
	cmd.RunE = f.with(func(ctx context.Context, c *client.Client, args []string) error {
		req := &api.UpdateNodeRequest{Node: args[0], Rev: rev, Set: map[string]string{}, Unset: unset}
		var failed error
		fl.Visit(func(flag *pflag.Flag) {
			field, ok := setFields[flag.Name]
			if !ok {
				return
			}
			value := json.RawMessage(flag.Value.String())
			if flag.Value.Type() != "bool" {
				var err error
				if value, err = json.Marshal(flag.Value.String()); err != nil {
					failed = err
				}
			}
			req.Set[field] = string(value)
		})
		v := &values{f: f}
		for _, d := range []struct {
			flag, field string
			args        []string
		}{{"driver-info", "driver_info", spec.driverInfo}, {"property", "properties", spec.properties},
			{"extra", "extra", spec.extra}, {"instance-info", "instance_info", spec.instance}} {
			for _, a := range d.args {
				key, value, err := v.parse(d.flag, a)
				if err != nil {
					return err
				}
				req.Set[d.field+"/"+key] = string(value)
			}
		}
		if failed != nil {
			return failed
		}
		if len(req.Set) == 0 && len(req.Unset) == 0 {
			return errs.New(errs.Invalid, "nothing to change; see ironring node set --help")
		}
		rep, err := c.UpdateNode(ctx, req)
		if err != nil {
			return err
		}
		return f.print(rep, func() error {
			_, err := fmt.Fprintf(f.Out, "node %s changed, revision %d\n", node.Label(rep.GetNode()), rep.GetNode().GetRev())
			return err
		})
	})
	return cmd
}

func newNodeDeleteCmd(f *Factory) *cobra.Command {
	s := &fleet{f: f}
	var rev uint64
	cmd := &cobra.Command{
		Use:     "delete NODE...",
		Short:   "Forget nodes and their ports",
		Long:    "Forget nodes and their ports. The machines themselves are not touched.",
		Example: "  ironring node delete n1\n  ironring node delete --where 'state == \"enroll\"' --yes",
		Args:    cobra.ArbitraryArgs,
	}
	cmd.RunE = f.with(func(ctx context.Context, c *client.Client, args []string) error {
		if rev != 0 && len(args) != 1 {
			return errs.About(errs.Invalid, "rev", "--rev is for one node")
		}
		return s.run(ctx, c, cmd, args, work{
			verb: "delete", loses: "the record with its credentials and history (the machine is not touched)", would: node.CheckDelete,
			one: func(ctx context.Context, c *client.Client, ref string, seen uint64) error {
				rep, err := c.DeleteNode(ctx, &api.DeleteNodeRequest{Node: ref, Rev: cmp.Or(rev, seen)})
				if err != nil {
					return err
				}
				return f.print(rep, func() error {
					_, err := fmt.Fprintf(f.Out, "node %s deleted\n", args[0])
					return err
				})
			},
			each: func(ctx context.Context, c *client.Client, n *api.Node) (string, error) {
				_, err := c.DeleteNode(ctx, &api.DeleteNodeRequest{Node: n.GetId(), Rev: n.GetRev()})
				return "deleted", err
			},
		})
	})
	cmd.Flags().Uint64Var(&rev, "rev", 0, "only if the node still has this `REVISION`; for one node")
	s.register(cmd)
	return cmd
}

// newNodeProtectCmd is protect, or unprotect.
func newNodeProtectCmd(f *Factory, on bool) *cobra.Command {
	s := &fleet{f: f}
	cmd := &cobra.Command{
		Use:     "protect NODE...",
		Short:   "Refuse to undeploy, rebuild or delete nodes",
		Long:    "Refuse to undeploy, rebuild or delete nodes, whoever asks, until unprotect.",
		Example: "  ironring node protect db1 db2",
		Args:    cobra.ArbitraryArgs,
	}
	verb, done, value := "protect", "protected", "true"
	if !on {
		verb, done, value = "unprotect", "not protected any more", "false"
		cmd.Use, cmd.Short, cmd.Example = "unprotect NODE...", "Let nodes be undeployed, rebuilt and deleted again", "  ironring node unprotect db1"
		cmd.Long = cmd.Short + "."
	}
	cmd.RunE = f.with(func(ctx context.Context, c *client.Client, args []string) error {
		set := func(ctx context.Context, c *client.Client, ref string, rev uint64) (*api.NodeReply, error) {
			return c.UpdateNode(ctx, &api.UpdateNodeRequest{Node: ref, Rev: rev, Set: map[string]string{"protected": value}})
		}
		return s.run(ctx, c, cmd, args, work{
			verb: verb,
			one: func(ctx context.Context, c *client.Client, ref string, rev uint64) error {
				rep, err := set(ctx, c, ref, rev)
				if err != nil {
					return err
				}
				return f.print(rep, func() error {
					_, err := fmt.Fprintf(f.Out, "node %s is %s\n", node.Label(rep.GetNode()), done)
					return err
				})
			},
			each: func(ctx context.Context, c *client.Client, n *api.Node) (string, error) {
				_, err := set(ctx, c, n.GetId(), n.GetRev())
				return done, err
			},
		})
	})
	s.register(cmd)
	return cmd
}
