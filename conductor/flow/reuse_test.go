package flow

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/node"
)

// reusing is inBubble with p1 and p2 and a node that is manageable.
func reusing(t *testing.T, test func(r *rig)) {
	t.Helper()
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.enrol("p1")
		r.start("p2")
		conductortest.Until(r, time.Minute, "lease of p2", func() bool { return r.c.Store.View().LiveLease("p2") != nil })
		r.begin(api.Event_EV_MANAGE)
		r.idle(time.Minute)
		test(r)
	})
}

func (r *rig) does(verb api.Event, end api.State) {
	r.Helper()
	r.begin(verb)
	r.idle(time.Hour)
	r.wants(end, api.FlowStatus_FLOW_DONE)
}

func (r *rig) boots() int {
	_, _, n := r.machine.Booted()
	return n
}

// Inspect, clean and deploy need one boot of the ramdisk; each of them looks at
// the machine before it writes. What follows an undeploy boots anew.
func TestAgentIsReused(t *testing.T) {
	reusing(t, func(r *rig) {
		for _, c := range []struct {
			verb     api.Event
			end      api.State
			boots    int
			powerOns uint32
		}{
			{api.Event_EV_INSPECT, api.State_MANAGEABLE, 1, 1},
			{api.Event_EV_PROVIDE, api.State_AVAILABLE, 1, 0},
			{api.Event_EV_DEPLOY, api.State_ACTIVE, 1, 1}, // from the disk
			{api.Event_EV_DELETE, api.State_AVAILABLE, 2, 1},
		} {
			begun := len(r.machine.Begun(agentproto.CmdInventory))
			r.does(c.verb, c.end)
			f := r.flow()
			if r.boots() != c.boots || f.GetPowerOns() != c.powerOns {
				r.Errorf("after %v: %d boots of the ramdisk, %d power-ons", c.verb, r.boots(), f.GetPowerOns())
			}
			if n := len(r.machine.Begun(agentproto.CmdInventory)); n != begun+1 {
				r.Errorf("%v: %d inventories", c.verb, n-begun)
			}
			for _, s := range f.GetSteps() {
				if node.IDOf(s) == node.StepCheckIdentity && !strings.Contains(string(s.GetResult()), "proof") {
					r.Errorf("%v: identity was not checked: %s", c.verb, s.GetResult())
				}
			}
		}
		r.checkCalls(0)
		if !strings.Contains(r.past(), "deploy done, 1 power-on") {
			r.Errorf("history:\n%s", r.past())
		}
	})
}

// Whose machine goes away between the flows is booted again.
func TestReusedAgentGoneAway(t *testing.T) {
	for _, when := range []string{"before the flow", "as it begins"} {
		t.Run(when, func(t *testing.T) {
			reusing(t, func(r *rig) {
				r.does(api.Event_EV_INSPECT, api.State_MANAGEABLE)
				if when == "before the flow" {
					r.bmc.SetPower(api.PowerState_POWER_OFF)
					r.machine.Stop()
					conductortest.Pass(time.Second)
					r.begin(api.Event_EV_PROVIDE)
				} else {
					r.c.Peer("p1").Decide(func(cmd *api.Command) conductortest.Fate {
						if d := cmd.GetOps()[0].GetStepDone(); d != nil && d.GetCursor() == 1 {
							r.machine.Stop()
						}
						return conductortest.Fate{}
					})
					r.begin(api.Event_EV_PROVIDE)
				}
				r.idle(time.Hour)
				r.wants(api.State_AVAILABLE, api.FlowStatus_FLOW_DONE)
				if r.boots() != 2 {
					r.Errorf("%d boots of the ramdisk", r.boots())
				}
			})
		})
	}
}

// The policy can be switched off for a node; a power action ends the boot.
func TestAgentIsNotKept(t *testing.T) {
	reusing(t, func(r *rig) {
		r.does(api.Event_EV_INSPECT, api.State_MANAGEABLE)
		r.create(api.FlowKind_FLOW_POWER, api.PowerAction_POWER_ACTION_REBOOT, api.Event_EVENT_NONE)
		r.idle(time.Minute)
		if b := r.node().GetBoot(); b.GetTarget() != api.BootTarget_BOOT_NOTHING || b.GetNonce() != "" {
			r.Errorf("boot record %v", b)
		}
		r.does(api.Event_EV_PROVIDE, api.State_AVAILABLE)
		if r.boots() != 2 {
			r.Errorf("%d boots of the ramdisk", r.boots())
		}
		r.c.Must(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{NodeId: nodeID, Fields: []string{"properties"}, Node: &api.Node{Properties: []byte(bootsAnew)}}}})
		r.does(api.Event_EV_DEPLOY, api.State_ACTIVE)
		if r.boots() != 3 {
			r.Errorf("%d boots of the ramdisk", r.boots())
		}
	})
}

