package flow

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/journal"
	"github.com/ironring/ironring/conductor/lease"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// runner works on one node under one lock.
type runner struct {
	*Engine
	gate     *lease.Gate
	hard     context.Context // ends when the gate closes: then nothing more may be done
	stopping <-chan struct{} // closed when this peer stops in order
	node     string
	turnOver func() // gives back the turn of a takeover: others may begin
	token    uint64
	log      *slog.Logger

	begun    uint32        // the attempt that this runner has started itself
	quiet    time.Duration // on Clock.Elapsed: until then our calls to the BMC may take effect
	refusals int           // of the BMC in this step
	console  *consoleWatch // nil while the console is not read
}

// lost is an error once the lock is no longer ours to work under.
func (r *runner) lost() error {
	l := r.cfg.Store.View().Lock(r.node)
	if l.GetToken() != r.token || l.GetState() != api.Lock_HELD {
		return errs.About(errs.Fenced, r.node, "the lock with token %d on node %s is gone", r.token, r.node)
	}
	return nil
}

func (r *runner) isStopping() bool {
	select {
	case <-r.stopping:
		return true
	default:
		return false
	}
}

// errStopping ends a task because this peer stops in order, errHandOver because
// another peer reaches the BMC and this one does not.
var (
	errStopping = errors.New("this peer stops")
	errHandOver = errors.New("this peer does not reach the BMC, and another one does")
)

// outcome is what a step leaves: a result for its record, and operations that
// are committed together with StepDone.
type outcome struct {
	result   any
	ops      []*api.Op
	powerOns uint32 // by how many the machine was switched on
}

// rewind is returned by a step that wants the flow to go on from an earlier one.
type rewind struct {
	to     uint32
	reason string
}

func (r *rewind) Error() string { return r.reason }

// run takes the lock and performs steps until the flow has ended. It returns
// nil when there is nothing left to do, and an error when it could not go on
// here and now.
func (r *runner) run(ctx context.Context) error {
	if err := r.acquire(ctx); err != nil {
		return err
	}
	defer r.stopConsole()
	// An earlier task of ours may have called the BMC a moment ago.
	r.quiet = r.cfg.Clock.Elapsed() + r.effectLimit()
	for {
		f := r.flow()
		if f == nil {
			if _, err := r.landed(ctx, false); err != nil {
				return err
			}
			_, err := r.commit(ctx, "nothing left to do", append(r.closing("given up"), r.release())...)
			return err
		}
		if r.isStopping() {
			return r.park(ctx, errStopping)
		}
		if r.leaves(r.node) {
			return r.park(ctx, errHandOver)
		}
		if agentOnly(f) && r.intent() == nil {
			r.turnOver()
		}
		err := r.advance(ctx, f)
		r.turnOver()
		if errors.Is(err, errStopping) || errors.Is(err, errHandOver) {
			return r.park(ctx, err)
		} else if err != nil {
			return err
		}
		if r.cfg.Store.View().Lock(r.node).GetToken() != r.token {
			return nil // the flow's end released the lock
		}
	}
}

// park releases the lock of a flow that goes on elsewhere.
func (r *runner) park(ctx context.Context, why error) error {
	r.stopConsole()
	if f := r.flow(); f != nil {
		r.event(f, fmt.Sprintf("%s leaves %s at step %d to another peer: %v", r.cfg.Member, purpose(f), f.GetCursor()+1, why))
	}
	_, err := r.commit(ctx, why.Error(), r.release())
	return err
}

// flow is the unfinished flow of the node, or nil.
func (r *runner) flow() *api.Flow {
	f := r.cfg.Store.View().Flow(r.node)
	if f.GetStatus() != api.FlowStatus_FLOW_RUNNING {
		return nil
	}
	return f
}

