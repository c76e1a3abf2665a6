package flow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/agents"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// position is where a flow stands when a step is performed.
type position struct {
	flow    *api.Flow
	step    *api.Step
	resumed bool // the step had been started before this call
}

// executor performs one step. It must be safe to call again after it was cut
// off anywhere: what makes it so is the step's resume policy.
type executor func(r *runner, ctx context.Context, p position) (outcome, error)

// executors has every step that plans name; a test compares it with package
// node.
var executors = map[node.StepID]executor{
	node.StepIdentifyBMC:   (*runner).identifyBMC,
	node.StepPowerOn:       (*runner).powerOn,
	node.StepPowerOff:      (*runner).powerOff,
	node.StepPowerSoftOff:  (*runner).powerSoftOff,
	node.StepBootDevice:    (*runner).bootDevice,
	node.StepSetBootDevice: (*runner).setBootDevice,
	node.StepSetBootMode:   (*runner).setBootMode,
	node.StepSetSecureBoot: (*runner).setSecureBoot,
	node.StepInsertMedia:   (*runner).insertMedia,
	node.StepEjectMedia:    (*runner).ejectMedia,
	node.StepSetIndicator:  (*runner).setIndicator,
	node.StepSendNMI:       (*runner).sendNMI,
	node.StepClearEvents:   (*runner).clearEvents,
	node.StepAcceptMachine: (*runner).acceptMachine,
	node.StepBootRamdisk:   (*runner).bootRamdisk,
	node.StepBootLocal:     (*runner).bootLocal,
	node.StepBootNothing:   (*runner).bootNothing,
	node.StepAgentWait:     (*runner).agentWait,
	node.StepInventory:     (*runner).inventory,
	node.StepCheckIdentity: (*runner).checkIdentity,
	node.StepChooseDisk:    (*runner).chooseDisk,
	node.StepCheckDrive:    (*runner).checkDrive,
	node.StepWriteImage:    (*runner).writeImage,
	node.StepConfigDrive:   (*runner).configDrive,
	node.StepBootEntry:     (*runner).bootEntry,
	node.StepEvidence:      (*runner).waitForEvidence,
	node.StepEraseMetadata: (*runner).eraseMetadata,
}

// errRequested ends a step early because the flow has a request to look at.
var errRequested = errors.New("the flow has a request")

// Pauses between tries of a step whose error may pass.
const (
	retryFirst = 500 * time.Millisecond
	retryMost  = 8 * time.Second
)

// perform runs a step's executor until it succeeds, fails for good, or the
// step's time is over. Here, and nowhere else, is decided what is tried again.
func (r *runner) perform(ctx context.Context, f *api.Flow, step *api.Step, resumed bool) (outcome, error) {
	exec := executors[node.IDOf(step)]
	if exec == nil {
		return outcome{}, errs.New(errs.Unsupported, "this version knows no step %s", node.IDOf(step))
	}
	if resumed && step.GetPolicy() == api.ResumePolicy_RESUME_GUARDED {
		return outcome{}, errs.New(errs.Conflict, "the step was begun by a conductor that is gone and may not be run twice: look at the machine, then run the flow again")
	}
	left := r.timeLeft(f, step, resumed)
	sctx, cancel := context.WithTimeoutCause(ctx, left, errs.New(errs.Timeout, "not done in %v", left.Round(time.Second)))
	defer cancel()
	stopWatch := r.watchRequest(sctx, cancel)
	defer stopWatch()
	delay := retryFirst
	var last error
	for try := 1; ; try++ {
		out, err := r.execute(sctx, exec, position{f, step, resumed})
		if err == nil || ctx.Err() != nil {
			return out, err
		}
		if errors.Is(err, errMoved) {
			return outcome{}, err
		}
		if err := r.lost(); err != nil {
			return outcome{}, err
		}
		if now := r.flow(); now.GetRequest() != api.Event_EVENT_NONE {
			return outcome{}, errRequested
		}
		if r.isStopping() {
			return outcome{}, errStopping
		}
		if r.leaves(r.node) {
			return outcome{}, errHandOver
		}
		if sctx.Err() != nil {
			// The last real error says more than "time is up".
			late := context.Cause(sctx)
			if errors.Is(err, late) {
				late = err // the step says what it waited for
			}
			if last != nil {
				return outcome{}, fmt.Errorf("%w (last: %w)", late, last)
			}
			return outcome{}, late
		}
		if !passing(err) || hopeless(step, try, err) {
			return outcome{}, err
		}
		if last == nil || last.Error() != err.Error() {
			r.log.Info("step is tried again", "step", node.IDOf(step).String(), "err", err)
			r.event(f, fmt.Sprintf("%s: %v; trying again", node.IDOf(step), err))
		}
		last, resumed = err, true
		_ = clock.Pause(sctx, delay)
		delay = min(2*delay, retryMost)
	}
}

