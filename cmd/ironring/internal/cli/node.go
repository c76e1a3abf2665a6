package cli

import (
	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/node"
)

func newNodeCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "node",
		Aliases: []string{"nodes"},
		Short:   "Enrol machines and work on them",
		Long: `A node is a machine that the cluster manages. It goes from enroll over
manageable (its BMC answers) and available (clean) to active (deployed).

Nodes are named by name or by UUID.`,
		Example: `  ironring node create --name n1 --driver redfish --driver-info redfish_address=https://10.0.0.7 \
      --driver-info redfish_username=admin --driver-info redfish_password=@/root/n1.password --port 52:54:00:12:34:56
  ironring node manage n1 --wait
  ironring node provide n1 --wait
  ironring node deploy n1 --image http://images/debian.raw.zst --checksum sha256:... --wait
  ironring node explain n1`,
	}
	cmd.AddCommand(
		newNodeCreateCmd(f), newNodeListCmd(f), newNodeShowCmd(f), newNodeSetCmd(f), newNodeDeleteCmd(f),
		newNodeApplyCmd(f), newNodeExportCmd(f), newNodeProtectCmd(f, true), newNodeProtectCmd(f, false),
		newVerbCmd(f, manageVerb), newVerbCmd(f, provideVerb), newVerbCmd(f, inspectVerb), newVerbCmd(f, undeployVerb), newVerbCmd(f, abortVerb),
		newNodeDeployCmd(f, api.Event_EV_DEPLOY), newNodeDeployCmd(f, api.Event_EV_REBUILD), newNodePowerCmd(f),
		newNodeLogsCmd(f), newNodeTimelineCmd(f), newNodeExplainCmd(f), newNodeFlowCmd(f), newNodeHistoryCmd(f), newNodeInventoryCmd(f), newNodeBootCmd(f), newNodeBMCCmd(f),
	)
	return cmd
}

// stateNames are the states that --state takes.
func stateNames() (out []string) {
	for _, s := range node.States() {
		out = append(out, node.StateName(s))
	}
	return out
}

// stateCell is a state with the color of its kind.
func stateCell(n *api.Node) cell {
	s := n.GetState()
	c := cell{text: node.StateName(s)}
	switch {
	case node.Failed(s):
		c.color = red
	case node.Transient(s):
		c.color = yellow
	case s == api.State_ACTIVE:
		c.color = green
	}
	return c
}

var powerNames = map[api.PowerState]string{api.PowerState_POWER_ON: "on", api.PowerState_POWER_OFF: "off"}

func powerText(n *api.Node) string {
	if s := powerNames[n.GetPowerState()]; s != "" {
		return s
	}
	return "unknown"
}

// erasureText says what the last clean left on the disks.
func erasureText(n *api.Node) string {
	if n.GetErasure().GetLevel() == api.Erasure_METADATA {
		return "metadata only, data remains"
	}
	return ""
}
