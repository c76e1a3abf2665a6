package flow

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

func undeploy() *api.Op {
	return &api.Op{Op: &api.Op_FlowRequest{FlowRequest: &api.FlowRequest{NodeId: nodeID, Event: api.Event_EV_DELETE}}}
}

// moment is when an undeploy is asked for.
type moment struct {
	cursor int  // the step of the deploy
	fails  bool // the step fails, and the end of the flow is on its way to the log
	ends   bool // the step's result is on its way to the log; else it is under way
	kills  bool // the conductor dies then
}

// An undeploy is refused or done, whenever in a deploy it is asked for, and
// whether or not the conductor dies right then.
func TestUndeployIsNeverLost(t *testing.T) {
	plan, err := node.Plan(api.FlowKind_FLOW_DEPLOY, api.PowerAction_POWER_ACTION_NONE)
	if err != nil {
		t.Fatal(err)
	}
	for cursor, step := range plan {
		moments := map[string]moment{"ends": {ends: true}, "ends, killed": {ends: true, kills: true}}
		if step.GetWaits() {
			moments["under way"], moments["under way, killed"] = moment{}, moment{kills: true}
		}
		if node.IDOf(step) == node.StepWriteImage {
			moments["fails"], moments["fails, killed"] = moment{fails: true}, moment{fails: true, kills: true}
		}
		for name, at := range moments {
			at.cursor = cursor
			t.Run(fmt.Sprintf("%d %s/%s", cursor, node.IDOf(step), name), func(t *testing.T) {
				undeployAt(t, at, step.GetWaits())
			})
		}
	}
}

// undeployAt asks for an undeploy at a moment at which the lifecycle takes it or
// not.
func undeployAt(t *testing.T, at moment, accepts bool) {
	broken := false // guarded by once.mu
	var once struct {
		sync.Mutex
		asked bool
		err   error
	}
	inBubble(t, func(c *conductortest.MachineConfig) {
		c.Script = func(cmd *api.AgentCommand) *api.CommandStatus {
			once.Lock()
			defer once.Unlock()
			if cmd.GetName() == agentproto.CmdWriteImage && broken {
				return &api.CommandStatus{State: api.CommandStatus_FAILED, Error: "no space"}
			}
			return nil
		}
	}, func(r *rig) {
		r.properties = bootsAnew
		r.start("p1")
		r.ready("p1")
		r.start("p2")
		conductortest.Until(r, time.Minute, "lease of p2", func() bool { return r.c.Store.View().LiveLease("p2") != nil })
		ask := func() (first bool) {
			once.Lock()
			defer once.Unlock()
			if first = !once.asked; first {
				once.asked = true
				_, once.err = r.c.Apply(undeploy())
			}
			return first
		}
		once.Lock()
		broken = at.fails
		once.Unlock()
		r.c.Peer("p1").Decide(func(cmd *api.Command) (fate conductortest.Fate) {
			d := lastDone(cmd)
			if at.ends && d != nil && int(d.GetCursor()) == at.cursor || at.fails && slices.ContainsFunc(cmd.GetOps(), func(op *api.Op) bool { return op.GetFlowEnd() != nil }) {
				fate.Kill = ask() && at.kills
			}
			return fate
		})
		r.begin(api.Event_EV_DEPLOY)
		if !at.ends && !at.fails {
			conductortest.Until(r, 10*time.Minute, "the step", func() bool { return r.flow().GetStarted() && int(r.flow().GetCursor()) == at.cursor })
			ask()
			if at.kills {
				r.c.Peer("p1").Kill()
			}
		}
		r.idle(30 * time.Minute)
		switch {
		case !once.asked:
			r.Fatalf("it was not asked for: %s", r.describe())
		case !accepts:
			if !errors.Is(once.err, errs.WrongState) {
				r.Errorf("want a refusal, not %v", once.err)
			}
			r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
			return
		case once.err != nil:
			r.Errorf("it was refused: %v", once.err)
		}
		r.wants(api.State_AVAILABLE, api.FlowStatus_FLOW_DONE)
		if k := r.flow().GetKind(); k != api.FlowKind_FLOW_CLEAN || !strings.Contains(r.past(), "teardown done") {
			r.Errorf("no teardown and clean: %s", r.describe())
		}
		if e := r.node().GetEvidence(); e != nil {
			r.Errorf("there is evidence of a system that is gone: %v", e)
		}
	})
}

// During a reboot an undeploy is refused, and the reboot is done; after it the
// evidence of the system goes with the system.
func TestUndeployDuringReboot(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		r.begin(api.Event_EV_DEPLOY)
		r.idle(10 * time.Minute)
		r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
		if r.node().GetEvidence() == nil {
			r.Error("no evidence of the deployed system")
		}
		var mu sync.Mutex
		var answers []error
		r.c.Peer("p1").Decide(func(cmd *api.Command) (fate conductortest.Fate) {
			if r.flow().GetKind() == api.FlowKind_FLOW_POWER && ofWork(cmd) {
				_, err := r.c.Apply(undeploy())
				mu.Lock()
				defer mu.Unlock()
				answers = append(answers, err)
			}
			return fate
		})
		r.create(api.FlowKind_FLOW_POWER, api.PowerAction_POWER_ACTION_REBOOT, api.Event_EVENT_NONE)
		r.idle(10 * time.Minute)
		r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
		if p := r.bmc.Power(); p != api.PowerState_POWER_ON {
			r.Errorf("the machine is %v", p)
		}
		mu.Lock()
		if len(answers) < 4 || slices.ContainsFunc(answers, func(err error) bool { return !errors.Is(err, errs.Locked) }) {
			r.Errorf("undeploy during a reboot: %v", answers)
		}
		mu.Unlock()
		r.begin(api.Event_EV_DELETE)
		r.idle(10 * time.Minute)
		r.wants(api.State_AVAILABLE, api.FlowStatus_FLOW_DONE)
		if e := r.node().GetEvidence(); e != nil {
			r.Errorf("there is evidence of a system that is gone: %v", e)
		}
	})
}