// execute runs an executor once. A step that waits for the machine or its agent
// leaves its place to others meanwhile: a power action does not wait until a
// deployment is done.
func (r *runner) execute(ctx context.Context, exec executor, p position) (outcome, error) {
	if p.step.GetWaits() {
		<-r.slots
		defer func() { r.slots <- struct{}{} }()
	}
	if err := r.verified(ctx, p); err != nil {
		return outcome{}, err
	}
	if out, ok, err := r.leftOut(ctx, p); ok || err != nil {
		return out, err
	}
	return exec(r, ctx, p)
}

// passing errors may be gone at the next try. What the agent has tried and
// failed at is not: it gives the same answer to the same cmdID.
func passing(err error) bool {
	if errors.Is(err, agents.ErrFailed) {
		return false
	}
	for _, k := range []errs.Kind{errs.Timeout, errs.Unreachable, errs.Busy, errs.NotOwner} {
		if errors.Is(err, k) {
			return true
		}
	}
	return errors.Is(err, errLogin)
}

// verifyTries is how often a BMC is asked when its node is verified or its
// machine accepted, if it is silent or cannot be reached. A person waits for the
// answer and can ask again; in the middle of other work a BMC has the whole time
// of the step to come back.
const verifyTries = 3

// hopeless says that an error which may pass is not waited for.
func hopeless(step *api.Step, try int, err error) bool {
	id := node.IDOf(step)
	if id == node.StepAcceptMachine && errors.Is(err, errs.Timeout) {
		return true // most of a minute has gone by, and the node is held meanwhile
	}
	return (id == node.StepIdentifyBMC || id == node.StepAcceptMachine) && try >= verifyTries &&
		(errors.Is(err, errs.Timeout) || errors.Is(err, errs.Unreachable))
}

// resumeLeast is the time that a new holder has for a step at least: no flow
// fails because its conductor went away.
const resumeLeast = 2 * time.Minute

// timeLeft is how long the step may still run, by the cluster's clock: a new
// holder does not begin the time anew. It ends before the lock's limits do,
// which are for tasks that hang.
func (r *runner) timeLeft(f *api.Flow, step *api.Step, resumed bool) time.Duration {
	hold := time.Duration(step.GetHoldLimitMs()) * time.Millisecond
	left := r.untilDeadline(f, hold)
	if resumed {
		left = max(left, min(hold, resumeLeast))
	}
	return left - ahead(hold)
}

// untilDeadline is how far the deadlines of step and state are away, at most
// left.
func (r *runner) untilDeadline(f *api.Flow, left time.Duration) time.Duration {
	v := r.cfg.Store.View()
	ticks := v.Globals().GetTicks()
	for _, deadline := range []uint64{f.GetStepDeadlineTick(), v.Node(r.node).GetStateDeadlineTick()} {
		if deadline == 0 {
			continue
		}
		if deadline <= ticks {
			return 0
		}
		left = min(left, time.Duration(deadline-ticks)*time.Millisecond)
	}
	return left
}

// ahead is how much sooner than a limit of the lock its holder gives up.
func ahead(limit time.Duration) time.Duration { return min(limit/8, 15*time.Second) }

// watchRequest ends the step's context when the flow gets a request, such as
// abort, when the lock is broken, or when this peer stops.
func (r *runner) watchRequest(ctx context.Context, cancel context.CancelFunc) (stop func()) {
	sig, unsubscribe := r.cfg.Watch.Subscribe(r.node)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-r.stopping:
				cancel()
				return
			case <-sig.C:
				if r.flow().GetRequest() != api.Event_EVENT_NONE || r.lost() != nil {
					cancel()
					return
				}
			}
		}
	}()
	return func() { cancel(); <-done; unsubscribe() }
}

// grant is the right to act on the node's BMC and agent under the lock.
func (r *runner) grant() grant { return grant{r} }

// grant implements drivers.Grant.
type grant struct{ r *runner }

func (g grant) Check() error {
	if err := g.r.gate.Check(); err != nil {
		return err
	}
	return g.r.lost()
}

func (g grant) Deadline() time.Time   { return g.r.gate.Deadline() }
func (g grant) Token() uint64         { return g.r.token }
func (g grant) Done() <-chan struct{} { return g.r.gate.Done() }
