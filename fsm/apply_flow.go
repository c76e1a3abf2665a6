package fsm

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// running reports whether a flow is unfinished.
func running(f *api.Flow) bool { return f != nil && f.GetStatus() == api.FlowStatus_FLOW_RUNNING }

// flowName is a flow as people call it: "deploy".
func flowName(f *api.Flow) string {
	return strings.ToLower(strings.TrimPrefix(f.GetKind().String(), "FLOW_"))
}

// fire moves a node along the lifecycle. stay is the longest stay in the new
// state in ticks, 0: the state's own.
func (w *work) fire(n *api.Node, ev api.Event, stay uint64) error {
	if ev == api.Event_EVENT_NONE {
		return nil
	}
	from := n.GetState()
	to, target, err := node.Next(from, ev, n.GetTargetState())
	if err != nil {
		return errs.About(errs.KindOf(err), n.GetId(), "node %s: %w", n.GetId(), err)
	}
	n.State, n.TargetState = to, target
	n.StateSinceMs, n.StateSinceTick, n.StateDeadlineTick = w.meta.GetWallMs(), w.c.ticks, 0
	if node.Transient(to) {
		if stay == 0 {
			stay = uint64(node.Deadline(to).Milliseconds())
		}
		n.StateDeadlineTick = after(w.c.ticks, stay)
	}
	if node.IsVerb(ev) {
		n.LastError, n.LastErrorOf = "", nil
	}
	w.note(n, pastState, "%s -> %s (%s)", node.StateName(from), node.StateName(to), eventName(ev))
	return nil
}

// fireStep is fire for a step. A wait that is entered twice, or left twice,
// changes nothing: a step may be started again where it was.
func (w *work) fireStep(n *api.Node, ev api.Event) error {
	if ev == api.Event_EV_WAIT && node.Waiting(n.GetState()) || ev == api.Event_EV_RESUME && node.Working(n.GetState()) {
		return nil
	}
	return w.fire(n, ev, 0)
}

func eventName(ev api.Event) string {
	return strings.ToLower(strings.TrimPrefix(ev.String(), "EV_"))
}

// after is a tick some milliseconds later, without overflow.
func after(ticks, ms uint64) uint64 {
	if ms > ^uint64(0)-ticks {
		return ^uint64(0)
	}
	return ticks + ms
}

// flowCreate accepts work. A verb that moves the state and needs no work
// (available -> manageable) comes without a flow.
func (w *work) flowCreate(op *api.FlowCreate, out *api.OpResult) error {
	id, ev := op.GetNodeId(), op.GetEvent()
	was := get(w, nodes, id)
	if was == nil {
		return noSuch("node", id)
	}
	if err := w.checkRev(was, op.GetRev()); err != nil {
		return err
	}
	if f := get(w, flows, id); running(f) {
		return errs.About(errs.Locked, id, "node %s is busy: %s is under way", id, flowName(f))
	}
	switch {
	case ev == api.Event_EVENT_NONE && op.GetFlow() == nil:
		return errs.About(errs.Invalid, id, "neither a flow nor a verb for node %s", id)
	case ev != api.Event_EVENT_NONE && !node.IsVerb(ev):
		return errs.About(errs.Invalid, id, "%s is not a verb", eventName(ev))
	case ev != api.Event_EVENT_NONE:
		if err := node.CheckVerb(was, ev); err != nil {
			return errs.About(errs.KindOf(err), id, "node %s: %w", id, err)
		}
	}
	n, err := w.editNode(id)
	if err != nil {
		return err
	}
	out.Id = id
	if op.GetFlow() != nil {
		f, err := w.newFlow(n, op.GetFlow(), w.meta)
		if err != nil {
			return err
		}
		out.Id = f.GetId()
		w.note(n, pastFlow, "%s accepted", flowName(f))
	}
	if err := w.fire(n, ev, op.GetDeadlineMs()); err != nil {
		return err
	}
	if op.GetFlow() == nil && node.Transient(n.GetState()) {
		return errs.About(errs.Invalid, id, "node %s would be %s without a flow", id, node.StateName(n.GetState()))
	}
	out.Rev = n.GetRev()
	return nil
}

// newFlow stores a flow that has not begun.
func (w *work) newFlow(n *api.Node, from *api.Flow, who *api.Meta) (*api.Flow, error) {
	if err := checkID("flow id", from.GetId()); err != nil {
		return nil, err
	}
	if from.GetNodeId() != "" && from.GetNodeId() != n.GetId() {
		return nil, errs.About(errs.Invalid, "flow.node_id", "a flow of node %s for node %s", clip(from.GetNodeId(), maxID), n.GetId())
	}
	if from.GetKind() == api.FlowKind_FLOW_KIND_UNSPECIFIED {
		return nil, errs.About(errs.Invalid, "flow.kind", "a flow without a kind")
	}
	if len(from.GetSteps()) == 0 || len(from.GetSteps()) > maxSteps {
		return nil, errs.About(errs.Invalid, "flow.steps", "a flow has 1 to %d steps, not %d", maxSteps, len(from.GetSteps()))
	}
	if err := checkSize("flow.args", len(from.GetArgs()), maxDocument); err != nil {
		return nil, err
	}
	if err := w.checkPhoneHome(n.GetId(), from.GetPhoneHomeDigest()); err != nil {
		return nil, err
	}
	if was := get(w, flows, n.GetId()); was.GetId() == from.GetId() {
		return nil, errs.About(errs.Exists, from.GetId(), "flow %s exists already", from.GetId())
	}
	f := &api.Flow{
		Id: from.GetId(), NodeId: n.GetId(), Kind: from.GetKind(), Args: from.GetArgs(), Meta: who,
		PhoneHomeDigest: from.GetPhoneHomeDigest(),
		CreatedTick:     w.c.ticks, CreatedMs: w.meta.GetWallMs(),
	}
	for i, s := range from.GetSteps() {
		if s.GetName() == "" || len(s.GetName()) > maxID || len(s.GetInterface()) > maxID {
			return nil, errs.About(errs.Invalid, "flow.steps", "step %d has no usable name", i)
		}
		if s.GetPolicy() == api.ResumePolicy_RESUME_UNSPECIFIED {
			return nil, errs.About(errs.Invalid, "flow.steps", "step %d (%s) does not say how it is resumed", i, s.GetName())
		}
		s = proto.CloneOf(s)
		s.Starts, s.StartedMs, s.DoneMs, s.Result, s.Error = 0, 0, 0, nil, ""
		f.Steps = append(f.Steps, s)
	}
	put(w, flows, f)
	return f, nil
}

