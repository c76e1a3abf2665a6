package flow

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/bmc"
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
// attempts, not within one: an attempt runs until its intent can be closed.
func (r *runner) mutate(ctx context.Context, c change) ([]*api.Op, error) {
	for try := 1; ; try++ {
		ok, err := c.seen(ctx)
		if err != nil {
			return nil, r.loginError(err)
		}
		if ok && r.cfg.Store.View().Intent(r.node) == nil {
			return nil, nil
		}
		// What follows closes an intent or changes the machine: the former
		// holder's last act must have landed before.
		if err := r.awaitQuarantine(ctx); err != nil {
			return nil, err
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
			return nil, errs.About(errs.Timeout, r.node, "the BMC accepted %s %d times but it was not seen within %v", c.kind, c.tries, c.settle)
		}
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
	if _, err := r.commit(ctx, "", &api.Op{Op: &api.Op_IntentOpen{IntentOpen: &api.IntentOpen{
		NodeId: r.node, Token: r.token, Kind: c.kind, ArgsDigest: digest[:],
	}}}); err != nil {
		return false, err
	}
	opened := r.cfg.Clock.Elapsed()
	if err := r.gate.CheckMutating(); err != nil {
		return false, errors.Join(errs.New(errs.Busy, "%w", err), r.close("not sent"))
	}
	err = c.act(ctx, r.grant())
	switch {
	case ctx.Err() != nil || errors.Is(err, errs.Fenced):
		return false, errors.Join(err, context.Cause(ctx)) // the next holder closes the intent after its quarantine
	case err != nil && definite(err):
		return false, errors.Join(err, r.close("not done: "+errs.KindOf(err).String()))
	case err != nil:
		r.log.Warn("the outcome of a change at the BMC is unknown; looking", "kind", c.kind, "err", err)
	}
	seen, serr := r.settled(soft, c, opened, err != nil)
	if serr != nil || seen {
		return seen, serr
	}
	return false, errors.Join(err, r.close("not seen"))
}

// settled looks until the change is seen or the time is over. Errors of
// reading are passed over: the BMC may be busy with the change. Q is waited
// for in any case; beyond it only while nobody wants the flow to end, and not
// when it is unknown whether the BMC was asked at all.
func (r *runner) settled(soft context.Context, c change, opened time.Duration, unknown bool) (bool, error) {
	least, most := opened+r.effectLimit(), r.cfg.Clock.Elapsed()+c.settle
	if unknown {
		most = least
	}
	for {
		ok, err := c.seen(r.hard)
		now := r.cfg.Clock.Elapsed()
		switch {
		case r.hard.Err() != nil:
			return false, context.Cause(r.hard)
		case ok && err == nil:
			return true, nil
		case now >= max(least, most), now >= least && soft.Err() != nil:
			return false, nil
		}
		pause(r.hard, settlePoll)
	}
}

// definite errors say that nothing was or will be done.
func definite(err error) bool {
	for _, k := range []errs.Kind{errs.Denied, errs.Invalid, errs.Unsupported, errs.Unreachable, errs.NotFound} {
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

// closing closes the node's open intent, if there is one.
func (r *runner) closing(result string) []*api.Op {
	in := r.cfg.Store.View().Intent(r.node)
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
	_, err := r.commit(r.hard, "", ops...)
	return err
}

// awaitQuarantine waits until the leader has cleared the node's quarantine:
// before that, an act of the former holder may still land.
func (r *runner) awaitQuarantine(ctx context.Context) error {
	sig, stop := r.cfg.Watch.Subscribe(r.node)
	defer stop()
	for {
		q := r.cfg.Store.View().Node(r.node).GetQuarantine()
		if q.GetClass() == api.Quarantine_NONE {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the quarantine of the former holder: %w", context.Cause(ctx))
		case <-sig.C:
		}
	}
}

// loginError lets the first refused login be tried once more.
func (r *runner) loginError(err error) error {
	if errors.Is(err, errs.Denied) && bmc.Parked(r.cfg.Store.View().Node(r.node)) == nil {
		return errors.Join(errLogin, err)
	}
	return err
}
