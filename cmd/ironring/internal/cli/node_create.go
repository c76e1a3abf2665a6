package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/node"
)

// specFlags are the flags of the fields that create and set share.
type specFlags struct {
	name, driver, group, description, class string
	driverInfo, properties, extra, instance []string
	maintenance, protected, enforcePower    bool
	maintenanceReason                       string
}

func (s *specFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&s.name, "name", "", "unique `NAME` of the node")
	fl.StringVar(&s.driver, "driver", "", "`DRIVER` of its BMC: ipmi, redfish, ...")
	fl.StringArrayVar(&s.driverInfo, "driver-info", nil, "`KEY=VALUE` for the driver; repeat it")
	fl.StringArrayVar(&s.properties, "property", nil, "`KEY=VALUE` of the machine; repeat it")
	fl.StringArrayVar(&s.extra, "extra", nil, "`KEY=VALUE` of your own; repeat it")
	fl.StringArrayVar(&s.instance, "instance-info", nil, "`KEY=VALUE` of what is deployed; repeat it")
	fl.StringVar(&s.group, "group", "", "conductor `GROUP` that looks after it")
	fl.StringVar(&s.class, "resource-class", "", "resource `CLASS`")
	fl.StringVar(&s.description, "description", "", "free `TEXT`")
	fl.BoolVar(&s.enforcePower, "enforce-power", false, "power sync corrects the machine instead of only observing")
	fl.BoolVar(&s.protected, "protected", false, "refuse to undeploy it")
}

// driverHelp lists the keys of --driver-info, of all drivers of this build but
// the one for tests.
func driverHelp() string {
	var b strings.Builder
	for _, name := range knownDrivers().Names() {
		d, err := knownDrivers().Get(name)
		if err != nil || name == "fake" {
			continue
		}
		fmt.Fprintf(&b, "\n\nKeys of --driver-info for the driver %s:", name)
		for _, field := range d.Fields() {
			what := field.Help
			if field.Required {
				what += "; required"
			}
			if field.Secret {
				what += "; secret"
			}
			fmt.Fprintf(&b, "\n  %-24s %s", field.Name, what)
		}
	}
	return b.String()
}

func newNodeCreateCmd(f *Factory) *cobra.Command {
	var spec specFlags
	var id string
	var macs []string
	cmd := &cobra.Command{
		Use:   "create --driver DRIVER",
		Short: "Enrol a machine",
		Long:  "Enrol a machine: its BMC's address and credentials, and the MAC addresses that it boots from.\n\n" + valuesHelp + driverHelp(),
		Example: `  ironring node create --name n1 --driver ipmi --driver-info ipmi_address=10.0.0.7 \
      --driver-info ipmi_username=admin --driver-info ipmi_password=env:BMC_PASSWORD --port 52:54:00:12:34:56
  pass show bmc/n2 | ironring node create --name n2 --driver redfish --driver-info redfish_address=https://10.0.0.8 \
      --driver-info redfish_username=admin --driver-info redfish_password=-`,
		Args: cobra.NoArgs,
		RunE: f.with(func(ctx context.Context, c *client.Client, _ []string) error {
			n := &api.Node{Id: id, Name: spec.name, Driver: spec.driver, ConductorGroup: spec.group, ResourceClass: spec.class,
				Description: spec.description, EnforcePower: spec.enforcePower, Protected: spec.protected}
			v := &values{f: f}
			for _, d := range []struct {
				flag string
				args []string
				to   *[]byte
			}{{"driver-info", spec.driverInfo, &n.DriverInfo}, {"property", spec.properties, &n.Properties},
				{"extra", spec.extra, &n.Extra}, {"instance-info", spec.instance, &n.InstanceInfo}} {
				doc, err := v.document(d.flag, d.args)
				if err != nil {
					return err
				}
				*d.to = doc
			}
			req := &api.CreateNodeRequest{Node: n}
			for _, mac := range macs {
				req.Ports = append(req.Ports, &api.Port{Address: mac, PxeEnabled: true})
			}
			rep, err := c.CreateNode(ctx, req)
			if err != nil {
				return err
			}
			return f.print(rep, func() error {
				_, err := fmt.Fprintf(f.Out, "node %s enrolled as %s\nnext: ironring node manage %s --wait\n", node.Label(rep.GetNode()), rep.GetNode().GetId(), node.Label(rep.GetNode()))
				return err
			})
		}),
	}
	spec.register(cmd)
	cmd.Flags().StringVar(&id, "id", "", "`UUID` of the node, made up when not given")
	cmd.Flags().StringArrayVar(&macs, "port", nil, "`MAC` address that it boots from; repeat it")
	return cmd
}
