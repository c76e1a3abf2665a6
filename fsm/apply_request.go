package fsm

import (
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// beside reports whether a flow changes the machine and leaves the lifecycle
// alone: no verb can make it end in another state.
func beside(f *api.Flow) bool { return besideKind(f.GetKind()) }

func besideKind(k api.FlowKind) bool {
	return k == api.FlowKind_FLOW_POWER || k == api.FlowKind_FLOW_HARDWARE
}

// flowRequest asks the holder of an unfinished flow for something: EV_ABORT or
// EV_DELETE for a user, EV_FAIL for a peer that saw something wrong.
//
// What was accepted is done, whoever holds the node by then: a request stays
// until the flow ends, a stronger one takes its place (undeploy over failure
// over abort), and flowEnd refuses an end that forgets an undeploy.
func (w *work) flowRequest(op *api.FlowRequest, out *api.OpResult) error {
	id, ev := op.GetNodeId(), op.GetEvent()
	n := get(w, nodes, id)
	if n == nil {
		return noSuch("node", id)
	}
	if err := w.checkRev(n, op.GetRev()); err != nil {
		return err
	}
	f := get(w, flows, id)
	if !running(f) {
		return errs.About(errs.WrongState, id, "node %s: nothing is under way", id)
	}
	switch ev {
	case api.Event_EV_FAIL:
	case api.Event_EV_ABORT, api.Event_EV_DELETE:
		if beside(f) {
			return errs.About(errs.Locked, id, "node %s is busy: %s is under way; try again when it has ended", id, flowName(f))
		}
		if err := node.CheckVerb(n, ev); err != nil {
			return errs.About(errs.KindOf(err), id, "node %s: %w", id, err)
		}
	default:
		return errs.About(errs.Invalid, id, "%s cannot be asked of a flow", eventName(ev))
	}
	was := f.GetRequest()
	if ev == api.Event_EV_ABORT && (was == api.Event_EV_DELETE || was == api.Event_EV_FAIL) {
		why := "undeploy was asked for"
		if was == api.Event_EV_FAIL {
			why = "something is wrong with it"
		}
		return errs.About(errs.WrongState, id, "node %s: %s is being ended already, because %s; it cannot be aborted any more", id, flowName(f), why)
	}
	f = edit(w, flows, id)
	if was != api.Event_EV_DELETE {
		f.Request, f.RequestMeta = ev, w.meta
	}
	w.note(n, pastFlow, "%s of %s asked for", eventName(ev), flowName(f))
	out.Id = f.GetId()
	return nil
}
