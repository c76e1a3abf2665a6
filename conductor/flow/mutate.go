package flow

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
)

// errLogin marks a refused login that is not yet a parked BMC: one more try is
// allowed.
var errLogin = errors.New("login refused once")

// change is one level-triggered change at a BMC.
type change struct {
	kind   string                                   // of the intent: "power_on", ...
	args   string                                   // what the digest of the intent is over
	seen   func(ctx context.Context) (bool, error)  // is it so already?
	act    func(ctx context.Context, g grant) error // ask for it, once
	settle time.Duration                            // how long it may take to be seen
	tries  int
}

// settlePoll is the pause between looks at the BMC while a change settles.
const settlePoll = 700 * time.Millisecond

// mutate makes a change at the node's BMC and proves it by reading. It returns
// the operation that closes the intent, if one is open, for the caller to
// commit together with the end of the step.
//
// Order: look first, since an old holder may have done it; wait out the
// quarantine; open the intent; act; look until it is seen. After an ambiguous
// answer the intent stays open until the change was seen or Q has passed, since
// the BMC may still carry it out.
//
// The end of ctx (abort, a time limit, an orderly stop) is obeyed between
// attempts, not within one: an attempt runs until its intent can be closed. An
// orderly stop makes it hurry: a call that hangs is cut, and the intent is
// closed once Q has passed since.
func (r *runner) mutate(ctx context.Context, c change) ([]*api.Op, error) {
	for try := 1; ; {
		ok, err := c.seen(ctx)
		if err != nil {
			return nil, r.loginError(err)
		}
		if ok && r.intent() == nil {
			return nil, nil
		}
		// What follows closes an intent or changes the machine: what was asked
		// for before must have landed, and what was read may be old then.
		if waited, err := r.landed(ctx, ok); err != nil {
			return nil, err
		} else if waited {
			continue
		}
		if ok {
			return r.closing("seen"), nil
		}
		if err := r.close("not seen"); err != nil {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if try > c.tries {
			return nil, errs.About(errs.Internal, r.node, "the BMC accepted %s %d times but it was not seen within %v", c.kind, c.tries, c.settle)
		}
		try++
		seen, err := r.attempt(ctx, c)
		if err != nil {
			return nil, r.loginError(err)
		}
		if seen {
			return r.closing("seen"), nil
		}
	}
}

// attempt announces the change, asks for it once and looks. The intent is open
// afterwards only if the change was seen, or if the lock is no longer ours.
func (r *runner) attempt(soft context.Context, c change) (seen bool, err error) {
	ctx := r.hard
	digest := sha256.Sum256([]byte(c.kind + "\x00" + c.args))
	if _, err := r.commit(ctx, c.kind+": intent opened", &api.Op{Op: &api.Op_IntentOpen{IntentOpen: &api.IntentOpen{
		NodeId: r.node, Token: r.token, Kind: c.kind, ArgsDigest: digest[:],
	}}}); err != nil {
		return false, err
	}
	if err := r.gate.CheckMutating(); err != nil {
		return false, errors.Join(errs.New(errs.Busy, "%v", err), r.close("not sent"))
	}
	actx, done := r.hurried(func() time.Duration { return callGrace })
	err = c.act(actx, r.grant())
	done()
	r.quiet = r.cfg.Clock.Elapsed() + r.effectLimit()
	switch {
	case ctx.Err() != nil || errors.Is(err, errs.Fenced):
		return false, errors.Join(err, context.Cause(ctx)) // the next holder closes the intent after its quarantine
	case err != nil && definite(err):
		return false, errors.Join(err, r.close("not done: "+errs.KindOf(err).String()))
	case err != nil:
		r.log.Warn("the outcome of a change at the BMC is unknown; looking", "kind", c.kind, "err", err)
	}
	seen, serr := r.settled(soft, c, err != nil)
	if serr != nil || seen {
		return seen, serr
	}
	return false, errors.Join(err, r.close("not seen"))
}

// settled looks until the change is seen or the time is over. Errors of
// reading are passed over: the BMC may be busy with the change. Q is waited
// for in any case; beyond it only while nobody wants the flow to end, and not
// when it is unknown whether the BMC was asked at all. A lock that is being
// broken is let go at once.
func (r *runner) settled(soft context.Context, c change, unknown bool) (bool, error) {
	least, most := r.quiet, r.cfg.Clock.Elapsed()+c.settle
	if unknown {
		most = least
	}
	for {
		rctx, done := r.hurried(func() time.Duration { return max(least-r.cfg.Clock.Elapsed(), 0) })
		ok, err := c.seen(rctx)
		done()
		now := r.cfg.Clock.Elapsed()
		switch {
		case r.hard.Err() != nil:
			return false, context.Cause(r.hard)
		case r.lost() != nil:
			return false, r.lost()
		case ok && err == nil:
			return true, nil
		case now >= max(least, most), now >= least && soft.Err() != nil:
			return false, nil
		}
		_ = clock.Pause(r.hard, settlePoll)
	}
}

// hurried is a context that ends with the gate, and a grace after this peer is
// told to stop. done must be called.
func (r *runner) hurried(grace func() time.Duration) (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(r.hard)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-ctx.Done():
			return
		case <-r.stopping:
		}
		t := time.NewTimer(grace())
		defer t.Stop()
		select {
		case <-ctx.Done():
		case <-t.C:
			cancel(errs.New(errs.Timeout, "this peer stops"))
		}
	}()
	return ctx, func() { cancel(nil); <-ended }
}