// acquire takes the lock, or goes on with the one this lease has.
func (r *runner) acquire(ctx context.Context) error {
	v := r.cfg.Store.View()
	if l := v.Lock(r.node); l != nil {
		if l.GetLeaseId() != r.gate.Lease {
			return errs.About(errs.Locked, r.node, "node %s is locked by %s", r.node, l.GetConductor())
		}
		r.token = l.GetToken()
		if l.GetState() == api.Lock_BREAKING {
			_, err := r.commit(ctx, "the lock was broken", r.release())
			return errors.Join(err, errs.About(errs.Fenced, r.node, "the lock of node %s was broken", r.node))
		}
		return nil
	}
	f := v.Flow(r.node)
	if f == nil {
		return errs.About(errs.NotFound, r.node, "node %s has no flow", r.node)
	}
	lock := &api.LockAcquire{
		NodeId: r.node, LeaseId: r.gate.Lease, Purpose: purpose(f), Class: "work",
		HoldLimitMs: uint64((2 * time.Minute).Milliseconds()),
	}
	if s := v.Node(r.node).GetState(); node.Waiting(s) || node.Held(s) {
		lock.Class = "waiting" // as its former holder left it
	}
	if f.GetStarted() { // no StepStart will set the step's limits
		step := f.GetSteps()[f.GetCursor()]
		lock.HoldLimitMs, lock.StallLimitMs = step.GetHoldLimitMs(), step.GetStallLimitMs()
	}
	res, err := r.commit(ctx, "take the lock for "+purpose(f), &api.Op{Op: &api.Op_LockAcquire{LockAcquire: lock}})
	if err != nil {
		return err
	}
	r.token = res.GetOps()[0].GetToken()
	if f.GetAttempt() > 0 {
		r.log.Info("flow taken over", "flow", f.GetId(), "kind", purpose(f), "cursor", f.GetCursor(), "token", r.token)
		r.event(f, fmt.Sprintf("%s goes on with %s at step %d", r.cfg.Member, purpose(f), f.GetCursor()+1))
	}
	return nil
}

// advance performs the step at the cursor, or ends the flow.
func (r *runner) advance(ctx context.Context, f *api.Flow) error {
	switch {
	case f.GetRequest() == api.Event_EV_FAIL:
		return r.end(ctx, f, api.FlowStatus_FLOW_FAILED, "identity mismatch: two machines claim this boot")
	case f.GetRequest() == api.Event_EV_DELETE:
		return r.end(ctx, f, api.FlowStatus_FLOW_ABORTED, "undeploy was asked for")
	case f.GetRequest() != api.Event_EVENT_NONE:
		return r.end(ctx, f, api.FlowStatus_FLOW_ABORTED, "aborted on request")
	case int(f.GetCursor()) >= len(f.GetSteps()):
		return r.end(ctx, f, api.FlowStatus_FLOW_DONE, "")
	}
	step := f.GetSteps()[f.GetCursor()]
	if !f.GetStarted() {
		ops := append(r.forgets(f), r.start(f, int(f.GetCursor()), f.GetAttempt()+1))
		if _, err := r.commit(ctx, node.IDOf(step).String()+": started", ops...); err != nil {
			return err
		}
		r.begun = f.GetAttempt() + 1
		f = r.flow()
		if f == nil {
			return nil
		}
	}
	r.refusals = 0
	out, err := r.perform(ctx, f, step, f.GetAttempt() != r.begun)
	if err == nil {
		err = r.done(ctx, f, step, out)
		if err == nil || !errors.Is(err, errs.Invalid) && !errors.Is(err, errs.Exists) {
			return err
		}
		// The state will never take what the step gave.
	}
	var back *rewind
	switch {
	case errors.As(err, &back):
		r.event(f, fmt.Sprintf("back to step %d: %s", back.to+1, back.reason))
		_, err := r.commit(ctx, fmt.Sprintf("%s: back to step %d: %s", node.IDOf(step), back.to+1, back.reason), &api.Op{Op: &api.Op_FlowRewind{FlowRewind: &api.FlowRewind{
			NodeId: r.node, Token: r.token, FlowId: f.GetId(), Cursor: f.GetCursor(), Attempt: f.GetAttempt(), To: back.to, Reason: back.reason,
		}}})
		return err
	case ctx.Err() != nil || errors.Is(err, errMoved) || errors.Is(err, errs.Fenced) || errors.Is(err, errStopping) || errors.Is(err, errHandOver):
		return err // not ours to judge any more
	case errors.Is(err, errRequested):
		return nil // advance looks at the request
	}
	return r.end(ctx, f, api.FlowStatus_FLOW_FAILED, fmt.Sprintf("%s: %v", node.IDOf(step), err))
}

