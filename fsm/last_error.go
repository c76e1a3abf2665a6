package fsm

import (
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/node"
)

// When last_error goes.
//
// The error of the lifecycle, such as that of a clean that failed, stays until
// the next verb: nothing less shows that its reason is gone. The error of work
// beside it (a power action, a change at the BMC) goes as soon as other such work
// shows that it holds no more:
//
//   - what failed while it was not known whose BMC it is ("another machine", a
//     silent BMC), by work that ends with the BMC verified;
//   - what failed later, by the same step, or for power by any power action.
//
// It stands in front of the lifecycle's error and gives way to it again.

// failed puts the error of a flow on record. Work beside the lifecycle that ends
// without one, hides none.
func failed(n *api.Node, f *api.Flow) {
	if beside(f) && f.GetError() == "" {
		return
	}
	of := &api.LastErrorOf{Flow: f.GetKind(), Step: stepAt(f), Unverified: !node.Verified(n)}
	if beside(f) {
		of.Before = lifecycleError(n)
	}
	n.LastError, n.LastErrorOf = f.GetError(), of
}

// lifecycleError is the error of the lifecycle that is on record, also behind
// another one.
func lifecycleError(n *api.Node) string {
	if of := n.GetLastErrorOf(); besideKind(of.GetFlow()) {
		return of.GetBefore()
	}
	return n.GetLastError()
}

// succeeded takes back the error whose reason the end of a flow shows to be gone.
func succeeded(n *api.Node, f *api.Flow) {
	of := n.GetLastErrorOf()
	if !besideKind(of.GetFlow()) || !refutes(n, f, of) {
		return
	}
	n.LastError, n.LastErrorOf = of.GetBefore(), nil
}

func refutes(n *api.Node, f *api.Flow, of *api.LastErrorOf) bool {
	switch {
	case of.GetUnverified():
		return node.Verified(n)
	case of.GetFlow() != f.GetKind():
		return false
	case of.GetFlow() == api.FlowKind_FLOW_POWER:
		return true
	}
	for _, s := range f.GetSteps() {
		if node.IDOf(s).String() == of.GetStep() {
			return true
		}
	}
	return false
}

// stepAt names the step that a flow is at.
func stepAt(f *api.Flow) string {
	if i := int(f.GetCursor()); i < len(f.GetSteps()) {
		return node.IDOf(f.GetSteps()[i]).String()
	}
	return ""
}
