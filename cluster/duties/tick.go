package duties

import (
	"context"
	"errors"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// ticker moves the cluster clock by the leader's elapsed time. Without a
// quorum nothing is committed and the clock stands still; Apply counts at most
// 10 s of one tick, and time whose tick has an unknown outcome is not counted
// again.
type ticker struct {
	Config
	last time.Duration
}

func newTicker(cfg Config) *ticker { return &ticker{Config: cfg, last: cfg.Clock.Elapsed()} }

func (t *ticker) name() string { return "tick" }

func (t *ticker) round(ctx context.Context) error {
	now := t.Clock.Elapsed()
	passed := (now - t.last).Milliseconds()
	if passed <= 0 {
		return nil
	}
	err := t.propose(ctx, "the clock of the cluster", &api.Op{Op: &api.Op_Tick{Tick: &api.Tick{Ms: uint64(passed), Term: t.Term}}})
	if err == nil || errors.Is(err, errs.Timeout) {
		t.last += time.Duration(passed) * time.Millisecond
	}
	return err
}