// start is the operation that starts a step.
func (r *runner) start(f *api.Flow, cursor int, attempt uint32) *api.Op {
	step := f.GetSteps()[cursor]
	op := &api.StepStart{
		NodeId: r.node, Token: r.token, FlowId: f.GetId(), Cursor: uint32(cursor), Attempt: attempt,
		CmdId: CmdID(f.GetId(), cursor, attempt), DeadlineMs: step.GetHoldLimitMs(),
	}
	if step.GetWaits() {
		op.Event = api.Event_EV_WAIT
	}
	if step.GetPolicy() == api.ResumePolicy_RESUME_AGENT {
		op.Incarnation = r.cfg.Hub.Incarnation(r.node, r.cfg.Store.View().Node(r.node).GetBoot().GetNonce())
	}
	return &api.Op{Op: &api.Op_StepStart{StepStart: op}}
}

// CmdID is the id of one attempt at one step; the agent knows a command by it.
func CmdID(flow string, cursor int, attempt uint32) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s/%d/%d", flow, cursor, attempt))
	return hex.EncodeToString(h[:16])
}

// done commits the end of a step together with the start of the next.
func (r *runner) done(ctx context.Context, f *api.Flow, step *api.Step, out outcome) error {
	result, err := json.Marshal(out.result)
	if err != nil {
		return fmt.Errorf("result of step %s: %w", node.IDOf(step), err)
	}
	if out.result == nil {
		result = nil
	}
	done := &api.StepDone{NodeId: r.node, Token: r.token, FlowId: f.GetId(), Cursor: f.GetCursor(), Attempt: f.GetAttempt(), Result: result, PowerOns: out.powerOns}
	if step.GetWaits() {
		done.Event = api.Event_EV_RESUME
	}
	ops := append(out.ops, &api.Op{Op: &api.Op_StepDone{StepDone: done}})
	reason := node.IDOf(step).String() + ": done"
	next := int(f.GetCursor()) + 1
	// A request (abort) is looked at between steps: do not start the next one.
	if now := r.flow(); next < len(f.GetSteps()) && now.GetRequest() == api.Event_EVENT_NONE && !r.isStopping() && !r.leaves(r.node) {
		ops = append(ops, r.start(f, next, f.GetAttempt()+1))
		reason += ", " + node.IDOf(f.GetSteps()[next]).String() + ": started"
	}
	if _, err = r.commit(ctx, reason, ops...); err != nil {
		return err
	}
	r.begun = f.GetAttempt() + 1 // if the next was started
	r.event(f, fmt.Sprintf("step %d of %d done: %s", f.GetCursor()+1, len(f.GetSteps()), node.IDOf(step)))
	return nil
}