// definite errors say that nothing was or will be done. Invalid is not one of
// them: it may be about the answer.
func definite(err error) bool {
	for _, k := range []errs.Kind{errs.Denied, errs.Unsupported, errs.Unreachable} {
		if errors.Is(err, k) {
			return true
		}
	}
	return false
}

// effectLimit is Q: how long after it was sent a request may still take effect.
func (r *runner) effectLimit() time.Duration {
	t := r.cfg.Store.View().Settings().GetTiming()
	return time.Duration(t.GetTcpUserMs()+t.GetBmcEffectMs()) * time.Millisecond
}

// intent is the node's open intent, or nil.
func (r *runner) intent() *api.Intent { return r.cfg.Store.View().Intent(r.node) }

// closing closes the node's open intent, if there is one.
func (r *runner) closing(result string) []*api.Op {
	in := r.intent()
	if in == nil {
		return nil
	}
	return []*api.Op{{Op: &api.Op_IntentClose{IntentClose: &api.IntentClose{NodeId: r.node, Token: r.token, Seq: in.GetSeq(), Result: result}}}}
}

// close commits the end of the node's open intent, if there is one.
func (r *runner) close(result string) error {
	ops := r.closing(result)
	if ops == nil {
		return nil
	}
	_, err := r.commit(r.hard, r.intent().GetKind()+": intent closed, "+result, ops...)
	return err
}

// landed waits until what was asked of the BMC before can no longer take
// effect: of a former holder until the leader has cleared the quarantine, of
// ours until Q has passed since the last call. The latter is not waited for
// when the change was seen. waited is false when there was nothing to wait for.
func (r *runner) landed(ctx context.Context, seen bool) (waited bool, err error) {
	sig, stop := r.cfg.Watch.Subscribe(r.node)
	defer stop()
	for {
		if err := r.lost(); err != nil {
			return waited, err
		}
		var rest <-chan time.Time
		left := r.quiet - r.cfg.Clock.Elapsed()
		switch in := r.intent(); {
		case r.cfg.Store.View().Node(r.node).GetQuarantine().GetClass() != api.Quarantine_NONE:
		case !seen && in.GetToken() == r.token && left > 0:
			t := time.NewTimer(left)
			defer t.Stop() // seldom more than one
			rest = t.C
		default:
			return waited, nil
		}
		waited = true
		select {
		case <-ctx.Done():
			return waited, fmt.Errorf("waiting until the last call to the BMC can no longer take effect: %w", context.Cause(ctx))
		case <-sig.C:
		case <-rest:
		}
	}
}

// loginError lets the first refusal of a step be tried once more. A BMC may
// refuse the change only, which parks nothing.
func (r *runner) loginError(err error) error {
	if !errors.Is(err, errs.Denied) {
		return err
	}
	if r.refusals++; r.refusals < 2 && r.cfg.BMC.Parked(r.cfg.Store.View().Node(r.node)) == nil {
		return errors.Join(errLogin, err)
	}
	return err
}
