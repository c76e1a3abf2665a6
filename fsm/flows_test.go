package fsm

import (
	"fmt"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// owned is a fixture with a manageable-to-be node that member p1 owns under
// lease l1, and member p2 with lease l2.
func owned(t testing.TB) *fixture {
	f := newFixture(t)
	f.ok(memberSet("p1"), memberSet("p2"))
	f.ok(register("l1", "p1", "m1", true))
	f.ok(register("l2", "p2", "m2", true))
	n := nodeCreate(nodeID(1), "a")
	n.GetNodeCreate().Node.Assigned = "p1"
	f.ok(n, portCreate(uid(2, 1), nodeID(1), mac(1)))
	return f
}

func (f *fixture) node() *api.Node { return f.s.View().Node(nodeID(1)) }
func (f *fixture) flow() *api.Flow { return f.s.View().Flow(nodeID(1)) }

// lock takes the lock of a node whose BMC is verified from then on.
func (f *fixture) lock() uint64 {
	f.t.Helper()
	tok := f.ok(acquire(nodeID(1), "l1")).GetToken()
	if !node.Verified(f.node()) {
		f.ok(nodeWrite(tok, &api.Node{Bmc: &api.BmcFacts{BmcKey: "b 623", DriverRev: f.node().GetDriverRev()}}, "bmc"))
	}
	return tok
}

var flowNumber int

func newFlow(kind api.FlowKind, steps int) *api.Flow {
	flowNumber++
	f := &api.Flow{Id: fmt.Sprintf("f%d", flowNumber), Kind: kind}
	for i := range steps {
		f.Steps = append(f.Steps, &api.Step{
			Interface: "power", Name: fmt.Sprint("s", i), Policy: api.ResumePolicy_RESUME_IDEMPOTENT,
			HoldLimitMs: 60_000, StallLimitMs: 5_000, Starts: 9, Result: []byte("forged"),
		})
	}
	return f
}

func flowCreate(ev api.Event, flow *api.Flow) *api.Op {
	return &api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: nodeID(1), Event: ev, Flow: flow}}}
}

func stepStart(token uint64, flow string, cursor, attempt uint32, ev api.Event) *api.Op {
	return &api.Op{Op: &api.Op_StepStart{StepStart: &api.StepStart{
		NodeId: nodeID(1), Token: token, FlowId: flow, Cursor: cursor, Attempt: attempt, CmdId: fmt.Sprint(cursor, "-", attempt), Event: ev,
	}}}
}

func stepDone(token uint64, flow string, cursor, attempt uint32, ev api.Event) *api.Op {
	return &api.Op{Op: &api.Op_StepDone{StepDone: &api.StepDone{
		NodeId: nodeID(1), Token: token, FlowId: flow, Cursor: cursor, Attempt: attempt, Event: ev, Result: []byte(`{"ok":true}`),
	}}}
}

func flowEnd(token uint64, flow string, status api.FlowStatus, ev api.Event) *api.Op {
	return &api.Op{Op: &api.Op_FlowEnd{FlowEnd: &api.FlowEnd{NodeId: nodeID(1), Token: token, FlowId: flow, Status: status, Event: ev}}}
}

func nodeWrite(token uint64, n *api.Node, fields ...string) *api.Op {
	return &api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: nodeID(1), Token: token, Node: n, Fields: fields}}}
}

const (
	none   = api.Event_EVENT_NONE
	manage = api.Event_EV_MANAGE
	done   = api.Event_EV_DONE
)

// verify brings the node to manageable.
func (f *fixture) verify() {
	f.t.Helper()
	fl := newFlow(api.FlowKind_FLOW_VERIFY, 1)
	f.ok(flowCreate(manage, fl))
	tok := f.lock()
	f.ok(stepStart(tok, fl.GetId(), 0, 1, none))
	f.ok(stepDone(tok, fl.GetId(), 0, 1, none), flowEnd(tok, fl.GetId(), api.FlowStatus_FLOW_DONE, done), release(nodeID(1), tok))
	if s := f.node().GetState(); s != api.State_MANAGEABLE {
		f.t.Fatalf("state after verify: %v", s)
	}
}