// end commits the end of the flow, the state that follows and the release of
// the lock as one.
func (r *runner) end(ctx context.Context, f *api.Flow, status api.FlowStatus, msg string) error {
	r.stopConsole()
	// An intent may be open that no step will close, such as a former holder's
	// when the flow is aborted.
	if r.intent() != nil {
		if _, err := r.landed(ctx, false); err != nil {
			return err
		}
	}
	stopped := api.CommandStatus_UNKNOWN
	if status != api.FlowStatus_FLOW_DONE {
		stopped = r.stopAgent(ctx, f)
	}
	n := r.cfg.Store.View().Node(r.node)
	endsBoot := status != api.FlowStatus_FLOW_DONE && n.GetBoot().GetTarget() == api.BootTarget_BOOT_RAMDISK && failureEndsBoot(f)
	medium := endsBoot && r.leavesMedium(ctx, f)
	op := &api.FlowEnd{NodeId: r.node, Token: r.token, FlowId: f.GetId(), Status: status, Error: msg}
	ops := r.closing("given up")
	if root := endedWithout(n.GetRootDisk(), f.GetCmdId(), stopped); root != nil {
		ops = append(ops, r.write(f, []string{"root_disk"}, &api.Node{RootDisk: root}))
	}
	switch {
	case f.GetKind() == api.FlowKind_FLOW_POWER, f.GetKind() == api.FlowKind_FLOW_HARDWARE:
		// A change of the machine itself leaves the lifecycle alone.
	case status == api.FlowStatus_FLOW_DONE && f.GetKind() == api.FlowKind_FLOW_TEARDOWN:
		if err := r.follow(op, f, api.Event_EV_CLEAN, api.FlowKind_FLOW_CLEAN); err != nil {
			return err
		}
	case f.GetRequest() == api.Event_EV_DELETE:
		if err := r.follow(op, f, api.Event_EV_DELETE, api.FlowKind_FLOW_TEARDOWN); err != nil {
			return err
		}
	case status == api.FlowStatus_FLOW_DONE:
		op.Event = api.Event_EV_DONE
	default:
		op.Event = api.Event_EV_FAIL
		if status == api.FlowStatus_FLOW_ABORTED && node.Waiting(n.GetState()) {
			op.Event = api.Event_EV_ABORT
		}
	}
	if endsBoot {
		// The boot nonce ends with the flow: a machine that still runs the
		// ramdisk gets no orders, and its next boot gets nothing.
		ops = append(ops, r.write(f, []string{"boot"}, &api.Node{Boot: &api.Boot{Target: api.BootTarget_BOOT_NOTHING, Medium: medium}}))
	}
	ops = append(ops, &api.Op{Op: &api.Op_FlowEnd{FlowEnd: op}}, r.release())
	text := purpose(f) + " done"
	if status != api.FlowStatus_FLOW_DONE {
		text = purpose(f) + " failed: " + msg
	}
	if _, err := r.commit(ctx, text, ops...); err != nil {
		return err
	}
	r.event(f, text)
	r.log.Info("flow ended", "flow", f.GetId(), "kind", purpose(f), "status", status.String(), "err", msg)
	return nil
}

// stopAgentLimit bounds the wait for an agent that is told to stop.
const stopAgentLimit = 10 * time.Second

// stopAgent has the agent stop the command of the current step before the flow
// ends without it: a disk must not go on being written after an abort. What the
// agent says of the command is returned. An agent that cannot be reached is not
// waited for; its boot ends with the flow.
func (r *runner) stopAgent(ctx context.Context, f *api.Flow) api.CommandStatus_State {
	if !f.GetStarted() || int(f.GetCursor()) >= len(f.GetSteps()) || f.GetSteps()[f.GetCursor()].GetPolicy() != api.ResumePolicy_RESUME_AGENT {
		return api.CommandStatus_UNKNOWN
	}
	ctx, cancel := context.WithTimeout(ctx, stopAgentLimit)
	defer cancel()
	nonce := r.cfg.Store.View().Node(r.node).GetBoot().GetNonce()
	said, err := r.cfg.Hub.Cancel(ctx, r.node, nonce, r.token, f.GetCmdId())
	if err != nil {
		r.log.Warn("the agent could not be told to stop", "flow", f.GetId(), "err", err)
		r.event(f, fmt.Sprintf("the agent could not be told to stop %s: %v", node.IDOf(f.GetSteps()[f.GetCursor()]), err))
	}
	return said
}

