package flow

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/node"
)

// A deploy that asks for a config drive has the agent write it behind the
// image, with the node's id in it; one that does not asks the agent nothing.
func TestConfigDriveStep(t *testing.T) {
	for name, drive := range map[string]string{"none": "", "documents": `{"user_data":"x"}`} {
		t.Run(name, func(t *testing.T) {
			var told []string
			inBubble(t, func(c *conductortest.MachineConfig) {
				c.Script = func(cmd *api.AgentCommand) *api.CommandStatus {
					if cmd.GetName() == agentproto.CmdConfigDrive {
						told = append(told, string(cmd.GetArgs()))
					}
					return nil
				}
			}, func(r *rig) {
				r.start("p1")
				r.ready("p1")
				steps, err := node.Plan(api.FlowKind_FLOW_DEPLOY, api.PowerAction_POWER_ACTION_NONE)
				if err != nil {
					r.Fatal(err)
				}
				args := DeployArgs{Image: "http://images/a.raw", Checksum: checksum}
				if drive != "" {
					if args.ConfigDrive, err = json.Marshal(drive); err != nil {
						r.Fatal(err)
					}
				}
				f := &api.Flow{Id: "0f0e0d0c-0b0a-4908-8706-050403020100", NodeId: nodeID, Kind: api.FlowKind_FLOW_DEPLOY, Steps: steps}
				if f.Args, err = json.Marshal(args); err != nil {
					r.Fatal(err)
				}
				r.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: nodeID, Flow: f, Event: api.Event_EV_DEPLOY}}})
				r.idle(15 * time.Minute)
				r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
				var result string
				for _, s := range r.c.Store.View().Flow(nodeID).GetSteps() {
					if node.IDOf(s) == node.StepConfigDrive {
						result = string(s.GetResult())
					}
				}
				if drive == "" {
					if len(told) != 0 || !strings.Contains(result, "none was asked for") {
						r.Errorf("%q, %s", told, result)
					}
					return
				}
				if len(told) != 1 || !strings.Contains(told[0], nodeID) || !strings.Contains(told[0], "user_data") || !strings.Contains(result, "of-the-drive") {
					r.Errorf("%q, %s", told, result)
				}
			})
		})
	}
}
