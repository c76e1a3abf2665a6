package flow

import (
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/internal/errs"
)

func (r *rig) reach(peer string, reachable bool) {
	r.Helper()
	r.c.Must(&api.Op{Op: &api.Op_ReachSet{ReachSet: &api.ReachSet{Member: peer, Subnet: "10.1.2.0/24", Reachable: reachable}}})
}

// onSubnet is inBubble with p1 owning an available node whose BMC is on
// 10.1.2.0/24, and p2 beside it.
func onSubnet(t *testing.T, test func(r *rig)) {
	t.Helper()
	inBubble(t, nil, func(r *rig) {
		r.bmc.SetFacts(&api.BmcFacts{SystemUuid: "4a6a2ed2-9d5c-4c6e-8d59-5f0b3f0d0001", BmcAddresses: []string{"10.1.2.3"}})
		r.start("p1")
		r.ready("p1")
		r.start("p2")
		conductortest.Until(r, time.Minute, "lease of p2", func() bool { return r.c.Store.View().LiveLease("p2") != nil })
		test(r)
	})
}

// The owner loses the way to the BMC while the agent writes: the step is done,
// then a peer that reaches the BMC goes on, without a quarantine.
func TestHandOverAtStepBoundary(t *testing.T) {
	onSubnet(t, func(r *rig) {
		r.begin(api.Event_EV_DEPLOY)
		r.waitStep("write_image")
		before := r.node().GetLastToken()
		r.reach("p1", false)
		r.reach("p2", true)
		conductortest.Pass(10 * time.Second)
		if r.holder() != "p1" {
			r.Errorf("the running step went to %q", r.holder())
		}
		conductortest.Until(r, time.Minute, "hand-over", func() bool { return r.node().GetAssigned() == "p2" })
		if q := r.node().GetQuarantine(); q.GetClass() != api.Quarantine_NONE {
			r.Errorf("quarantine %v", q)
		}
		r.idle(10 * time.Minute)
		r.checkDeploy(0)
		if r.node().GetAssigned() != "p2" || r.flow().GetTakeovers() != 1 || r.node().GetLastToken() != before+1 {
			r.Errorf("owner %s, %d takeovers, %d tokens", r.node().GetAssigned(), r.flow().GetTakeovers(), r.node().GetLastToken()-before)
		}
		told := ""
		evs, err := r.stacks["p1"].journal.Read(r.Context(), nodeID)
		for _, ev := range evs {
			told += ev.GetText() + "\n"
		}
		if err != nil || !strings.Contains(told, "this peer does not reach the BMC, and another one does") {
			r.Errorf("the journal does not say why (%v):\n%s", err, told)
		}
	})
}

// The BMC does not answer the owner in the middle of a step: it is let go as
// soon as somebody else is known to reach it, and no flow fails for that.
func TestHandOverOfStuckStep(t *testing.T) {
	onSubnet(t, func(r *rig) {
		r.bmc.Inject(fake.Fault{Kind: fake.Fail, Err: errs.New(errs.Unreachable, "no route")})
		r.create(api.FlowKind_FLOW_POWER, api.PowerAction_POWER_ACTION_ON, api.Event_EVENT_NONE)
		conductortest.Pass(40 * time.Second)
		r.reach("p1", false)
		conductortest.Pass(30 * time.Second)
		if r.holder() != "p1" {
			r.Errorf("nobody is known to reach it, but %q has it", r.holder())
		}
		r.reach("p2", true)
		conductortest.Until(r, 20*time.Second, "hand-over", func() bool { return r.node().GetAssigned() == "p2" })
		r.bmc.Heal()
		r.idle(3 * time.Minute)
		r.wants(api.State_AVAILABLE, api.FlowStatus_FLOW_DONE)
	})
}

// Whoever was to take it is gone again before it did: the old owner goes on.
func TestHandOverToNobody(t *testing.T) {
	onSubnet(t, func(r *rig) {
		r.begin(api.Event_EV_DEPLOY)
		r.waitStep("write_image")
		r.reach("p1", false)
		r.reach("p2", true)
		r.reach("p2", false)
		r.idle(10 * time.Minute)
		r.checkDeploy(0)
		if r.node().GetAssigned() != "p1" || r.flow().GetTakeovers() != 0 {
			r.Errorf("owner %s, %d takeovers", r.node().GetAssigned(), r.flow().GetTakeovers())
		}
	})
}