// follow has the end of a flow begin another one, in the same command.
func (r *runner) follow(end *api.FlowEnd, f *api.Flow, ev api.Event, kind api.FlowKind) error {
	steps, err := node.Plan(kind, api.PowerAction_POWER_ACTION_NONE)
	if err != nil {
		return err
	}
	end.Event = ev
	end.Next = &api.Flow{Id: uuid.NewString(), NodeId: r.node, Kind: kind, Steps: steps, Meta: f.GetMeta()}
	return nil
}

func (r *runner) release() *api.Op {
	return &api.Op{Op: &api.Op_LockRelease{LockRelease: &api.LockRelease{NodeId: r.node, Token: r.token}}}
}

// write is a NodeWrite of flow fields, compared with the flow's position.
func (r *runner) write(f *api.Flow, fields []string, n *api.Node) *api.Op {
	n.Id = r.node
	return &api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{
		NodeId: r.node, Token: r.token, FlowId: f.GetId(), Cursor: f.GetCursor(), Attempt: f.GetAttempt(), Fields: fields, Node: n,
	}}}
}

// commit proposes operations as one command. While no leader can be reached it
// tries until the gate closes: an error of the cluster is not one of the node.
func (r *runner) commit(ctx context.Context, reason string, ops ...*api.Op) (*api.Result, error) {
	// An attempt with an unknown outcome may be repeated: if it was applied,
	// the comparison of cursor and attempt refuses the second, and the task
	// begins again from the state.
	for {
		if err := r.gate.Check(); err != nil {
			return nil, err
		}
		pctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		res, err := r.cfg.Propose(pctx, &api.Command{
			Meta: &api.Meta{Principal: "peer:" + r.cfg.Member, Reason: reason, WallMs: r.cfg.Clock.Now().UnixMilli()},
			Ops:  ops,
		})
		cancel()
		switch {
		case err == nil || ctx.Err() != nil:
			return res, err
		case moved(err):
			return res, fmt.Errorf("%w: %w", errMoved, err)
		case res.GetFailure() != nil || !clusterTrouble(err):
			return res, err
		}
		_ = clock.Pause(ctx, 200*time.Millisecond)
	}
}

// errMoved is in the error of a commit that was refused because the state is
// not what this runner believed, perhaps because an earlier try of the same
// commit was applied although its answer was lost. It says nothing about the
// node: the task begins again from the state.
var errMoved = errors.New("the state has moved on")

func moved(err error) bool {
	for _, k := range []errs.Kind{errs.Fenced, errs.Conflict, errs.Locked, errs.NotOwner, errs.NotFound} {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}

// clusterTrouble says whether an error is about the cluster, not the command.
func clusterTrouble(err error) bool {
	for _, k := range []errs.Kind{errs.NoQuorum, errs.NotLeader, errs.Timeout, errs.Busy, errs.Unreachable} {
		if errors.Is(err, k) {
			return true
		}
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// event writes a line to the node's journal.
func (r *runner) event(f *api.Flow, text string) {
	r.cfg.Journal.Append(&api.JournalEvent{NodeId: r.node, Kind: journal.KindStep, Text: text, CmdId: f.GetCmdId()})
}

// purpose is the flow's kind in a word, as people see it on the lock.
func purpose(f *api.Flow) string {
	switch f.GetKind() {
	case api.FlowKind_FLOW_VERIFY:
		return "verify"
	case api.FlowKind_FLOW_INSPECT:
		return "inspect"
	case api.FlowKind_FLOW_DEPLOY:
		return "deploy"
	case api.FlowKind_FLOW_TEARDOWN:
		return "teardown"
	case api.FlowKind_FLOW_CLEAN:
		return "clean"
	case api.FlowKind_FLOW_POWER:
		return "power"
	case api.FlowKind_FLOW_HARDWARE:
		return "hardware"
	}
	return "work"
}
