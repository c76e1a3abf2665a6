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

// powerOn runs a power-on with faults and gives how long it took. The node
// must be at rest afterwards, without lock or intent.
func (r *rig) powerOn(faults ...fake.Fault) time.Duration {
	r.Helper()
	r.bmc.Inject(faults...)
	begin := time.Now()
	r.create(api.FlowKind_FLOW_POWER, api.PowerAction_POWER_ACTION_ON, api.Event_EVENT_NONE)
	r.idle(20 * time.Minute)
	r.bmc.Heal()
	if in := r.c.Store.View().Intent(nodeID); in != nil {
		r.Errorf("an intent is open: %v", in)
	}
	return time.Since(begin)
}

// What a BMC may do to one change, and what becomes of it.
func TestMutate(t *testing.T) {
	set := func(f fake.Fault) fake.Fault { f.Verb = fake.SetPower; return f }
	for _, test := range []struct {
		name    string
		faults  []fake.Fault
		on      bool   // before
		says    string // in the flow's error, "" for success
		changes int    // requests that the BMC took
		least   time.Duration
		most    time.Duration
	}{
		{name: "works", changes: 1, most: 5 * time.Second},
		{name: "seen first: it is so already", on: true, changes: 0, most: 5 * time.Second},
		{name: "slow", faults: []fake.Fault{set(fake.Fault{Kind: fake.Slow, Delay: 20 * time.Second})}, changes: 1, least: 20 * time.Second, most: 30 * time.Second},
		{name: "done but not answered", faults: []fake.Fault{set(fake.Fault{Kind: fake.DieAfter, Times: 1})}, changes: 1, most: 90 * time.Second},
		{name: "neither done nor answered", faults: []fake.Fault{set(fake.Fault{Kind: fake.Die, Times: 1})}, changes: 1, least: 70 * time.Second, most: 2 * time.Minute},
		{name: "done but an error", faults: []fake.Fault{set(fake.Fault{Kind: fake.FailAfter, Times: 1, Err: errs.New(errs.Internal, "boom")})}, changes: 1, most: 20 * time.Second},
		{name: "done but rubbish", faults: []fake.Fault{set(fake.Fault{Kind: fake.FailAfter, Times: 1, Err: errs.New(errs.Invalid, "rubbish")})}, changes: 1, most: 20 * time.Second},
		{name: "busy twice", faults: []fake.Fault{set(fake.Fault{Kind: fake.Fail, Times: 2, Err: errs.New(errs.Busy, "busy")})}, changes: 1, most: 40 * time.Second},
		{name: "unreachable twice", faults: []fake.Fault{set(fake.Fault{Kind: fake.Fail, Times: 2, Err: errs.New(errs.Unreachable, "no route")})}, changes: 1, most: 10 * time.Second},
		{name: "password refused once", faults: []fake.Fault{set(fake.Fault{Kind: fake.Deny, Times: 1})}, changes: 1, most: 10 * time.Second},
		{name: "password refused", faults: []fake.Fault{{Kind: fake.Deny}}, says: "refuses the password", most: 5 * time.Second},
		{name: "change refused, reading allowed", faults: []fake.Fault{set(fake.Fault{Kind: fake.Deny})}, says: "refuses the password", most: 5 * time.Second},
		{name: "cannot do it", faults: []fake.Fault{set(fake.Fault{Kind: fake.Fail, Err: errs.New(errs.Unsupported, "no such action")})}, says: "no such action", most: 5 * time.Second},
		{name: "its own fault", faults: []fake.Fault{set(fake.Fault{Kind: fake.Fail, Err: errs.New(errs.Internal, "boom")})}, says: "boom", least: 10 * time.Second, most: 20 * time.Second},
		{name: "accepts and does nothing", faults: []fake.Fault{set(fake.Fault{Kind: fake.Lie})}, says: "accepted power_on 2 times", changes: 2, most: 3 * time.Minute},
		{name: "silent for ever", faults: []fake.Fault{{Kind: fake.Die}}, says: "not done in 2m45s", most: 4 * time.Minute},
		{name: "reads fail for a while", faults: []fake.Fault{{Kind: fake.Fail, Verb: fake.PowerState, Times: 5, Err: errs.New(errs.Timeout, "no answer")}}, changes: 1, most: time.Minute},
		{name: "reads lie after the change", faults: []fake.Fault{{Kind: fake.Lie, Verb: fake.PowerState, Times: 1}}, changes: 0, most: 5 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.start("p1")
				r.enrol("p1")
				if test.on {
					r.bmc.SetPower(api.PowerState_POWER_ON)
				}
				took := r.powerOn(test.faults...)
				if took < test.least || took > test.most {
					r.Errorf("took %v, want %v to %v", took, test.least, test.most)
				}
				if n := r.bmc.Changes(); n != test.changes {
					r.Errorf("%d changes, want %d", n, test.changes)
				}
				if test.says == "" {
					r.wants(api.State_ENROLL, api.FlowStatus_FLOW_DONE)
				} else if r.wants(api.State_ENROLL, api.FlowStatus_FLOW_FAILED); !strings.Contains(r.flow().GetError(), test.says) {
					r.Errorf("the error is %q, want %q", r.flow().GetError(), test.says)
				}
				if test.on && r.node().GetIntentSeq() != 0 {
					r.Error("an intent was opened for nothing")
				}
				for _, h := range r.c.Store.View().History(nodeID) {
					if strings.Contains(h.GetText(), "broken") {
						r.Errorf("the lock had to be broken: %s", h.GetText())
					}
				}
			})
		})
	}
}