// flowEnd finishes a flow, and may begin the next.
func (w *work) flowEnd(op *api.FlowEnd, out *api.OpResult) error {
	id := op.GetNodeId()
	lock, err := w.heldLock(id, op.GetToken())
	if err != nil {
		return err
	}
	f, err := w.flowByID(id, op.GetFlowId())
	if err != nil {
		return err
	}
	switch op.GetStatus() {
	case api.FlowStatus_FLOW_RUNNING:
		return errs.About(errs.Invalid, id, "a flow cannot end as running")
	case api.FlowStatus_FLOW_DONE:
		if int(f.GetCursor()) != len(f.GetSteps()) {
			return errs.About(errs.Conflict, f.GetId(), "flow %s is not done: it is at step %d of %d", f.GetId(), f.GetCursor(), len(f.GetSteps()))
		}
	}
	undeploys := f.GetRequest() == api.Event_EV_DELETE && !beside(f)
	if undeploys && (op.GetEvent() != api.Event_EV_DELETE || op.GetNext().GetKind() != api.FlowKind_FLOW_TEARDOWN) {
		return errs.About(errs.Conflict, f.GetId(), "flow %s: undeploy was asked for, a teardown must follow", f.GetId())
	}
	n, err := w.editNode(id)
	if err != nil {
		return err
	}
	f = edit(w, flows, id)
	f.Status, f.Error, f.EndedMs = op.GetStatus(), clip(op.GetError(), maxError), w.meta.GetWallMs()
	f.StepDeadlineTick = 0
	if f.GetStarted() {
		f.Steps[f.GetCursor()].Error = f.GetError()
	}
	f.Started, f.Request = false, api.Event_EVENT_NONE
	n.TargetPower = api.PowerAction_POWER_ACTION_NONE
	w.note(n, pastFlow, "%s %s%s%s", flowName(f), statusName(f.GetStatus()), powerOns(f), because(f.GetError()))
	if undeploys && node.Working(n.GetState()) {
		// It was asked for while the node waited. The way leads over the failure.
		if err := w.fire(n, api.Event_EV_FAIL, 0); err != nil {
			return err
		}
	}
	if err := w.fire(n, op.GetEvent(), op.GetNextDeadlineMs()); err != nil {
		return err
	}
	if op.GetStatus() == api.FlowStatus_FLOW_DONE {
		succeeded(n, f)
	} else {
		failed(n, f)
	}
	out.Id, out.Rev = f.GetId(), n.GetRev()
	if op.GetNext() == nil {
		if node.Transient(n.GetState()) || node.Held(n.GetState()) {
			return errs.About(errs.Invalid, id, "node %s would be %s without a flow", id, node.StateName(n.GetState()))
		}
		return nil
	}
	who := f.GetMeta()
	if undeploys {
		who = f.GetRequestMeta()
	}
	next, err := w.newFlow(n, op.GetNext(), who)
	if err != nil {
		return err
	}
	next.LastLease = lock.GetLeaseId()
	w.setClass(n)
	w.note(n, pastFlow, "%s follows", flowName(next))
	out.Id = next.GetId()
	return nil
}

func statusName(s api.FlowStatus) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "FLOW_"))
}

// powerOns says how often the machine was switched on for a flow.
func powerOns(f *api.Flow) string {
	switch n := f.GetPowerOns(); n {
	case 0:
		return ""
	case 1:
		return ", 1 power-on"
	default:
		return fmt.Sprintf(", %d power-ons", n)
	}
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// flowByID is the unfinished flow of a node if it is the one that the caller
// means.
func (w *work) flowByID(nodeID, flowID string) (*api.Flow, error) {
	f := get(w, flows, nodeID)
	if !running(f) || f.GetId() != flowID {
		return nil, errs.About(errs.Conflict, nodeID, "node %s: flow %q is not under way", nodeID, clip(flowID, maxID))
	}
	return f, nil
}

// flowAt is the unfinished flow of a node if it is where the caller believes.
func (w *work) flowAt(nodeID, flowID string, cursor, attempt uint32) (*api.Flow, error) {
	f, err := w.flowByID(nodeID, flowID)
	if err != nil {
		return nil, err
	}
	if f.GetCursor() != cursor || f.GetAttempt() != attempt {
		return nil, errs.About(errs.Conflict, flowID, "flow %s is at step %d attempt %d, not at step %d attempt %d",
			flowID, f.GetCursor(), f.GetAttempt(), cursor, attempt)
	}
	return f, nil
}
