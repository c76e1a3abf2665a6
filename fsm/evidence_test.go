package fsm

import (
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

func home(n int, token string) *api.Op {
	return &api.Op{Op: &api.Op_PhoneHome{PhoneHome: &api.PhoneHome{NodeId: nodeID(n), Digest: node.PhoneHomeDigest(token), Source: "192.0.2.7"}}}
}

// deployWith is a deploy that is switched on from its disk in the last step but
// one and waits for a call in the last.
func deployWith(token string) *api.Flow {
	fl := newFlow(api.FlowKind_FLOW_DEPLOY, 3)
	for i, id := range []node.StepID{node.StepChooseDisk, node.StepPowerOn, node.StepEvidence} {
		fl.Steps[i].Interface, fl.Steps[i].Name = id.Interface, id.Name
	}
	fl.PhoneHomeDigest = node.PhoneHomeDigest(token)
	return fl
}

// evidenceOf is the record with which the deploy begins.
func evidenceOf(fl *api.Flow) *api.Node {
	return &api.Node{Evidence: &api.Evidence{Policy: "phone_home", FlowId: fl.GetId(), PhoneHomeDigest: fl.GetPhoneHomeDigest()}}
}

// A call counts from the moment in which the machine is being switched on from
// its disk, and not before.
func TestPhoneHome(t *testing.T) {
	f := owned(t)
	f.verify()
	f.clean()
	f.fails(errs.Denied, home(1, "secret")) // nobody waits
	fl := deployWith("secret")
	f.ok(flowCreate(api.Event_EV_DEPLOY, fl))
	f.fails(errs.Denied, &api.Op{Op: &api.Op_PhoneHome{PhoneHome: &api.PhoneHome{NodeId: nodeID(1)}}})
	f.fails(errs.Invalid, &api.Op{Op: &api.Op_PhoneHome{PhoneHome: &api.PhoneHome{NodeId: nodeID(1), Token: "secret"}}})
	f.fails(errs.Denied, home(1, "secreT"))
	f.fails(errs.NotFound, home(7, "secret"))
	f.fails(errs.WrongState, home(1, "secret")) // it has not begun
	tok := f.lock()
	f.ok(stepStart(tok, fl.GetId(), 0, 1, none))
	f.fails(errs.Invalid, nodeWrite(tok, &api.Node{Evidence: &api.Evidence{Token: "secret", FlowId: fl.GetId()}}, "evidence"))
	f.ok(nodeWrite(tok, evidenceOf(fl), "evidence"))
	f.fails(errs.Busy, home(1, "secret"))
	f.ok(stepDone(tok, fl.GetId(), 0, 1, none))
	f.fails(errs.Busy, home(1, "secret"))
	f.ok(stepStart(tok, fl.GetId(), 1, 2, none))
	f.ok(home(1, "secret"))
	at := f.node().GetRev()
	f.ok(home(1, "secret")) // it calls more than once
	if e := f.node().GetEvidence(); e.GetSeen() != "phone_home" || e.GetSource() != "192.0.2.7" || f.node().GetRev() != at {
		t.Errorf("%v", e)
	}
	if v := f.s.View(); v.NodeOfPhoneHome(fl.GetPhoneHomeDigest()) != f.node() || v.NodeOfPhoneHome(nil) != nil || v.NodeOfPhoneHome(node.PhoneHomeDigest("other")) != nil {
		t.Error("another node than the one that was given the token is found")
	}
	f.ok(nodeWrite(tok, evidenceOf(fl), "evidence")) // as if nothing had called
	f.ok(flowEnd(tok, fl.GetId(), api.FlowStatus_FLOW_FAILED, api.Event_EV_FAIL), release(nodeID(1), tok))
	f.fails(errs.WrongState, home(1, "secret"))
}

// One token is of one node: while its deploy runs, and as long as the system
// that was deployed with it may call again.
func TestPhoneHomeTokenIsOfOneNode(t *testing.T) {
	f := owned(t)
	f.verify()
	f.clean()
	n := nodeCreate(nodeID(2), "b")
	n.GetNodeCreate().Node.Assigned = "p1"
	f.ok(n)
	other := func(token string) *api.Op {
		fl := deployWith(token)
		return &api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: nodeID(2), Flow: fl}}}
	}
	mine := func(kind errs.Kind, because string) {
		t.Helper()
		fl := deployWith("shared")
		if kind == errs.Internal {
			f.ok(flowCreate(api.Event_EV_DEPLOY, fl))
			return
		}
		if res := f.fails(kind, flowCreate(api.Event_EV_DEPLOY, fl)); !strings.Contains(res.GetMessage(), because) || !strings.Contains(res.GetMessage(), nodeID(2)) {
			t.Errorf("%v, want %q", res, because)
		}
	}
	short := other("x")
	short.GetFlowCreate().Flow.PhoneHomeDigest = []byte("short")
	f.fails(errs.Invalid, short)
	op := other("shared")
	f.ok(op)
	mine(errs.Conflict, "waits for the same")
	if got := f.s.View().FlowOfPhoneHome(node.PhoneHomeDigest("shared")); got.GetNodeId() != nodeID(2) {
		t.Errorf("found %v", got)
	}
	// Two commands of one entry see each other's tokens too.
	f.ok(flowCreate(api.Event_EV_DEPLOY, deployWith("mine")))
	tok := f.lock()
	f.ok(flowEnd(tok, f.flow().GetId(), api.FlowStatus_FLOW_FAILED, api.Event_EV_FAIL), release(nodeID(1), tok))

	theirs := f.ok(acquire(nodeID(2), "l1")).GetToken()
	write := &api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: nodeID(2), Token: theirs, Fields: []string{"evidence"}, Node: evidenceOf(op.GetFlowCreate().GetFlow())}}}
	end := flowEnd(theirs, op.GetFlowCreate().GetFlow().GetId(), api.FlowStatus_FLOW_FAILED, none)
	end.GetFlowEnd().NodeId = nodeID(2)
	f.ok(write, end, release(nodeID(2), theirs))
	if f.s.View().FlowOfPhoneHome(node.PhoneHomeDigest("shared")) != nil {
		t.Error("a flow that has ended is found")
	}
	if got := f.s.View().NodeOfPhoneHome(node.PhoneHomeDigest("shared")); got.GetId() != nodeID(2) {
		t.Errorf("found %v", got)
	}
	mine(errs.Conflict, "was deployed with the same")
	f.ok(other("shared")) // the node itself may have it again
	theirs = f.ok(acquire(nodeID(2), "l1")).GetToken()
	last := f.s.View().Flow(nodeID(2))
	end = flowEnd(theirs, last.GetId(), api.FlowStatus_FLOW_FAILED, none)
	end.GetFlowEnd().NodeId = nodeID(2)
	clear := &api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: nodeID(2), Token: theirs, Fields: []string{"evidence"}, Node: &api.Node{}}}}
	f.ok(clear, end, release(nodeID(2), theirs)) // torn down
	if got := f.s.View().NodeOfPhoneHome(node.PhoneHomeDigest("shared")); got != nil {
		t.Errorf("after the teardown: found %v", got)
	}
	mine(errs.Internal, "")
}
