package fsm

import (
	"crypto/sha256"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

func renew(lease string, seq uint64, progressed ...uint64) *api.Op {
	return &api.Op{Op: &api.Op_LeaseRenew{LeaseRenew: &api.LeaseRenew{LeaseId: lease, Seq: seq, Progressed: progressed}}}
}

func expire(lease string, seq, term uint64) *api.Op {
	return &api.Op{Op: &api.Op_LeaseExpire{LeaseExpire: &api.LeaseExpire{LeaseId: lease, Seq: seq, Term: term}}}
}

func tombstone(lease, secret string) *api.Op {
	return &api.Op{Op: &api.Op_LeaseTombstone{LeaseTombstone: &api.LeaseTombstone{LeaseId: lease, Secret: []byte(secret)}}}
}

func open(token uint64) *api.Op {
	return &api.Op{Op: &api.Op_IntentOpen{IntentOpen: &api.IntentOpen{NodeId: nodeID(1), Token: token, Kind: "power_on"}}}
}

func closeIntent(token, seq uint64) *api.Op {
	return &api.Op{Op: &api.Op_IntentClose{IntentClose: &api.IntentClose{NodeId: nodeID(1), Token: token, Seq: seq}}}
}

func breakLock(token, term uint64) *api.Op {
	return &api.Op{Op: &api.Op_LockBreak{LockBreak: &api.LockBreak{NodeId: nodeID(1), Token: token, Term: term, Cause: "stalled"}}}
}

func clearQuarantine(class api.Quarantine_Class, fence, term uint64) *api.Op {
	return &api.Op{Op: &api.Op_QuarantineClear{QuarantineClear: &api.QuarantineClear{NodeId: nodeID(1), Class: class, FenceIndex: fence, Term: term}}}
}

func TestLeaseRegister(t *testing.T) {
	f := owned(t)
	f.fails(errs.NotFound, register("l9", "p9", "m1", true))
	f.fails(errs.Exists, register("l1", "p1", "m1", true))
	f.fails(errs.Conflict, register("l3", "p1", "m1", false)) // nobody vouches that the old process is dead
	f.fails(errs.Conflict, register("l3", "p1", "m9", true))  // a clone
	other := register("l3", "p1", "m1", true)
	other.GetLeaseRegister().Lease.Timing = &api.Timing{LeaseMs: 1}
	f.fails(errs.Conflict, other)

	tok := f.lock()
	f.ok(open(tok))
	f.ok(register("l3", "p1", "m1", true))
	v := f.s.View()
	if l := v.Lease("l1"); l.GetState() != api.Lease_FENCED || l.GetFencedCause() != "dead" || l.GetFenceIndex() != f.index {
		t.Errorf("the old lease: %v", l)
	}
	if l := v.LiveLease("p1"); l.GetId() != "l3" || !proto.Equal(l.GetTiming(), testSettings().GetTiming()) {
		t.Errorf("the new lease: %v", l)
	}
	if q := f.node().GetQuarantine(); q.GetClass() != api.Quarantine_LONG || !q.GetTombstone() || q.GetFenceIndex() != f.index {
		t.Errorf("quarantine %v", q)
	}
	for i := range 20 {
		f.ok(register(uid(7, i), "p1", "m1", true))
	}
	kept := 0
	for l := range f.s.View().Leases() {
		if l.GetConductor() == "p1" {
			kept++
		}
	}
	if kept != leasesKept+1 {
		t.Errorf("%d leases of p1 are kept", kept)
	}
}

func TestRenew(t *testing.T) {
	f := owned(t)
	tok := f.lock()
	f.ok(tick(5000, 1))
	f.ok(renew("l1", 4, tok, 12345))
	if l := f.s.View().Lock(nodeID(1)); l.GetProgressTick() != 5000 || l.GetAcquiredTick() != 0 {
		t.Errorf("progress: %v", l)
	}
	if out := f.ok(renew("l1", 2)); out.GetSeq() != 4 {
		t.Errorf("an older seq gave %v", out)
	}
	f.fails(errs.Conflict, expire("l1", 3, 1))
	f.fails(errs.NotLeader, expire("l1", 4, 2))
	f.ok(expire("l1", 4, 1))
	f.fails(errs.Fenced, renew("l1", 5))
	f.fails(errs.Fenced, renew("nobody", 5))
	f.fails(errs.Fenced, acquire(nodeID(1), "l1"))
	if q := f.node().GetQuarantine(); q.GetClass() != api.Quarantine_SHORT || q.GetTombstone() {
		t.Errorf("quarantine %v", q)
	}
}

func TestTombstone(t *testing.T) {
	f := owned(t)
	f.fails(errs.Denied, tombstone("l1", "s")) // no guard
	digest := sha256.Sum256([]byte("s"))
	reg := register("l3", "p1", "m1", true)
	reg.GetLeaseRegister().Lease.GuardDigest = digest[:]
	f.ok(reg)
	tok := f.ok(acquire(nodeID(1), "l3")).GetToken()
	f.fails(errs.Denied, tombstone("l3", "x"))
	f.ok(tombstone("l3", "s"))
	if f.node().GetQuarantine() != nil {
		t.Errorf("quarantine without an open intent: %v", f.node().GetQuarantine())
	}
	f.fails(errs.Fenced, release(nodeID(1), tok))
	f.fails(errs.Fenced, tombstone("l3", "s"))
}

// The takeover of a node whose old holder had an intent open.
func TestTakeover(t *testing.T) {
	f := owned(t)
	fl := newFlow(api.FlowKind_FLOW_VERIFY, 1)
	f.ok(flowCreate(manage, fl))
	old := f.lock()
	seq := f.ok(stepStart(old, fl.GetId(), 0, 1, none), open(old)).GetSeq()
	f.fails(errs.Conflict, release(nodeID(1), old))
	f.fails(errs.Locked, assignTo(nodeID(1), "p2", 2, 1))
	f.ok(expire("l1", 0, 1))
	fence := f.index

	f.fails(errs.NotOwner, acquire(nodeID(1), "l2"))
	f.fails(errs.Conflict, assignTo(nodeID(1), "p2", 3, 1))
	f.fails(errs.NotLeader, assignTo(nodeID(1), "p2", 2, 7))
	f.ok(assignTo(nodeID(1), "p2", 2, 1))
	tok := f.ok(acquire(nodeID(1), "l2")).GetToken()
	if tok <= old {
		t.Fatalf("token %d after %d", tok, old)
	}
	if g := f.flow(); g.GetTakeovers() != 1 || g.GetLastLease() != "l2" || !g.GetStarted() {
		t.Errorf("flow %v", g)
	}
	f.fails(errs.Fenced, stepDone(old, fl.GetId(), 0, 1, none))
	f.fails(errs.Busy, closeIntent(tok, seq)) // the old holder's act may still land
	f.fails(errs.Conflict, open(tok))
	f.fails(errs.NotLeader, clearQuarantine(api.Quarantine_LONG, fence, 9))
	f.fails(errs.Conflict, clearQuarantine(api.Quarantine_SHORT, fence, 1))
	f.fails(errs.Conflict, clearQuarantine(api.Quarantine_LONG, fence-1, 1))
	f.ok(clearQuarantine(api.Quarantine_LONG, fence, 1))
	f.fails(errs.Conflict, closeIntent(tok, seq+1))
	f.ok(closeIntent(tok, seq), open(tok))
	f.ok(closeIntent(tok, seq+1), stepStart(tok, fl.GetId(), 0, 2, none))
	f.ok(stepDone(tok, fl.GetId(), 0, 2, none), flowEnd(tok, fl.GetId(), api.FlowStatus_FLOW_DONE, done), release(nodeID(1), tok))
}

func TestBreak(t *testing.T) {
	f := owned(t)
	tok := f.lock()
	seq := f.ok(open(tok)).GetSeq()
	f.fails(errs.NotLeader, breakLock(tok, 3))
	f.fails(errs.Fenced, breakLock(tok+1, 1))
	f.ok(breakLock(tok, 1))
	f.fails(errs.Fenced, closeIntent(tok, seq))
	f.fails(errs.Fenced, nodeWrite(tok, &api.Node{}, "power_state"))
	f.ok(release(nodeID(1), tok))
	if q := f.node().GetQuarantine(); q.GetClass() != api.Quarantine_LONG || q.GetFenceIndex() != f.index {
		t.Errorf("quarantine %v", q)
	}
	if f.s.View().Intent(nodeID(1)) == nil {
		t.Error("the open intent is not kept for the next holder")
	}
	f.fails(errs.Busy, nodeDelete(nodeID(1)))
}

// What is known of a second holder must not shorten the wait for the first.
func TestQuarantineNeverShrinks(t *testing.T) {
	f := owned(t)
	tok := f.lock()
	f.ok(open(tok))
	f.ok(&api.Op{Op: &api.Op_LeaseFence{LeaseFence: &api.LeaseFence{LeaseId: "l1", Cause: "unresponsive", Term: 1}}})
	f.fails(errs.Invalid, &api.Op{Op: &api.Op_LeaseFence{LeaseFence: &api.LeaseFence{LeaseId: "l2", Cause: "mood", Term: 1}}})
	f.ok(assignTo(nodeID(1), "p2", 2, 1))
	f.ok(acquire(nodeID(1), "l2"))
	f.ok(register("l4", "p2", "m2", true)) // p2's old process is proven dead
	if q := f.node().GetQuarantine(); q.GetClass() != api.Quarantine_LONG || q.GetTombstone() || q.GetFenceIndex() != f.index {
		t.Errorf("quarantine %v at %d", q, f.index)
	}
}

func TestAcquireNeedsDriver(t *testing.T) {
	f := owned(t)
	f.ok(nodePatch(nodeID(1), &api.Node{Driver: "redfish"}, "driver"))
	f.fails(errs.Unsupported, acquire(nodeID(1), "l1"))
}

func TestLeaseRelease(t *testing.T) {
	f := owned(t)
	tok := f.lock()
	op := &api.Op{Op: &api.Op_LeaseRelease{LeaseRelease: &api.LeaseRelease{LeaseId: "l1"}}}
	f.fails(errs.Conflict, op)
	f.fails(errs.WrongState, &api.Op{Op: &api.Op_MemberRemove{MemberRemove: &api.MemberRemove{Id: "p1"}}})
	f.ok(release(nodeID(1), tok), op)
	f.fails(errs.Fenced, op)
	f.ok(&api.Op{Op: &api.Op_MemberRemove{MemberRemove: &api.MemberRemove{Id: "p1"}}})
	f.fails(errs.NotFound, assignTo(nodeID(1), "p1", 2, 1))
}

// Tokens go on rising after a restore from an old snapshot.
func TestRestoreEpoch(t *testing.T) {
	f := owned(t)
	old := f.lock()
	raise := func(e uint64) *api.Op {
		return &api.Op{Op: &api.Op_RestoreEpochRaise{RestoreEpochRaise: &api.RestoreEpochRaise{Epoch: e}}}
	}
	f.ok(raise(1))
	f.fails(errs.Conflict, raise(1))
	f.fails(errs.Conflict, raise(epochMax))
	if f.s.View().LiveLease("p1") != nil || f.s.View().Lock(nodeID(1)) != nil {
		t.Error("a lease or lock survived")
	}
	f.ok(register("l5", "p1", "m1", true))
	if tok := f.ok(acquire(nodeID(1), "l5")).GetToken(); tok != 1<<40|(old+1) {
		t.Errorf("token %d after %d", tok, old)
	}
}