func TestFlowLife(t *testing.T) {
	f := owned(t)
	f.ok(tick(1000, 1))
	fl := newFlow(api.FlowKind_FLOW_VERIFY, 2)
	f.ok(flowCreate(manage, fl))
	n := f.node()
	if n.GetState() != api.State_VERIFYING || n.GetTargetState() != api.State_MANAGEABLE || n.GetStateDeadlineTick() <= 1000 {
		t.Fatalf("after the verb: %v", n)
	}
	if s := f.flow().GetSteps()[0]; s.GetStarts() != 0 || s.GetResult() != nil {
		t.Errorf("a new flow has forged fields: %v", s)
	}
	f.fails(errs.Locked, flowCreate(none, newFlow(api.FlowKind_FLOW_POWER, 1)))
	f.fails(errs.Locked, nodePatch(nodeID(1), &api.Node{Driver: "x"}, "driver"))
	f.ok(nodePatch(nodeID(1), &api.Node{Description: "x", Name: "b"}, "description", "name"))
	f.fails(errs.Locked, nodeDelete(nodeID(1)))

	tok := f.lock()
	f.fails(errs.Locked, acquire(nodeID(1), "l1"))
	f.fails(errs.Conflict, stepStart(tok, fl.GetId(), 0, 2, none))
	f.fails(errs.Conflict, stepStart(tok, fl.GetId(), 1, 1, none))
	f.fails(errs.Conflict, stepStart(tok, "other", 0, 1, none))
	f.fails(errs.Fenced, stepStart(tok+1, fl.GetId(), 0, 1, none))
	f.fails(errs.Conflict, stepDone(tok, fl.GetId(), 0, 0, none))
	f.ok(stepStart(tok, fl.GetId(), 0, 1, none))
	if l := f.s.View().Lock(nodeID(1)); l.GetHoldLimitMs() != 60_000 || l.GetStallLimitMs() != 5_000 {
		t.Errorf("the lock has other limits than the step: %v", l)
	}
	if got := f.flow().GetStepDeadlineTick(); got != 61_000 {
		t.Errorf("step deadline %d", got)
	}
	f.fails(errs.Conflict, flowEnd(tok, fl.GetId(), api.FlowStatus_FLOW_DONE, done))
	f.fails(errs.Conflict, nodeWriteAt(tok, fl.GetId(), 1, 1))
	f.ok(nodeWriteAt(tok, fl.GetId(), 0, 1), stepDone(tok, fl.GetId(), 0, 1, none), stepStart(tok, fl.GetId(), 1, 2, none))
	f.fails(errs.Conflict, stepDone(tok, fl.GetId(), 0, 1, none))
	f.ok(&api.Op{Op: &api.Op_FlowRewind{FlowRewind: &api.FlowRewind{NodeId: nodeID(1), Token: tok, FlowId: fl.GetId(), Cursor: 1, Attempt: 2, To: 0, Reason: "again"}}})
	if g := f.flow(); g.GetCursor() != 0 || g.GetStarted() || g.GetRewinds() != 1 || g.GetSteps()[0].GetResult() != nil {
		t.Errorf("after the rewind: %v", g)
	}
	f.ok(stepStart(tok, fl.GetId(), 0, 3, none))
	end := flowEnd(tok, fl.GetId(), api.FlowStatus_FLOW_FAILED, api.Event_EV_FAIL)
	end.GetFlowEnd().Error = "no answer"
	f.ok(end, release(nodeID(1), tok))
	n = f.node()
	if n.GetState() != api.State_ENROLL || n.GetLastError() != "no answer" || n.GetStateDeadlineTick() != 0 || n.GetTargetState() != 0 {
		t.Errorf("after the failure: %v", n)
	}
	if f.s.View().Lock(nodeID(1)) != nil {
		t.Error("the lock is still there")
	}
	f.verify()
	if e := f.node().GetLastError(); e != "" {
		t.Errorf("last error outlived a verb: %q", e)
	}
}

func nodeWriteAt(token uint64, flow string, cursor, attempt uint32) *api.Op {
	op := nodeWrite(token, &api.Node{PowerState: api.PowerState_POWER_ON}, "power_state")
	op.GetNodeWrite().FlowId, op.GetNodeWrite().Cursor, op.GetNodeWrite().Attempt = flow, cursor, attempt
	return op
}

func TestVerbWithoutFlow(t *testing.T) {
	f := owned(t)
	f.fails(errs.Invalid, flowCreate(manage, nil)) // verifying is work
	f.fails(errs.Invalid, flowCreate(none, nil))
	f.fails(errs.Invalid, flowCreate(done, newFlow(api.FlowKind_FLOW_VERIFY, 1)))
	f.fails(errs.WrongState, flowCreate(api.Event_EV_DEPLOY, newFlow(api.FlowKind_FLOW_DEPLOY, 1)))
	f.verify()
	f.clean()
	f.ok(flowCreate(manage, nil))
	if s := f.node().GetState(); s != api.State_MANAGEABLE {
		t.Errorf("state %v", s)
	}
}

