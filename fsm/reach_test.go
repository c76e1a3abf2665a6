package fsm

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

func reachSet(member, subnet string, reachable bool) *api.Op {
	return &api.Op{Op: &api.Op_ReachSet{ReachSet: &api.ReachSet{Member: member, Subnet: subnet, Reachable: reachable}}}
}

func (f *fixture) reach() (out []string) {
	for _, r := range f.s.View().Reaches() {
		out = append(out, fmt.Sprintf("%s %s %v", r.GetMember(), r.GetSubnet(), r.GetReachable()))
	}
	return out
}

func TestReach(t *testing.T) {
	const a, b = "10.1.2.0/24", "2001:db8::/64"
	f := newFixture(t)
	f.ok(memberSet("p1"), memberSet("p2"), memberSet("p3"))
	f.fails(errs.NotFound, reachSet("p9", a, false))
	for _, bad := range []string{"", "x", "10.1.2.3/24", "10.1.2.0/024", "10.1.2.0"} {
		f.fails(errs.Invalid, reachSet("p1", bad, false))
	}
	wants := func(want ...string) {
		t.Helper()
		if got := f.reach(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("records %v, want %v", got, want)
		}
	}
	f.ok(reachSet("p1", a, true)) // nobody misses it
	wants()
	f.ok(reachSet("p1", a, false))
	f.ok(reachSet("p2", a, true))
	f.ok(reachSet("p2", b, false))
	wants("p1 "+a+" false", "p2 "+a+" true", "p2 "+b+" false")
	f.ok(tick(1000, 1))
	f.ok(reachSet("p1", a, false)) // changes nothing
	if r := f.s.View().Reaches()[0]; r.GetSinceTick() != 0 {
		t.Errorf("said again, it began anew: %v", r)
	}
	f.ok(reachSet("p1", a, true))
	wants("p2 " + b + " false")
	f.ok(reachSet("p1", a, false), reachSet("p3", a, true))
	f.ok(&api.Op{Op: &api.Op_MemberRemove{MemberRemove: &api.MemberRemove{Id: "p1"}}})
	wants("p2 " + b + " false")
}

func TestPowerOnsAreCounted(t *testing.T) {
	f := owned(t)
	fl := newFlow(api.FlowKind_FLOW_VERIFY, 3)
	f.ok(flowCreate(manage, fl))
	tok := f.lock()
	for i := range uint32(3) {
		start := stepStart(tok, fl.GetId(), i, i+1, none)
		start.GetStepStart().Incarnation = fmt.Sprint("inc", i)
		f.ok(start)
		if got := f.flow().GetAgentIncarnation(); got != fmt.Sprint("inc", i) {
			t.Errorf("incarnation %q", got)
		}
		done := stepDone(tok, fl.GetId(), i, i+1, none)
		done.GetStepDone().PowerOns = i % 2
		f.ok(done)
	}
	if n := f.flow().GetPowerOns(); n != 1 {
		t.Errorf("%d power-ons", n)
	}
}

// The only network is not deleted while a machine is to boot from it, though it
// has no address yet.
func TestLastNetworkUnderWork(t *testing.T) {
	f := owned(t)
	f.verify()
	f.ok(networkSet(testNetwork()))
	remove := &api.Op{Op: &api.Op_NetworkDelete{NetworkDelete: &api.NetworkDelete{Name: "prov"}}}
	fl := newFlow(api.FlowKind_FLOW_INSPECT, 1)
	f.ok(flowCreate(api.Event_EV_INSPECT, fl))
	if text := f.fails(errs.Locked, remove).GetMessage(); !strings.Contains(text, "only one that machines boot from, and inspect of node") {
		t.Errorf("refused with %q", text)
	}
	other := testNetwork()
	other.Name, other.Cidr, other.RangeStart, other.RangeEnd, other.Gateway, other.Relays = "other", "10.78.0.0/24", "10.78.0.10", "10.78.0.20", "", nil
	f.ok(networkSet(other))
	f.ok(remove)
}

// done has a node's verb asked for and done.
func (l *laws) done(id string, verb api.Event) {
	fl := newFlow(api.FlowKind_FLOW_VERIFY, 1)
	op := flowCreate(verb, fl)
	op.GetFlowCreate().NodeId = id
	l.apply([]*api.Command{{Meta: user, Ops: []*api.Op{op, acquire(id, "l"+l.s.View().Node(id).GetAssigned()[1:])}}})
	tok := l.s.View().Node(id).GetLastToken()
	ops := []*api.Op{stepStart(tok, fl.GetId(), 0, 1, none), stepDone(tok, fl.GetId(), 0, 1, none), flowEnd(tok, fl.GetId(), api.FlowStatus_FLOW_DONE, done)}
	ops[0].GetStepStart().NodeId, ops[1].GetStepDone().NodeId, ops[2].GetFlowEnd().NodeId = id, id, id
	l.apply([]*api.Command{{Meta: user, Ops: append(ops, release(id, tok))}})
}

// At every index, whatever was proposed, a node in a transient state has an
// unfinished flow and a deadline that is not before that of its step; a held
// one has a flow; the lock of a node is its owner's. That the owner is there
// is the leader's part: package conductor/flow has a test of the same name.
func TestEveryTransientStateHasOwnerAndDeadline(t *testing.T) {
	seen := map[api.State]bool{}
	rapid.Check(t, func(t *rapid.T) {
		l := newLaws(t)
		for i := range 2 {
			for _, verb := range []api.Event{manage, api.Event_EV_PROVIDE}[:rapid.IntRange(0, 2).Draw(t, "life so far")] {
				l.done(nodeID(i), verb)
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "entries") {
			l.step()
			v := l.s.View()
			for n := range v.Nodes() {
				id, f, k := n.GetId(), v.Flow(n.GetId()), v.Lock(n.GetId())
				if k != nil && (n.GetAssigned() == "" || k.GetConductor() != n.GetAssigned()) {
					t.Fatalf("at %d: %v is not the owner's (%q)", v.Index(), k, n.GetAssigned())
				}
				if node.Held(n.GetState()) && !running(f) {
					t.Fatalf("at %d: %s is %v without a flow", v.Index(), id, n.GetState())
				}
				if !node.Transient(n.GetState()) {
					continue
				}
				seen[n.GetState()] = true
				switch {
				case !running(f):
					t.Fatalf("at %d: %s is %v without a flow", v.Index(), id, n.GetState())
				case n.GetStateDeadlineTick() == 0:
					t.Fatalf("at %d: %s is %v without a deadline", v.Index(), id, n.GetState())
				case f.GetStarted() && n.GetStateDeadlineTick() < f.GetStepDeadlineTick():
					t.Fatalf("at %d: %s must leave %v before its step must end", v.Index(), id, n.GetState())
				}
			}
		}
	})
	if len(seen) < 2 {
		t.Errorf("only %v were seen", seen)
	}
}
