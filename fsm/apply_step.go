package fsm

import (
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// stepStart commits that the step at the cursor is about to run.
func (w *work) stepStart(op *api.StepStart, out *api.OpResult) error {
	id := op.GetNodeId()
	if _, err := w.heldLock(id, op.GetToken()); err != nil {
		return err
	}
	if op.GetAttempt() == 0 {
		return errs.About(errs.Invalid, id, "attempts count from 1")
	}
	f, err := w.flowAt(id, op.GetFlowId(), op.GetCursor(), op.GetAttempt()-1)
	if err != nil {
		return err
	}
	if int(f.GetCursor()) >= len(f.GetSteps()) {
		return errs.About(errs.Conflict, f.GetId(), "flow %s has no step left", f.GetId())
	}
	if s := f.GetSteps()[f.GetCursor()]; s.GetPolicy() == api.ResumePolicy_RESUME_GUARDED && s.GetStarts() > 0 {
		return errs.About(errs.WrongState, f.GetId(), "step %s of flow %s was started and may not run twice", s.GetName(), f.GetId())
	}
	if err := checkSize("cmd_id", len(op.GetCmdId()), maxID); err != nil {
		return err
	}
	if err := checkSize("incarnation", len(op.GetIncarnation()), maxID); err != nil {
		return err
	}
	n, err := w.editNode(id)
	if err != nil {
		return err
	}
	f = edit(w, flows, id)
	s := f.Steps[f.GetCursor()]
	s.Starts++
	s.StartedMs, s.DoneMs, s.Result, s.Error = w.meta.GetWallMs(), 0, nil, ""
	f.Attempt, f.Started, f.CmdId = op.GetAttempt(), true, op.GetCmdId()
	f.AgentIncarnation = op.GetIncarnation()
	limit := op.GetDeadlineMs()
	if limit == 0 {
		limit = s.GetHoldLimitMs()
	}
	f.StepDeadlineTick = 0
	if limit != 0 {
		f.StepDeadlineTick = after(w.c.ticks, limit)
	}
	l := edit(w, locks, id)
	l.AcquiredTick, l.ProgressTick = w.c.ticks, w.c.ticks
	l.HoldLimitMs, l.StallLimitMs = s.GetHoldLimitMs(), s.GetStallLimitMs()
	if err := w.fireStep(n, op.GetEvent()); err != nil {
		return err
	}
	// A state lasts at least as long as the step in it may.
	if n.GetStateDeadlineTick() != 0 {
		n.StateDeadlineTick = max(n.GetStateDeadlineTick(), f.GetStepDeadlineTick())
	}
	w.setClass(n)
	out.Id, out.Rev = f.GetId(), n.GetRev()
	return nil
}

// setClass makes the lock of a node "work" or "waiting" as its state is: only
// in working states is the lock shown to users.
func (w *work) setClass(n *api.Node) {
	class := ""
	switch {
	case node.Working(n.GetState()):
		class = classWork
	case node.Waiting(n.GetState()), node.Held(n.GetState()):
		class = classWaiting
	}
	if l := get(w, locks, n.GetId()); class != "" && l != nil && l.GetClass() != class {
		edit(w, locks, n.GetId()).Class = class
	}
}

// stepDone moves the cursor on.
func (w *work) stepDone(op *api.StepDone, out *api.OpResult) error {
	id := op.GetNodeId()
	if _, err := w.heldLock(id, op.GetToken()); err != nil {
		return err
	}
	f, err := w.flowAt(id, op.GetFlowId(), op.GetCursor(), op.GetAttempt())
	if err != nil {
		return err
	}
	if !f.GetStarted() {
		return errs.About(errs.Conflict, f.GetId(), "step %d of flow %s was not started", f.GetCursor(), f.GetId())
	}
	if err := checkSize("step result", len(op.GetResult()), maxResult); err != nil {
		return err
	}
	n, err := w.editNode(id)
	if err != nil {
		return err
	}
	f = edit(w, flows, id)
	s := f.Steps[f.GetCursor()]
	s.DoneMs, s.Result, s.Error = w.meta.GetWallMs(), op.GetResult(), ""
	f.Cursor++
	f.PowerOns += min(op.GetPowerOns(), 1)
	f.Started, f.CmdId, f.StepDeadlineTick = false, "", 0
	if err := w.fireStep(n, op.GetEvent()); err != nil {
		return err
	}
	w.setClass(n)
	out.Id, out.Rev = f.GetId(), n.GetRev()
	return nil
}

// flowRewind moves the cursor back, and a node out of its waiting state. The
// steps from there on run again; guarded ones may not.
func (w *work) flowRewind(op *api.FlowRewind, out *api.OpResult) error {
	id := op.GetNodeId()
	if _, err := w.heldLock(id, op.GetToken()); err != nil {
		return err
	}
	f, err := w.flowAt(id, op.GetFlowId(), op.GetCursor(), op.GetAttempt())
	if err != nil {
		return err
	}
	if op.GetTo() > f.GetCursor() {
		return errs.About(errs.Invalid, f.GetId(), "flow %s cannot be rewound from step %d to %d", f.GetId(), f.GetCursor(), op.GetTo())
	}
	last := min(int(f.GetCursor()), len(f.GetSteps())-1)
	for _, s := range f.GetSteps()[op.GetTo() : last+1] {
		if s.GetPolicy() == api.ResumePolicy_RESUME_GUARDED && s.GetStarts() > 0 {
			return errs.About(errs.WrongState, f.GetId(), "flow %s cannot be rewound over step %s, which may not run twice", f.GetId(), s.GetName())
		}
	}
	n, err := w.editNode(id)
	if err != nil {
		return err
	}
	f = edit(w, flows, id)
	for _, s := range f.Steps[op.GetTo() : last+1] {
		s.DoneMs, s.Result, s.Error = 0, nil, ""
	}
	f.Cursor, f.Started, f.CmdId, f.StepDeadlineTick = op.GetTo(), false, "", 0
	f.Rewinds++
	if node.Waiting(n.GetState()) {
		if err := w.fireStep(n, api.Event_EV_RESUME); err != nil {
			return err
		}
		w.setClass(n)
	}
	w.note(n, pastStep, "%s went back to step %d%s", flowName(f), op.GetTo(), because(op.GetReason()))
	out.Id, out.Rev = f.GetId(), n.GetRev()
	return nil
}