// clean brings a manageable node to available, with a wait and a rewind.
func (f *fixture) clean() {
	f.t.Helper()
	fl := newFlow(api.FlowKind_FLOW_CLEAN, 2)
	f.ok(flowCreate(api.Event_EV_PROVIDE, fl))
	tok := f.lock()
	f.ok(stepStart(tok, fl.GetId(), 0, 1, none))
	f.ok(stepDone(tok, fl.GetId(), 0, 1, none), stepStart(tok, fl.GetId(), 1, 2, api.Event_EV_WAIT))
	if l := f.s.View().Lock(nodeID(1)); f.node().GetState() != api.State_CLEAN_WAIT || l.GetClass() != "waiting" {
		f.t.Fatalf("waiting: %v %v", f.node().GetState(), l)
	}
	f.ok(stepStart(tok, fl.GetId(), 1, 3, api.Event_EV_WAIT)) // started again where it was
	f.ok(&api.Op{Op: &api.Op_FlowRewind{FlowRewind: &api.FlowRewind{NodeId: nodeID(1), Token: tok, FlowId: fl.GetId(), Cursor: 1, Attempt: 3, To: 0}}})
	if l := f.s.View().Lock(nodeID(1)); f.node().GetState() != api.State_CLEANING || l.GetClass() != "work" {
		f.t.Fatalf("rewound: %v %v", f.node().GetState(), l)
	}
	f.ok(stepStart(tok, fl.GetId(), 0, 4, none))
	f.ok(stepDone(tok, fl.GetId(), 0, 4, none), stepStart(tok, fl.GetId(), 1, 5, api.Event_EV_WAIT))
	f.ok(stepDone(tok, fl.GetId(), 1, 5, api.Event_EV_RESUME), flowEnd(tok, fl.GetId(), api.FlowStatus_FLOW_DONE, done), release(nodeID(1), tok))
	if n := f.node(); n.GetState() != api.State_AVAILABLE {
		f.t.Fatalf("after clean: %v", n.GetState())
	}
}

func TestTeardownIsFollowedByClean(t *testing.T) {
	f := owned(t)
	f.verify()
	f.clean()
	dep := newFlow(api.FlowKind_FLOW_DEPLOY, 1)
	f.ok(flowCreate(api.Event_EV_DEPLOY, dep))
	tok := f.lock()
	f.ok(stepStart(tok, dep.GetId(), 0, 1, none))
	f.fails(errs.Invalid, stepDone(tok, dep.GetId(), 0, 1, none), flowEnd(tok, dep.GetId(), api.FlowStatus_FLOW_DONE, none))
	f.ok(stepDone(tok, dep.GetId(), 0, 1, none), flowEnd(tok, dep.GetId(), api.FlowStatus_FLOW_DONE, done), release(nodeID(1), tok))
	down := newFlow(api.FlowKind_FLOW_TEARDOWN, 1)
	f.ok(flowCreate(api.Event_EV_DELETE, down))
	tok = f.lock()
	f.ok(stepStart(tok, down.GetId(), 0, 1, none))
	end := flowEnd(tok, down.GetId(), api.FlowStatus_FLOW_DONE, api.Event_EV_CLEAN)
	end.GetFlowEnd().Next = newFlow(api.FlowKind_FLOW_CLEAN, 1)
	f.ok(stepDone(tok, down.GetId(), 0, 1, none), end, release(nodeID(1), tok))
	g := f.flow()
	if f.node().GetState() != api.State_CLEANING || g.GetKind() != api.FlowKind_FLOW_CLEAN || g.GetStatus() != api.FlowStatus_FLOW_RUNNING {
		t.Errorf("after teardown: %v %v", f.node().GetState(), g)
	}
	if g.GetMeta().GetPrincipal() != user.GetPrincipal() {
		t.Errorf("the clean was asked for by %v", g.GetMeta())
	}
	running := 0
	for range f.s.View().RunningFlows() {
		running++
	}
	if running != 1 {
		t.Errorf("%d running flows", running)
	}
}

func TestRequest(t *testing.T) {
	f := owned(t)
	request := func(ev api.Event) *api.Op {
		return &api.Op{Op: &api.Op_FlowRequest{FlowRequest: &api.FlowRequest{NodeId: nodeID(1), Event: ev}}}
	}
	f.fails(errs.WrongState, request(api.Event_EV_ABORT))
	f.verify()
	fl := newFlow(api.FlowKind_FLOW_CLEAN, 1)
	f.ok(flowCreate(api.Event_EV_PROVIDE, fl))
	f.fails(errs.WrongState, request(api.Event_EV_ABORT)) // cleaning, not waiting
	tok := f.lock()
	f.ok(stepStart(tok, fl.GetId(), 0, 1, api.Event_EV_WAIT))
	f.ok(request(api.Event_EV_ABORT))
	if f.flow().GetRequest() != api.Event_EV_ABORT {
		t.Error("the request is not in the flow")
	}
	f.ok(request(api.Event_EV_FAIL))
	f.ok(flowEnd(tok, fl.GetId(), api.FlowStatus_FLOW_ABORTED, api.Event_EV_ABORT), release(nodeID(1), tok))
	if f.node().GetState() != api.State_CLEAN_FAILED {
		t.Errorf("aborted: %v", f.node().GetState())
	}
}

