package duties

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/errs"
)

// fences expires leases that are not renewed and ends quarantines once no
// request of the old holder can act any more. One duty does both, because when
// a quarantine begins depends on when the lease was last renewed.
type fences struct {
	Config
	changes feed
	leases  map[string]*seenLease
	nodes   map[string]*seenQuarantine
}

// seenLease is when this leader saw the last renewal of a lease.
type seenLease struct {
	seq   uint64
	since time.Duration
}

// seenQuarantine is when this leader saw a node's quarantine begin.
type seenQuarantine struct {
	fenceIndex uint64
	class      api.Quarantine_Class
	since      time.Duration
}

func newFences(cfg Config) *fences {
	return &fences{Config: cfg, changes: feed{store: cfg.Store}, leases: map[string]*seenLease{}, nodes: map[string]*seenQuarantine{}}
}

func (f *fences) name() string { return "leases" }

func (f *fences) round(ctx context.Context) error {
	v, changes, all := f.changes.next()
	now := f.Clock.Elapsed()
	expired := f.watchLeases(v, now)
	f.watchNodes(v, now, changes, all)
	var failed []error
	for _, l := range expired {
		f.Logger.Warn("lease expired: its nodes go to other conductors", "peer", l.GetConductor(), "lease", l.GetId(), "term", f.Term)
		err := f.propose(ctx, "lease expired", &api.Op{Op: &api.Op_LeaseExpire{LeaseExpire: &api.LeaseExpire{
			LeaseId: l.GetId(), Seq: f.leases[l.GetId()].seq, Term: f.Term,
		}}})
		if errors.Is(err, errs.NoQuorum) {
			// Nobody could renew either: let everybody, once that is over.
			f.seenNow(now)
		}
		if err != nil && !overtaken(err) {
			failed = append(failed, err)
		}
	}
	return errors.Join(append(failed, f.clear(ctx, v, now))...)
}

// seenNow begins the wait for each lease anew, which can only lengthen it.
func (f *fences) seenNow(now time.Duration) {
	for _, seen := range f.leases {
		seen.since = now
	}
}

// watchLeases notes renewals and gives the leases whose time is up.
func (f *fences) watchLeases(v *fsm.View, now time.Duration) (expired []*api.Lease) {
	there := map[string]bool{}
	for l := range v.Leases() {
		there[l.GetId()] = true
		seen := f.leases[l.GetId()]
		if seen == nil {
			seen = &seenLease{seq: l.GetRenewSeq(), since: now}
			f.leases[l.GetId()] = seen
		}
		if l.GetState() != api.Lease_LIVE {
			continue
		}
		if seen.seq != l.GetRenewSeq() {
			seen.seq, seen.since = l.GetRenewSeq(), now
		}
		if now-seen.since >= ms(l.GetTiming().GetLeaseMs()) {
			expired = append(expired, l)
		}
	}
	for id := range f.leases {
		if !there[id] {
			delete(f.leases, id)
		}
	}
	return expired
}

// watchNodes notes quarantines that began or ended.
func (f *fences) watchNodes(v *fsm.View, now time.Duration, changes []fsm.Change, all bool) {
	look := func(id string, n *api.Node) {
		q := n.GetQuarantine()
		if q.GetClass() == api.Quarantine_NONE {
			delete(f.nodes, id)
		} else if seen := f.nodes[id]; seen == nil || seen.fenceIndex != q.GetFenceIndex() || seen.class != q.GetClass() {
			f.nodes[id] = &seenQuarantine{fenceIndex: q.GetFenceIndex(), class: q.GetClass(), since: now}
		}
	}
	if all {
		old := f.nodes
		f.nodes = map[string]*seenQuarantine{}
		for n := range v.Nodes() {
			if q := n.GetQuarantine(); q.GetClass() == api.Quarantine_NONE {
				continue
			} else if seen := old[n.GetId()]; seen != nil && seen.fenceIndex == q.GetFenceIndex() && seen.class == q.GetClass() {
				f.nodes[n.GetId()] = seen
			} else {
				look(n.GetId(), n)
			}
		}
		return
	}
	for _, ch := range changes {
		if ch.Table == fsm.TableNodes {
			look(ch.Key, v.Node(ch.Key))
		}
	}
}

// clear ends the quarantines whose wait is over.
func (f *fences) clear(ctx context.Context, v *fsm.View, now time.Duration) error {
	if len(f.nodes) == 0 {
		return nil
	}
	fenced := map[uint64][]*api.Lease{} // one entry of the log may fence several
	for l := range v.Leases() {
		if l.GetState() == api.Lease_FENCED {
			fenced[l.GetFenceIndex()] = append(fenced[l.GetFenceIndex()], l)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(64) // the committer packs them
	for id, seen := range f.nodes {
		q := v.Node(id).GetQuarantine()
		if q.GetFenceIndex() != seen.fenceIndex || now < f.clearAt(q, seen, fenced[seen.fenceIndex], v) {
			continue
		}
		g.Go(func() error {
			err := f.propose(ctx, "quarantine is over", &api.Op{Op: &api.Op_QuarantineClear{QuarantineClear: &api.QuarantineClear{
				NodeId: id, FenceIndex: seen.fenceIndex, Class: seen.class, Term: f.Term,
			}}})
			if overtaken(err) {
				return nil
			}
			return err
		})
	}
	return g.Wait()
}

// clearAt is when no request of the old holder can act any more.
//
// After an expiry the wait counts from the fence; after a release with an open
// intent too, because the holder had closed its gate. A holder that was fenced
// for another reason may still be inside its own validity, so that the wait
// counts from the end of its lease. A holder that is proven dead sent its last
// byte before the fence: only what is on its way (Q) is waited for.
func (f *fences) clearAt(q *api.Quarantine, seen *seenQuarantine, leases []*api.Lease, v *fsm.View) time.Duration {
	at := seen.since + waitOf(v.Settings().GetTiming(), q)
	for _, l := range leases {
		from := seen.since
		if !q.GetTombstone() && l.GetFencedCause() != "expired" {
			from = max(from, f.leases[l.GetId()].since+ms(l.GetTiming().GetLeaseMs()))
		}
		at = max(at, from+waitOf(l.GetTiming(), q))
	}
	return at
}

// waitOf is G0, G0 + Q, or Q alone after a proven death.
func waitOf(t *api.Timing, q *api.Quarantine) time.Duration {
	var wait time.Duration
	if !q.GetTombstone() {
		wait = ms(t.GetSettleMs())
	}
	if q.GetClass() == api.Quarantine_LONG {
		wait += ms(t.GetTcpUserMs()) + ms(t.GetBmcEffectMs())
	}
	return wait
}

// feed gives the changes since it was last asked.
type feed struct {
	store *fsm.Store
	begun bool
	after uint64
}

// next gives what changed and a view that has all of it; all is true when
// everything must be looked at.
func (f *feed) next() (v *fsm.View, changes []fsm.Change, all bool) {
	changes, upTo, _, err := f.store.Changes(f.after)
	all = !f.begun || err != nil
	f.begun, f.after = true, upTo
	return f.store.View(), changes, all // the view last: it must not be older
}
