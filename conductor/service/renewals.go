package service

import (
	"context"
	"sync"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
)

// renewals is when this peer saw the live leases renewed last, on the elapsed
// clock. It is for people who ask how long a silent holder may go on; nothing
// is decided by it.
type renewals struct {
	store *fsm.Store
	clock clock.Clock

	mu   sync.Mutex
	seen map[string]renewal // guarded by mu; by lease
}

type renewal struct {
	seq uint64
	at  time.Duration
}

// run watches until ctx ends.
func (r *renewals) run(ctx context.Context) {
	tick := time.NewTicker(renewalsEvery)
	defer tick.Stop()
	for {
		r.look()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// renewalsEvery is how exact the answer is.
const renewalsEvery = time.Second

func (r *renewals) look() {
	v, now := r.store.View(), r.clock.Elapsed()
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.seen
	r.seen = map[string]renewal{}
	for l := range v.Leases() {
		if l.GetState() != api.Lease_LIVE {
			continue
		}
		if old, known := was[l.GetId()]; known && old.seq == l.GetRenewSeq() {
			r.seen[l.GetId()] = old
		} else {
			r.seen[l.GetId()] = renewal{l.GetRenewSeq(), now}
		}
	}
}

// since is how long ago the last renewal of a lease was seen.
func (r *renewals) since(l *api.Lease) (ago time.Duration, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen, known := r.seen[l.GetId()]
	if known && seen.seq != l.GetRenewSeq() {
		return 0, true
	}
	return r.clock.Elapsed() - seen.at, known
}