// What changes how the machine comes up next has it booted by the next flow.
// The record still says that it was left in the ramdisk.
func TestReuseInAnotherMode(t *testing.T) {
	for name, change := range map[string]func(r *rig){
		"at the BMC": func(r *rig) {
			step, err := node.HardwareStep(&api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_SecureBoot{SecureBoot: true}})
			if err != nil {
				r.Fatal(err)
			}
			r.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: nodeID, Flow: &api.Flow{
				Id: "hardware", NodeId: nodeID, Kind: api.FlowKind_FLOW_HARDWARE, Steps: []*api.Step{step},
			}}}})
			r.idle(time.Minute)
			r.wants(api.State_MANAGEABLE, api.FlowStatus_FLOW_DONE)
		},
		"by a property": func(r *rig) {
			r.c.Must(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{NodeId: nodeID, Fields: []string{"properties"}, Node: &api.Node{Properties: []byte(`{"boot_mode":"bios"}`)}}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			reusing(t, func(r *rig) {
				r.does(api.Event_EV_INSPECT, api.State_MANAGEABLE)
				change(r)
				if b := r.node().GetBoot(); b.GetTarget() != api.BootTarget_BOOT_RAMDISK {
					r.Errorf("boot record %v", b)
				}
				r.does(api.Event_EV_PROVIDE, api.State_AVAILABLE)
				if r.boots() != 2 {
					r.Errorf("%d boots of the ramdisk", r.boots())
				}
			})
		})
	}
}

// A power action that fails leaves the record of the boot: by that the machine
// is switched off later.
func TestFailedPowerActionLeavesTheBoot(t *testing.T) {
	reusing(t, func(r *rig) {
		r.does(api.Event_EV_INSPECT, api.State_MANAGEABLE)
		boot := r.node().GetBoot()
		r.bmc.Inject(fake.Fault{Kind: fake.Die})
		r.create(api.FlowKind_FLOW_POWER, api.PowerAction_POWER_ACTION_OFF, api.Event_EVENT_NONE)
		r.idle(time.Hour)
		r.wants(api.State_MANAGEABLE, api.FlowStatus_FLOW_FAILED)
		if b := r.node().GetBoot(); b.GetTarget() != boot.GetTarget() || b.GetNonce() != boot.GetNonce() {
			r.Errorf("boot record %v, was %v", b, boot)
		}
	})
}

// The owner changes or dies between two flows: the agent turns to the next one,
// which goes on with it, or boots the machine where it comes too late. All peers
// that begin anew have the record only, and find the agent the same way.
func TestReuseByAnotherOwner(t *testing.T) {
	for name, change := range map[string]func(r *rig){
		"given away":  func(*rig) {},
		"dies":        func(r *rig) { r.c.Peer("p1").Kill() },
		"all restart": func(r *rig) { r.c.Peer("p1").Kill(); r.c.Peer("p2").Kill(); r.start("p2") },
	} {
		for _, wait := range []time.Duration{0, time.Minute} {
			t.Run(fmt.Sprint(name, " ", wait), func(t *testing.T) {
				reusing(t, func(r *rig) {
					r.does(api.Event_EV_PROVIDE, api.State_AVAILABLE)
					before := r.node().GetLastToken()
					change(r)
					conductortest.Until(r, 10*time.Minute, "lease of p2", func() bool { return r.c.Store.View().LiveLease("p2") != nil && r.alive("p2") })
					r.assign("p2")
					conductortest.Pass(wait)
					r.begin(api.Event_EV_DEPLOY)
					r.idle(time.Hour)
					r.checkDeploy(before)
					if n := r.boots(); n > 2 || wait > 0 && n != 1 {
						r.Errorf("%d boots of the ramdisk", n)
					}
				})
			})
		}
	}
}

// assign makes a peer the owner, as the leader does.
func (r *rig) assign(peer string) {
	r.Helper()
	conductortest.Until(r, 10*time.Minute, "owner "+peer, func() bool {
		n := r.node()
		if n.GetAssigned() == peer {
			return true
		}
		_, _ = r.c.Apply(&api.Op{Op: &api.Op_Assign{Assign: &api.Assign{Term: r.c.Term(), Nodes: []*api.Assignment{{NodeId: nodeID, Conductor: peer, Epoch: n.GetAssignEpoch() + 1}}}}})
		return false
	})
}
