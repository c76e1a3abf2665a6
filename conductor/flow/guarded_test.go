package flow

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/node"
)

// No plan has a guarded step yet; the rule for them is here all the same: it
// runs where it was started, and is never begun again by somebody else.
func TestGuardedStep(t *testing.T) {
	id := node.StepID{Interface: "test", Name: "guarded"}
	for _, killed := range []bool{false, true} {
		inBubble(t, nil, func(r *rig) {
			var runs atomic.Int32
			executors[id] = func(r *runner, ctx context.Context, _ position) (outcome, error) {
				runs.Add(1)
				_ = clock.Pause(ctx, 10*time.Second)
				return outcome{}, ctx.Err()
			}
			r.start("p1")
			r.enrol("p1")
			r.start("p2")
			conductortest.Until(r, time.Minute, "lease of p2", func() bool { return r.c.Store.View().LiveLease("p2") != nil })
			steps, err := node.Plan(api.FlowKind_FLOW_POWER, api.PowerAction_POWER_ACTION_ON)
			if err != nil {
				r.Fatal(err)
			}
			steps = append(steps, &api.Step{Interface: id.Interface, Name: id.Name, Policy: api.ResumePolicy_RESUME_GUARDED, HoldLimitMs: 60_000})
			r.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: nodeID, Flow: &api.Flow{
				Id: uuid.NewString(), NodeId: nodeID, Kind: api.FlowKind_FLOW_POWER, Steps: steps,
			}}}})
			if killed {
				conductortest.Until(r, time.Minute, "the step", func() bool { return runs.Load() == 1 })
				r.c.Peer("p1").Kill()
			}
			r.idle(5 * time.Minute)
			if killed {
				r.wants(api.State_ENROLL, api.FlowStatus_FLOW_FAILED)
				if !strings.Contains(r.flow().GetError(), "may not be run twice") {
					r.Errorf("%q", r.flow().GetError())
				}
			} else {
				r.wants(api.State_ENROLL, api.FlowStatus_FLOW_DONE)
			}
			if runs.Load() != 1 {
				r.Errorf("it ran %d times", runs.Load())
			}
		})
		delete(executors, id)
	}
}