// A boot device that cannot be read is believed once it was accepted.
func TestBootDeviceThatCannotBeRead(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.bmc.Inject(fake.Fault{Kind: fake.Fail, Verb: fake.BootDevice, Err: errs.New(errs.Unsupported, "cannot tell")})
		r.ready("p1")
	})
}

// The answer of the commit that closes an intent is lost. The repeated commit
// is refused, which says nothing about the node.
func TestLostAnswerOfIntentClose(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.enrol("p1")
		lost := 0
		r.c.Peer("p1").Decide(func(cmd *api.Command) conductortest.Fate {
			if len(cmd.GetOps()) == 1 && cmd.GetOps()[0].GetIntentClose() != nil {
				lost++
				return conductortest.Fate{Lose: true}
			}
			return conductortest.Fate{}
		})
		r.powerOn(fake.Fault{Kind: fake.Die, Verb: fake.SetPower, Times: 1})
		r.wants(api.State_ENROLL, api.FlowStatus_FLOW_DONE)
		if lost == 0 {
			r.Error("no answer was lost")
		}
	})
}

// The first try of an announcement is committed long after the second: nobody
// waits for that intent, but the flow's end closes it.
func TestLateIntentOpen(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.enrol("p1")
		late := false
		r.c.Peer("p1").Decide(func(cmd *api.Command) conductortest.Fate {
			if cmd.GetOps()[0].GetFlowEnd() != nil && !late {
				late = true
				r.c.Must(&api.Op{Op: &api.Op_IntentOpen{IntentOpen: &api.IntentOpen{NodeId: nodeID, Token: r.node().GetLastToken(), Kind: "power_on"}}})
			}
			return conductortest.Fate{}
		})
		r.powerOn()
		r.wants(api.State_ENROLL, api.FlowStatus_FLOW_DONE)
		if !late {
			r.Error("the flow never ended")
		}
	})
}

// A conductor dies with an open intent and the flow is stopped before the next
// one comes: it must close the intent, after the quarantine, and end the flow.
func TestStoppedAfterTakeoverWithIntent(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.properties = bootsAnew
		r.start("p1")
		r.ready("p1")
		r.start("p2")
		conductortest.Until(r, time.Minute, "lease of p2", func() bool { return r.c.Store.View().LiveLease("p2") != nil })
		r.killAt("p1", point{change: true, n: 2, after: true}) // power on
		r.begin(api.Event_EV_DEPLOY)
		conductortest.Until(r, time.Minute, "kill", func() bool { return !r.alive("p1") })
		if r.c.Store.View().Intent(nodeID) == nil {
			r.Fatal("no intent is open")
		}
		r.c.Must(&api.Op{Op: &api.Op_FlowRequest{FlowRequest: &api.FlowRequest{NodeId: nodeID, Event: api.Event_EV_FAIL}}})
		r.idle(5 * time.Minute)
		r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
		if b := r.node().GetBoot(); b.GetTarget() != api.BootTarget_BOOT_NOTHING || b.GetNonce() != "" {
			r.Errorf("the machine may still boot the ramdisk: %v", b)
		}
	})
}

// The gate closes while the BMC keeps a call waiting, and opens again: the
// same lease goes on with its own lock, after Q.
func TestGateClosesDuringCall(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.enrol("p1")
		lease := r.c.Store.View().LiveLease("p1").GetId()
		r.bmc.Inject(fake.Fault{Kind: fake.Slow, Verb: fake.SetPower, Delay: 50 * time.Second, Times: 1})
		r.create(api.FlowKind_FLOW_POWER, api.PowerAction_POWER_ACTION_ON, api.Event_EVENT_NONE)
		conductortest.Until(r, time.Minute, "intent", func() bool { return r.c.Store.View().Intent(nodeID) != nil })
		r.c.Peer("p1").Cut(true)
		conductortest.Pass(10 * time.Second)
		if r.bmc.Power() == api.PowerState_POWER_ON {
			r.Error("the call went on after the gate had closed")
		}
		r.c.Peer("p1").Cut(false)
		r.idle(5 * time.Minute)
		r.wants(api.State_ENROLL, api.FlowStatus_FLOW_DONE)
		if l := r.c.Store.View().LiveLease("p1").GetId(); l != lease || r.flow().GetTakeovers() != 0 {
			r.Errorf("lease %s, was %s; %d takeovers", l, lease, r.flow().GetTakeovers())
		}
		calls := r.bmc.Calls()
		var at []time.Time
		for _, c := range calls {
			if c.Verb == fake.SetPower {
				at = append(at, c.Received)
			}
		}
		// The first call was cut by the gate 8 s after it began at most.
		if len(at) != 2 || at[1].Sub(at[0]) < 15*time.Second {
			r.Errorf("calls at %v", at)
		}
	})
}
