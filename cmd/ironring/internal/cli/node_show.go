package cli

import (
	"bytes"
	"context"
	"encoding/json"
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

func newNodeListCmd(f *Factory) *cobra.Command {
	req := &api.ListNodesRequest{Read: &api.ReadOptions{}}
	var state, expr string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List nodes",
		Long:  "List nodes.\n\n" + whereHelp,
		Example: `  ironring node list --state "deploy failed"
  ironring node list --owner p2 -o json
  ironring node list --where 'state == "available" && properties.rack == "r7"'`,
		Args: cobra.NoArgs,
		RunE: f.with(func(ctx context.Context, c *client.Client, _ []string) error {
			if state != "" {
				s, err := node.ParseState(state)
				if err != nil {
					return errs.About(errs.Invalid, "state", "--state: %w; there are %s", err, strings.Join(stateNames(), ", "))
				}
				req.State = s
			}
			all, err := allNodes(ctx, c, req)
			if err != nil {
				return err
			}
			if all.Nodes, _, err = matching(ctx, expr, all.GetNodes()); err != nil {
				return err
			}
			return f.print(all, func() error {
				if all.GetStale() {
					fmt.Fprintln(f.Err, "warning: the answering peer is cut off from the leader or behind it; this may be old")
				}
				t := newTable("NAME", "UUID", "STATE", "FOR", "POWER", "DRIVER", "OWNER", "DISKS", "NOTE")
				for _, n := range all.GetNodes() {
					t.add(n.GetName(), n.GetId(), stateCell(n), strings.TrimSuffix(f.ago(n.GetStateSinceMs()), " ago"),
						powerText(n), n.GetDriver(), n.GetAssigned(), erasureText(n), f.noteOf(n))
				}
				return f.printTable(t)
			})
		}),
	}
	fl := cmd.Flags()
	fl.StringVar(&state, "state", "", "only nodes in this `STATE`")
	fl.StringVar(&expr, "where", "", "only the nodes that `EXPR` means")
	fl.StringVar(&req.Owner, "owner", "", "only nodes of this `PEER`")
	fl.StringVar(&req.Driver, "driver", "", "only nodes with this `DRIVER`")
	fl.StringVar(&req.Group, "group", "", "only nodes of this conductor `GROUP`")
	fl.BoolVar(&req.Read.Linearizable, "linearizable", false, "ask the leader first, so that nothing committed is missing")
	return cmd
}

// noteOf is what a person should know of a node at a glance.
func (f *Factory) noteOf(n *api.Node) cell {
	switch {
	case n.GetMaintenance():
		return cell{text: strings.TrimSuffix("maintenance: "+n.GetMaintenanceReason(), ": "), color: yellow}
	case n.GetBmcPark().GetFailures() >= 2:
		return cell{text: "BMC refuses the credentials", color: red}
	case n.GetLastError() != "":
		return cell{text: f.clip(n.GetLastError(), 60), color: red}
	case n.GetUnassignedReason() != "" && n.GetAssigned() == "":
		return cell{text: "no owner: " + f.clip(n.GetUnassignedReason(), 50), color: red}
	}
	return cell{}
}

// clip bounds a text to n characters where a person looks; whoever reads from
// a pipe or a file gets all of it.
func (f *Factory) clip(s string, n int) string {
	r := []rune(oneLine(s))
	if len(r) <= n || !terminal(f.Out) {
		return string(r)
	}
	return string(r[:n-3]) + "..."
}

func newNodeShowCmd(f *Factory) *cobra.Command {
	req := &api.GetNodeRequest{Read: &api.ReadOptions{}}
	cmd := &cobra.Command{
		Use:     "show NODE",
		Short:   "Show everything recorded of a node",
		Example: "  ironring node show n1\n  ironring node show n1 -o json",
		Args:    cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			req.Node = args[0]
			rep, err := c.GetNode(ctx, req)
			if err != nil {
				return err
			}
			return f.print(rep, func() error {
				ports, err := c.ListPorts(ctx, &api.ListPortsRequest{Node: rep.GetNode().GetId()})
				if err != nil {
					return err
				}
				return f.printNode(rep, ports.GetPorts())
			})
		}),
	}
	cmd.Flags().BoolVar(&req.Read.Linearizable, "linearizable", false, "ask the leader first, so that nothing committed is missing")
	return cmd
}

