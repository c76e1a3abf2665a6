package flow

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/node"
)

// ownerLimit is how long a node in a transient state may be without a live
// owner while there is a peer that could be it: the leader's plan, and a
// commit.
const ownerLimit = 3 * time.Second

// transience checks every state that the cluster goes through.
type transience struct {
	since  time.Duration // since when the node has had no live owner; 0: it has
	states map[api.State]int
	failed string // the first fault
}

func (tr *transience) look(r *rig, v *fsm.View) {
	n, f := v.Node(nodeID), v.Flow(nodeID)
	now := r.c.Clock.Elapsed()
	fail := func(format string, args ...any) {
		if tr.failed == "" {
			tr.failed = fmt.Sprintf("at index %d, %v: ", v.Index(), n.GetState()) + fmt.Sprintf(format, args...)
		}
	}
	if n == nil || !node.Transient(n.GetState()) {
		tr.since = 0
		return
	}
	tr.states[n.GetState()]++
	if f.GetStatus() != api.FlowStatus_FLOW_RUNNING {
		fail("no unfinished flow")
	}
	if n.GetStateDeadlineTick() == 0 || f.GetStarted() && n.GetStateDeadlineTick() < f.GetStepDeadlineTick() {
		fail("the deadline is %d, that of the step %d", n.GetStateDeadlineTick(), f.GetStepDeadlineTick())
	}
	if k := v.Lock(nodeID); k != nil && k.GetConductor() != n.GetAssigned() {
		fail("%s has the lock, the owner is %q", k.GetConductor(), n.GetAssigned())
	}
	candidate := false
	for _, m := range v.Members() {
		candidate = candidate || v.LiveLease(m.GetId()) != nil
	}
	switch {
	case !candidate, n.GetAssigned() != "" && v.LiveLease(n.GetAssigned()) != nil:
		tr.since = 0
	case tr.since == 0:
		tr.since = now
	case now-tr.since > ownerLimit:
		fail("no live owner for %v (%q)", now-tr.since, n.GetAssigned())
	}
}

// A node goes through its life while its owners are killed, cut off, broken
// away from and asked to abort: at every applied index, each transient state
// has an unfinished flow and a deadline, and an owner that is alive as soon as
// one can be.
func TestEveryTransientStateHasOwnerAndDeadline(t *testing.T) {
	states := map[api.State]int{}
	rapid.Check(t, func(rt *rapid.T) {
		events := rapid.SliceOfN(rapid.SampledFrom([]string{"kill", "kill", "break", "cut", "abort", "stop"}), 0, 6).Draw(rt, "events")
		gaps := rapid.SliceOfN(rapid.IntRange(1, 50), len(events), len(events)).Draw(rt, "seconds between")
		tr := &transience{states: states}
		inBubble(t, nil, func(r *rig) {
			r.c.Watch(func(v *fsm.View) { tr.look(r, v) })
			for _, id := range []string{"p1", "p2", "p3"} {
				r.start(id)
				r.restarts(id)
			}
			r.ready("p1")
			r.begin(api.Event_EV_DEPLOY)
			for i, event := range events {
				conductortest.Pass(time.Duration(gaps[i]) * time.Second)
				r.disturb(event)
			}
			r.idle(2 * time.Hour)
			switch r.state() {
			case api.State_ACTIVE, api.State_DEPLOY_FAILED:
				r.begin(api.Event_EV_DELETE)
			case api.State_AVAILABLE:
			default:
				r.Errorf("unexpected end: %s", r.describe())
			}
			r.disturb("kill")
			r.idle(2 * time.Hour)
			r.c.Watch(nil)
			if tr.failed != "" {
				r.Errorf("%s\nafter %v: %s", tr.failed, events, r.describe())
			}
		})
	})
	for _, s := range []api.State{api.State_DEPLOYING, api.State_DEPLOY_WAIT, api.State_CLEANING, api.State_CLEAN_WAIT, api.State_DELETING, api.State_VERIFYING} {
		if states[s] == 0 {
			t.Errorf("no node was ever %v", s)
		}
	}
}

// disturb does something to the node's present holder.
func (r *rig) disturb(event string) {
	holder := r.holder()
	if holder == "" {
		return
	}
	switch event {
	case "kill":
		r.c.Peer(holder).Kill()
	case "break":
		l := r.c.Store.View().Lock(nodeID)
		_, _ = r.c.Apply(&api.Op{Op: &api.Op_LockBreak{LockBreak: &api.LockBreak{NodeId: nodeID, Token: l.GetToken(), Term: r.c.Term(), Cause: "test"}}})
	case "cut":
		r.c.Peer(holder).Cut(true)
		time.AfterFunc(20*time.Second, func() { r.c.Peer(holder).Cut(false) })
	case "abort": // refused where the state does not allow it
		_, _ = r.c.Apply(&api.Op{Op: &api.Op_FlowRequest{FlowRequest: &api.FlowRequest{NodeId: nodeID, Event: api.Event_EV_ABORT}}})
	case "stop":
		r.mu.Lock()
		s := r.stacks[holder]
		delete(r.stacks, holder)
		r.mu.Unlock()
		if s != nil {
			s.stop()
			time.AfterFunc(30*time.Second, func() {
				r.mu.Lock()
				over := r.over
				r.mu.Unlock()
				if !over {
					r.start(holder)
				}
			})
		}
	}
}
