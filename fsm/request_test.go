package fsm

import (
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

func flowRequest(ev api.Event) *api.Op {
	return &api.Op{Op: &api.Op_FlowRequest{FlowRequest: &api.FlowRequest{NodeId: nodeID(1), Event: ev}}}
}

// waits brings the node into a deploy that waits.
func (f *fixture) waits() (token uint64, fl *api.Flow) {
	f.t.Helper()
	f.verify()
	clean := newFlow(api.FlowKind_FLOW_CLEAN, 1)
	f.ok(flowCreate(api.Event_EV_PROVIDE, clean))
	token = f.lock()
	f.ok(stepStart(token, clean.GetId(), 0, 1, none))
	f.ok(stepDone(token, clean.GetId(), 0, 1, none), flowEnd(token, clean.GetId(), api.FlowStatus_FLOW_DONE, done), release(nodeID(1), token))
	fl = newFlow(api.FlowKind_FLOW_DEPLOY, 1)
	f.ok(flowCreate(api.Event_EV_DEPLOY, fl))
	token = f.lock()
	f.ok(stepStart(token, fl.GetId(), 0, 1, api.Event_EV_WAIT))
	return token, fl
}

// A request that was meant for an earlier revision is refused: whoever asked
// has not seen what is under way now.
func TestRequestComparesRev(t *testing.T) {
	f := owned(t)
	f.waits()
	rev := f.s.View().Node(nodeID(1)).GetRev()
	for _, ev := range []api.Event{api.Event_EV_ABORT, api.Event_EV_DELETE, api.Event_EV_FAIL} {
		op := flowRequest(ev)
		op.GetFlowRequest().Rev = rev - 1
		f.fails(errs.Conflict, op)
	}
	op := flowRequest(api.Event_EV_ABORT)
	op.GetFlowRequest().Rev = rev
	f.ok(op)
}

// An accepted undeploy stays until a teardown follows, also when the state has
// moved on, and whatever is asked for after it.
func TestUndeployIsKept(t *testing.T) {
	for _, moved := range []bool{false, true} {
		f := owned(t)
		tok, fl := f.waits()
		for _, ev := range []api.Event{api.Event_EV_DEPLOY, api.Event_EV_UNHOLD} {
			f.fails(errs.Invalid, flowRequest(ev))
		}
		f.ok(flowRequest(api.Event_EV_ABORT))
		f.ok(flowRequest(api.Event_EV_FAIL))
		f.fails(errs.WrongState, flowRequest(api.Event_EV_ABORT))
		f.ok(flowRequest(api.Event_EV_DELETE))
		f.fails(errs.WrongState, flowRequest(api.Event_EV_ABORT))
		f.ok(flowRequest(api.Event_EV_FAIL))
		f.ok(flowRequest(api.Event_EV_DELETE))
		if ev := f.flow().GetRequest(); ev != api.Event_EV_DELETE {
			t.Fatalf("the request is %v", ev)
		}
		if moved {
			f.ok(stepDone(tok, fl.GetId(), 0, 1, api.Event_EV_RESUME))
			f.fails(errs.Conflict, flowEnd(tok, fl.GetId(), api.FlowStatus_FLOW_DONE, done), release(nodeID(1), tok))
		}
		f.fails(errs.Conflict, flowEnd(tok, fl.GetId(), api.FlowStatus_FLOW_FAILED, api.Event_EV_FAIL), release(nodeID(1), tok))
		f.fails(errs.Conflict, flowEnd(tok, fl.GetId(), api.FlowStatus_FLOW_ABORTED, api.Event_EV_DELETE), release(nodeID(1), tok))
		end := flowEnd(tok, fl.GetId(), api.FlowStatus_FLOW_ABORTED, api.Event_EV_DELETE)
		end.GetFlowEnd().Next = newFlow(api.FlowKind_FLOW_TEARDOWN, 1)
		f.ok(end, release(nodeID(1), tok))
		if g := f.flow(); f.node().GetState() != api.State_DELETING || g.GetKind() != api.FlowKind_FLOW_TEARDOWN || f.node().GetTargetState() != api.State_AVAILABLE || f.node().GetStateDeadlineTick() == 0 {
			t.Errorf("moved on %v: %v, %v", moved, f.node(), g)
		}
	}
}

// Work beside the lifecycle has no end that a verb could ask for.
func TestBusyWithPower(t *testing.T) {
	f := owned(t)
	tok, fl := f.waits()
	f.ok(stepDone(tok, fl.GetId(), 0, 1, api.Event_EV_RESUME), flowEnd(tok, fl.GetId(), api.FlowStatus_FLOW_DONE, done), release(nodeID(1), tok))
	for _, kind := range []api.FlowKind{api.FlowKind_FLOW_POWER, api.FlowKind_FLOW_HARDWARE} {
		fl := newFlow(kind, 1)
		f.ok(flowCreate(none, fl))
		f.fails(errs.Locked, flowRequest(api.Event_EV_DELETE))
		f.fails(errs.Locked, flowCreate(api.Event_EV_DELETE, newFlow(api.FlowKind_FLOW_TEARDOWN, 1)))
		f.fails(errs.Locked, flowRequest(api.Event_EV_ABORT))
		f.ok(flowRequest(api.Event_EV_FAIL))
		tok := f.lock()
		f.ok(flowEnd(tok, fl.GetId(), api.FlowStatus_FLOW_FAILED, none), release(nodeID(1), tok))
	}
	if f.node().GetState() != api.State_ACTIVE {
		t.Errorf("%v", f.node().GetState())
	}
}
