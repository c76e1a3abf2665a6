package fsm

import (
	"bytes"
	"crypto/sha256"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// leasesKept is how many leases that are over are kept of a conductor: the
// leader reads their timing while their nodes are in quarantine.
const leasesKept = 8

// Causes of a fence.
const (
	causeExpired      = "expired"
	causeDead         = "dead"
	causeUnresponsive = "unresponsive"
	causeOperator     = "operator"
	causeSuperseded   = "superseded"
)

// liveLease is a lease that was neither fenced nor released.
func (w *work) liveLease(id string) (*api.Lease, error) {
	l := get(w, leases, id)
	if l == nil {
		return nil, errs.About(errs.Fenced, id, "lease %q is not live: it is not known", clip(id, maxID))
	}
	if l.GetState() != api.Lease_LIVE {
		why := "released"
		if l.GetState() == api.Lease_FENCED {
			why = "fenced" + because(l.GetFencedCause())
		}
		return nil, errs.About(errs.Fenced, id, "lease %s is not live: %s", id, why)
	}
	return l, nil
}

func (w *work) leaseRegister(op *api.LeaseRegister, out *api.OpResult) error {
	in := op.GetLease()
	if err := checkID("lease id", in.GetId()); err != nil {
		return err
	}
	if err := checkSize("lease", len(in.GetIncarnation())+len(in.GetMachineId())+len(in.GetBootId()), maxText); err != nil {
		return err
	}
	if n := len(in.GetGuardDigest()); n != 0 && n != sha256.Size {
		return errs.About(errs.Invalid, "guard_digest", "the guard's digest has %d bytes, not %d", n, sha256.Size)
	}
	conductor := in.GetConductor()
	if get(w, members, conductor) == nil {
		return noSuch("member", conductor)
	}
	if get(w, leases, in.GetId()) != nil {
		return errs.About(errs.Exists, in.GetId(), "lease %s exists already", in.GetId())
	}
	timing := get(w, settings, TableSettings).GetTiming()
	if in.GetTiming() != nil && !proto.Equal(in.GetTiming(), timing) {
		return errs.About(errs.Conflict, conductor, "conductor %s uses other timing than the cluster's settings", conductor)
	}
	live := func(l *api.Lease) bool { return l.GetConductor() == conductor && l.GetState() == api.Lease_LIVE }
	for _, old := range find(w, leases, byLive, conductor, live) {
		same := in.GetMachineId() != "" && in.GetMachineId() == old.GetMachineId() &&
			in.GetBootId() != "" && in.GetBootId() == old.GetBootId()
		if !same || !op.GetDirectoryLock() {
			return errs.About(errs.Conflict, conductor, "conductor %s has the lease %s: wait until the old lease expires", conductor, old.GetId())
		}
		w.fence(old.GetId(), causeDead)
	}
	w.pruneLeases(conductor)
	put(w, leases, &api.Lease{
		Id: in.GetId(), Conductor: conductor, Incarnation: in.GetIncarnation(),
		MachineId: in.GetMachineId(), BootId: in.GetBootId(), RenewSeq: in.GetRenewSeq(),
		GuardDigest: in.GetGuardDigest(), Timing: proto.CloneOf(timing), RegisteredMs: w.meta.GetWallMs(),
	})
	out.Id, out.Seq = in.GetId(), in.GetRenewSeq()
	return nil
}

// pruneLeases forgets the oldest leases of a conductor that are over.
func (w *work) pruneLeases(conductor string) {
	over := find(w, leases, byConductor, conductor, func(l *api.Lease) bool { return l.GetConductor() == conductor })
	over = slices.DeleteFunc(over, func(l *api.Lease) bool { return l.GetState() == api.Lease_LIVE })
	slices.SortStableFunc(over, func(a, b *api.Lease) int {
		return bytes.Compare([]byte(be64(w.endedAt(a))), []byte(be64(w.endedAt(b))))
	})
	for len(over) > leasesKept {
		drop(w, leases, over[0].GetId())
		over = over[1:]
	}
}

// endedAt is the index at which a lease was last changed.
func (w *work) endedAt(l *api.Lease) uint64 {
	if w.slots[slotKey{leases.name, l.GetId()}] != nil {
		return w.index
	}
	return l.GetIndex()
}

func (w *work) leaseRenew(op *api.LeaseRenew, out *api.OpResult) error {
	l, err := w.liveLease(op.GetLeaseId())
	if err != nil {
		return err
	}
	if op.GetSeq() > l.GetRenewSeq() {
		l = edit(w, leases, l.GetId())
		l.RenewSeq = op.GetSeq()
	}
	if len(op.GetProgressed()) > 0 {
		progressed := make(map[uint64]bool, len(op.GetProgressed()))
		for _, t := range op.GetProgressed() {
			progressed[t] = true
		}
		for _, k := range w.locksOf(l.GetId()) {
			if progressed[k.GetToken()] {
				edit(w, locks, k.GetNodeId()).ProgressTick = w.c.ticks
			}
		}
	}
	out.Id, out.Seq = l.GetId(), l.GetRenewSeq()
	return nil
}

func (w *work) locksOf(lease string) []*api.Lock {
	return find(w, locks, byLease, lease, func(l *api.Lock) bool { return l.GetLeaseId() == lease })
}

func (w *work) leaseExpire(op *api.LeaseExpire) error {
	if err := w.leader(op.GetTerm()); err != nil {
		return err
	}
	l, err := w.liveLease(op.GetLeaseId())
	if err != nil {
		return err
	}
	if l.GetRenewSeq() != op.GetSeq() {
		return errs.About(errs.Conflict, l.GetId(), "lease %s was renewed: its seq is %d, not %d", l.GetId(), l.GetRenewSeq(), op.GetSeq())
	}
	w.fence(l.GetId(), causeExpired)
	return nil
}

func (w *work) leaseFence(op *api.LeaseFence) error {
	if err := w.leader(op.GetTerm()); err != nil {
		return err
	}
	if !slices.Contains([]string{causeUnresponsive, causeOperator, causeSuperseded}, op.GetCause()) {
		return errs.About(errs.Invalid, "cause", "a lease is not fenced because of %q", clip(op.GetCause(), maxID))
	}
	l, err := w.liveLease(op.GetLeaseId())
	if err != nil {
		return err
	}
	w.fence(l.GetId(), op.GetCause())
	return nil
}

// leaseTombstone fences a lease whose process was reaped by its guard, which
// proves itself by a secret.
func (w *work) leaseTombstone(op *api.LeaseTombstone) error {
	l, err := w.liveLease(op.GetLeaseId())
	if err != nil {
		return err
	}
	digest := sha256.Sum256(op.GetSecret())
	if len(l.GetGuardDigest()) == 0 || !bytes.Equal(digest[:], l.GetGuardDigest()) {
		return errs.About(errs.Denied, l.GetId(), "lease %s: the secret is not that of its guard", l.GetId())
	}
	w.fence(l.GetId(), causeDead)
	return nil
}

func (w *work) leaseRelease(op *api.LeaseRelease) error {
	l, err := w.liveLease(op.GetLeaseId())
	if err != nil {
		return err
	}
	if n := len(w.locksOf(l.GetId())); n > 0 {
		return errs.About(errs.Conflict, l.GetId(), "lease %s still holds %d locks", l.GetId(), n)
	}
	edit(w, leases, l.GetId()).State = api.Lease_RELEASED
	return nil
}

// fence ends a live lease and frees its locks. Its unfinished flows stay: they
// are the takeover queue.
func (w *work) fence(leaseID, cause string) {
	l := edit(w, leases, leaseID)
	l.State, l.FencedCause, l.FenceIndex = api.Lease_FENCED, cause, w.index
	dead := cause == causeDead
	for _, k := range w.locksOf(leaseID) {
		id := k.GetNodeId()
		drop(w, locks, id)
		n, err := w.editNode(id)
		if err != nil {
			continue // a locked node cannot be deleted
		}
		switch {
		case get(w, intents, id) != nil:
			w.quarantine(n, api.Quarantine_LONG, dead)
		case !dead:
			w.quarantine(n, api.Quarantine_SHORT, false)
		}
		w.note(n, pastFence, "lock of conductor %s freed: lease %s %s", l.GetConductor(), leaseID, cause)
	}
}
