package flow

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/node"
)

// reusing is inBubble with p1 and p2 and a node that keeps its agent.
func reusing(t *testing.T, test func(r *rig)) {
	t.Helper()
	inBubble(t, nil, func(r *rig) {
		r.properties = `{"fast_track":true}`
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
		r.c.Must(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{NodeId: nodeID, Fields: []string{"properties"}, Node: &api.Node{Properties: []byte(`{"fast_track":false}`)}}}})
		r.does(api.Event_EV_DEPLOY, api.State_ACTIVE)
		if r.boots() != 3 {
			r.Errorf("%d boots of the ramdisk", r.boots())
		}
	})
}

// The conductor is killed at a commit of a deployment with a reused agent, at
// every third, before it or after it: another one finishes it, with the image
// written once.
func TestReuseKilledAtEachPoint(t *testing.T) {
	for n := 1; ; n += 3 {
		killed := true
		t.Run(fmt.Sprint("commit ", n), func(t *testing.T) {
			reusing(t, func(r *rig) {
				r.does(api.Event_EV_PROVIDE, api.State_AVAILABLE)
				before := r.node().GetLastToken()
				r.killAt("p1", point{n: n, after: n%2 == 0})
				r.begin(api.Event_EV_DEPLOY)
				r.idle(time.Hour)
				r.checkDeploy(before)
				killed = !r.alive("p1")
			})
		})
		if !killed {
			if n < 20 {
				t.Errorf("only %d commits", n)
			}
			return
		}
	}
}