func (f *Factory) printNode(rep *api.NodeReply, ports []*api.Port) error {
	n := rep.GetNode()
	t := &table{}
	line := func(key string, value any) {
		if s := fmt.Sprint(value); s != "" {
			t.add(key, s)
		}
	}
	line("uuid", n.GetId())
	line("name", n.GetName())
	t.add("state", stateCell(n))
	line("target", node.StateName(n.GetTargetState()))
	line("since", f.ago(n.GetStateSinceMs()))
	line("power", powerText(n))
	line("owner", ownerText(n))
	line("driver", n.GetDriver())
	for _, d := range []struct {
		name string
		doc  []byte
	}{{"driver_info", n.GetDriverInfo()}, {"properties", n.GetProperties()}, {"extra", n.GetExtra()}, {"instance_info", n.GetInstanceInfo()}} {
		documentLines(t, d.name, d.doc)
	}
	for _, p := range ports {
		line("port", portText(p))
	}
	line("group", n.GetConductorGroup())
	line("resource class", n.GetResourceClass())
	line("description", n.GetDescription())
	if n.GetMaintenance() {
		t.add("maintenance", cell{"yes: " + n.GetMaintenanceReason(), yellow})
	}
	if n.GetProtected() {
		line("protected", "yes")
	}
	if d := n.GetRootDisk(); d != nil {
		line("root disk", strings.TrimSpace(fmt.Sprintf("%s serial %s wwn %s %s", d.GetName(), d.GetSerial(), d.GetWwn(), bytesText(float64(d.GetSizeBytes())))))
	}
	if b := n.GetBmc(); b != nil {
		line("bmc", strings.Join(strings.Fields(b.GetVendor()+" "+b.GetModel()+" "+b.GetFirmware()), " "))
		line("system uuid", b.GetSystemUuid())
		if node.BMCChanged(n) {
			t.add("bmc is", cell{"not verified since driver or driver_info changed: asked who it is before anything is changed there; what it reads may be of another machine", yellow})
		}
	}
	if tls := n.GetBmcTls(); tls != nil {
		line("bmc certificate", certificateText(tls.GetFingerprint(), tls.GetAddress()))
		for _, c := range tls.GetBefore() {
			line("also known", certificateText(c.GetFingerprint(), c.GetAddress()))
		}
		if c := tls.GetChangedTo(); c != "" {
			t.add("bmc shows now", cell{c + ", not trusted", red})
		}
	}
	line("disks", erasureText(n))
	line("flow", flowText(rep.GetFlow()))
	if l := rep.GetLock(); l != nil {
		line("lock", fmt.Sprintf("%s of %s, token %d", l.GetPurpose(), l.GetConductor(), l.GetToken()))
	}
	if e := n.GetLastError(); e != "" {
		t.add("last error", cell{e, red})
	}
	line("fault", n.GetFault())
	line("revision", fmt.Sprintf("%d, index %d", n.GetRev(), n.GetIndex()))
	line("created", f.ago(n.GetCreatedMs()))
	if rep.GetStale() {
		fmt.Fprintln(f.Err, "warning: the answering peer is cut off from the leader or behind it; this may be old")
	}
	return f.printTable(t)
}

// certificateText is a certificate and whose it is; "" for none.
func certificateText(fingerprint, address string) string {
	if fingerprint == "" {
		return ""
	}
	return fingerprint + prefixed(" of ", address)
}

// portText is a NIC on one line.
func portText(p *api.Port) string {
	s := p.GetAddress()
	if !p.GetPxeEnabled() {
		s += ", not booted from"
	}
	return s + prefixed(", network ", p.GetPhysicalNetwork())
}

func ownerText(n *api.Node) string {
	if n.GetAssigned() == "" {
		return strings.TrimSuffix("nobody: "+n.GetUnassignedReason(), ": ")
	}
	return n.GetAssigned()
}

// documentLines shows the top level of a JSON document, a line for each key.
func documentLines(t *table, name string, doc []byte) {
	var top map[string]json.RawMessage
	if json.Unmarshal(doc, &top) != nil {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(top)) {
		var text string
		if json.Unmarshal(top[k], &text) != nil {
			var b bytes.Buffer
			if json.Compact(&b, top[k]) != nil {
				continue
			}
			text = b.String()
		}
		t.add(name+"/"+k, text)
	}
}

// flowText is a flow on one line; "" without one.
func flowText(fl *api.Flow) string {
	if fl.GetId() == "" {
		return ""
	}
	s := kindText(fl.GetKind()) + " " + statusText(fl.GetStatus())
	if fl.GetStatus() == api.FlowStatus_FLOW_RUNNING {
		s = kindText(fl.GetKind()) + ", " + stepText(fl)
	}
	if fl.GetTakeovers() > 0 {
		s += fmt.Sprintf(", taken over %d times", fl.GetTakeovers())
	}
	switch n := fl.GetPowerOns(); n {
	case 0:
	case 1:
		s += ", 1 power-on"
	default:
		s += fmt.Sprintf(", %d power-ons", n)
	}
	return s
}

func kindText(k api.FlowKind) string {
	return strings.ToLower(strings.TrimPrefix(k.String(), "FLOW_"))
}

func statusText(s api.FlowStatus) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "FLOW_"))
}

// stepText is where a flow is: "step 3 of 9, agent.write_image".
func stepText(fl *api.Flow) string {
	i, steps := int(fl.GetCursor()), fl.GetSteps()
	if i >= len(steps) {
		return fmt.Sprintf("all %d steps done", len(steps))
	}
	return fmt.Sprintf("step %d of %d, %s", i+1, len(steps), stepName(steps[i]))
}

func stepName(s *api.Step) string { return s.GetInterface() + "." + s.GetName() }