func TestGuardedStepRunsOnce(t *testing.T) {
	f := owned(t)
	fl := newFlow(api.FlowKind_FLOW_VERIFY, 2)
	fl.Steps[0].Policy = api.ResumePolicy_RESUME_GUARDED
	f.ok(flowCreate(manage, fl))
	tok := f.lock()
	f.ok(stepStart(tok, fl.GetId(), 0, 1, none))
	f.fails(errs.WrongState, stepStart(tok, fl.GetId(), 0, 2, none))
	f.ok(stepDone(tok, fl.GetId(), 0, 1, none))
	f.fails(errs.WrongState, &api.Op{Op: &api.Op_FlowRewind{FlowRewind: &api.FlowRewind{NodeId: nodeID(1), Token: tok, FlowId: fl.GetId(), Cursor: 1, Attempt: 1, To: 0}}})
}

func TestAgentEnrol(t *testing.T) {
	f := owned(t)
	f.ok(flowCreate(manage, newFlow(api.FlowKind_FLOW_VERIFY, 1)))
	tok := f.lock()
	enrol := func(nonce string, key byte, address string) *api.Op {
		return &api.Op{Op: &api.Op_AgentEnrol{AgentEnrol: &api.AgentEnrol{NodeId: nodeID(1), Session: &api.AgentSession{
			Nonce: nonce, KeyDigest: append(make([]byte, 31), key), Address: address,
		}}}}
	}
	f.fails(errs.Denied, enrol("n1", 1, "a"))
	f.ok(tick(500, 1))
	f.ok(nodeWrite(tok, &api.Node{Boot: &api.Boot{Target: api.BootTarget_BOOT_RAMDISK, Nonce: "n1", MintedTick: 99}}, "boot"))
	if b := f.node().GetBoot(); b.GetMintedTick() != 500 {
		t.Errorf("minted at %d", b.GetMintedTick())
	}
	f.fails(errs.Denied, enrol("", 1, "a"))
	f.fails(errs.Denied, enrol("n2", 1, "a"))
	f.ok(enrol("n1", 1, "a"))
	f.ok(enrol("n1", 1, "b"))
	if fail := f.fails(errs.Conflict, enrol("n1", 2, "c")); fail.GetSubject() != nodeID(1) {
		t.Errorf("subject %q", fail.GetSubject())
	}
	if a := f.node().GetAgent(); a.GetAddress() != "b" {
		t.Errorf("agent %v", a)
	}
	f.ok(nodeWrite(tok, &api.Node{Boot: &api.Boot{Target: api.BootTarget_BOOT_RAMDISK, Nonce: "n3"}}, "boot"))
	if f.node().GetAgent() != nil {
		t.Error("the agent outlived its boot")
	}
	f.fails(errs.Invalid, nodeWrite(tok, &api.Node{}, "driver"))
	f.fails(errs.Fenced, nodeWrite(tok-1, &api.Node{}, "power_state"))
}

func TestObserve(t *testing.T) {
	f := owned(t)
	observe := func(epoch uint64, fields ...string) *api.Op {
		return &api.Op{Op: &api.Op_NodeObserve{NodeObserve: &api.NodeObserve{
			NodeId: nodeID(1), AssignEpoch: epoch, Fields: fields, Node: &api.Node{PowerState: api.PowerState_POWER_ON},
		}}}
	}
	f.ok(observe(1, "power_state"))
	f.fails(errs.Conflict, observe(2, "power_state"))
	f.fails(errs.Invalid, observe(1, "last_error"))
	// What was read with other driver_info is not of this node's BMC.
	f.ok(nodePatch(nodeID(1), &api.Node{DriverInfo: []byte(`{"x":1}`)}, "driver_info"))
	read := observe(1, "power_state")
	read.GetNodeObserve().DriverRev = new(f.node().GetDriverRev())
	f.ok(read)
	f.ok(nodePatch(nodeID(1), &api.Node{DriverInfo: []byte(`{"x":2}`)}, "driver_info"))
	f.fails(errs.Conflict, read)
	f.lock()
	f.fails(errs.Locked, observe(1, "power_state"))
}

func TestInventory(t *testing.T) {
	f := owned(t)
	tok := f.lock()
	set := func(token uint64, size int) *api.Op {
		return &api.Op{Op: &api.Op_InventorySet{InventorySet: &api.InventorySet{Token: token, Inventory: &api.Inventory{NodeId: nodeID(1), Json: make([]byte, size)}}}}
	}
	f.ok(set(tok, 10))
	f.fails(errs.Fenced, set(tok+1, 10))
	f.fails(errs.Invalid, set(tok, maxInventory+1))
	if len(f.s.View().Inventory(nodeID(1)).GetJson()) != 10 {
		t.Error("inventory is not there")
	}
}
