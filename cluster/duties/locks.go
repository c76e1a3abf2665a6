package duties

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ironring/ironring/api"
)

// releaseWait is how long a holder has to let go of a broken lock before its
// whole lease is fenced.
const releaseWait = 10 * time.Second

// locks breaks locks that are held too long or make no progress, judged on the
// cluster clock, and fences conductors that do not let go of a broken lock.
type locks struct {
	Config
	breaking map[uint64]time.Duration // by token: when this leader saw it first
}

func newLocks(cfg Config) *locks { return &locks{Config: cfg, breaking: map[uint64]time.Duration{}} }

func (l *locks) name() string { return "locks" }

func (l *locks) round(ctx context.Context) error {
	v, now := l.Store.View(), l.Clock.Elapsed()
	ticks := v.Globals().GetTicks()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(64)
	breaking := map[uint64]time.Duration{}
	unresponsive := map[string]*api.Lock{} // by lease
	for k := range v.Locks() {
		if k.GetState() != api.Lock_BREAKING {
			if cause := overdue(k, ticks); cause != "" {
				g.Go(func() error { return l.breakLock(ctx, k, cause) })
			}
			continue
		}
		since, seen := l.breaking[k.GetToken()]
		if !seen {
			since = now
		}
		breaking[k.GetToken()] = since
		if now-since >= releaseWait {
			unresponsive[k.GetLeaseId()] = k
		}
	}
	l.breaking = breaking
	for id, k := range unresponsive {
		g.Go(func() error { return l.fence(ctx, id, k) })
	}
	return g.Wait()
}

// overdue says why a lock must be broken, "" when it need not be.
func overdue(k *api.Lock, ticks uint64) string {
	passed := func(since, limit uint64) bool { return limit > 0 && ticks > since && ticks-since > limit }
	switch {
	case passed(k.GetAcquiredTick(), k.GetHoldLimitMs()):
		return "held for more than " + ms(k.GetHoldLimitMs()).String()
	case passed(k.GetProgressTick(), k.GetStallLimitMs()):
		return "no progress for more than " + ms(k.GetStallLimitMs()).String()
	}
	return ""
}

func (l *locks) breakLock(ctx context.Context, k *api.Lock, cause string) error {
	l.Logger.Warn("breaking a lock", "node", k.GetNodeId(), "peer", k.GetConductor(), "token", k.GetToken(), "cause", cause)
	err := l.propose(ctx, "lock "+cause, &api.Op{Op: &api.Op_LockBreak{LockBreak: &api.LockBreak{
		NodeId: k.GetNodeId(), Token: k.GetToken(), Term: l.Term, Cause: cause,
	}}})
	if overtaken(err) {
		return nil
	}
	return err
}

func (l *locks) fence(ctx context.Context, lease string, k *api.Lock) error {
	l.Logger.Error("a conductor does not let go of a broken lock: all its locks are taken from it",
		"peer", k.GetConductor(), "node", k.GetNodeId(), "token", k.GetToken())
	err := l.propose(ctx, "lock not released", &api.Op{Op: &api.Op_LeaseFence{LeaseFence: &api.LeaseFence{
		LeaseId: lease, Cause: "unresponsive", Term: l.Term,
	}}})
	if overtaken(err) {
		return nil
	}
	return err
}

// features raises the feature level to what all members know, so that commands
// of a newer version may be proposed.
type features struct{ Config }

func (f *features) name() string { return "feature level" }

func (f *features) round(ctx context.Context) error {
	v := f.Store.View()
	var level uint32
	for i, m := range v.Members() {
		if m.GetPhase() == api.Member_LEFT {
			continue
		}
		if known := max(m.GetFeatureLevel(), 1); i == 0 || known < level {
			level = known
		}
	}
	if level <= v.Globals().GetFeatureLevel() {
		return nil
	}
	err := f.propose(ctx, "all members know it", &api.Op{Op: &api.Op_FeatureLevelSet{FeatureLevelSet: &api.FeatureLevelSet{Level: level, Term: f.Term}}})
	if overtaken(err) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
