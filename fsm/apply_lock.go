package fsm

import (
	"slices"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// Classes of locks.
const (
	classWork    = "work"    // shown to users as a reservation
	classWaiting = "waiting" // held while the machine or its agent is waited for
)

// epochShift leaves the counter of tokens 40 bits below the restore epoch.
const epochShift = 40

func lockedBy(l *api.Lock) error {
	return errs.About(errs.Locked, l.GetNodeId(), "node %s is locked by conductor %s for %q (token %d)",
		l.GetNodeId(), l.GetConductor(), l.GetPurpose(), l.GetToken())
}

// currentLock is the lock of a node under a token.
func (w *work) currentLock(nodeID string, token uint64) (*api.Lock, error) {
	l := get(w, locks, nodeID)
	if l == nil {
		if get(w, nodes, nodeID) == nil {
			return nil, noSuch("node", nodeID)
		}
		return nil, errs.About(errs.Fenced, nodeID, "node %s: token %d is not current, the node is not locked", nodeID, token)
	}
	if l.GetToken() != token {
		return nil, errs.About(errs.Fenced, nodeID, "node %s: token %d is not current, conductor %s holds the lock with token %d",
			nodeID, token, l.GetConductor(), l.GetToken())
	}
	return l, nil
}

// heldLock is currentLock that is not being broken.
func (w *work) heldLock(nodeID string, token uint64) (*api.Lock, error) {
	l, err := w.currentLock(nodeID, token)
	if err == nil && l.GetState() != api.Lock_HELD {
		return nil, errs.About(errs.Fenced, nodeID, "node %s: the lock with token %d is being broken", nodeID, token)
	}
	return l, err
}

// leader accepts a command of the leader's duties only in the term in which
// the leader took them up.
func (w *work) leader(term uint64) error {
	if term != w.term {
		return errs.New(errs.NotLeader, "decided in term %d, but this is term %d", term, w.term)
	}
	return nil
}

func (w *work) lockAcquire(op *api.LockAcquire, out *api.OpResult) error {
	id := op.GetNodeId()
	if err := checkSize("purpose", len(op.GetPurpose()), maxID); err != nil {
		return err
	}
	class := op.GetClass()
	if class == "" {
		class = classWork
	}
	if class != classWork && class != classWaiting {
		return errs.About(errs.Invalid, "class", "there is no class of locks %q", clip(class, maxID))
	}
	lease, err := w.liveLease(op.GetLeaseId())
	if err != nil {
		return err
	}
	was := get(w, nodes, id)
	if was == nil {
		return noSuch("node", id)
	}
	if l := get(w, locks, id); l != nil {
		return lockedBy(l)
	}
	if err := w.checkRev(was, op.GetRev()); err != nil {
		return err
	}
	conductor := lease.GetConductor()
	if was.GetAssigned() != conductor {
		return errs.About(errs.NotOwner, id, "node %s is assigned to %q, not to %s", id, was.GetAssigned(), conductor)
	}
	if m := get(w, members, conductor); m == nil || !slices.Contains(m.GetDrivers(), was.GetDriver()) {
		return errs.About(errs.Unsupported, id, "conductor %s does not have the driver %q of node %s", conductor, was.GetDriver(), id)
	}
	n, err := w.editNode(id)
	if err != nil {
		return err
	}
	w.c.nextToken++
	token := w.c.restoreEpoch<<epochShift | w.c.nextToken
	n.LastToken = token
	put(w, locks, &api.Lock{
		NodeId: id, Token: token, LeaseId: lease.GetId(), Conductor: conductor,
		Purpose: op.GetPurpose(), Class: class, AcquiredTick: w.c.ticks, ProgressTick: w.c.ticks,
		HoldLimitMs: op.GetHoldLimitMs(), StallLimitMs: op.GetStallLimitMs(), AcquiredMs: w.meta.GetWallMs(),
	})
	w.takeOver(n, lease)
	out.Id, out.Rev, out.Token = id, n.GetRev(), token
	return nil
}

// takeOver records that a lease goes on with an unfinished flow.
func (w *work) takeOver(n *api.Node, lease *api.Lease) {
	f := get(w, flows, n.GetId())
	if !running(f) || f.GetLastLease() == lease.GetId() {
		return
	}
	first := f.GetLastLease() == ""
	f = edit(w, flows, n.GetId())
	f.LastLease = lease.GetId()
	if !first {
		f.Takeovers++
		w.note(n, pastLock, "conductor %s took over %s at step %d", lease.GetConductor(), flowName(f), f.GetCursor())
	}
}

func (w *work) lockBreak(op *api.LockBreak) error {
	if err := w.leader(op.GetTerm()); err != nil {
		return err
	}
	l, err := w.currentLock(op.GetNodeId(), op.GetToken())
	if err != nil {
		return err
	}
	if l.GetState() == api.Lock_BREAKING {
		return nil
	}
	edit(w, locks, op.GetNodeId()).State = api.Lock_BREAKING
	if n := get(w, nodes, op.GetNodeId()); n != nil {
		w.note(n, pastLock, "lock of conductor %s is being broken%s", l.GetConductor(), because(op.GetCause()))
	}
	return nil
}

func (w *work) lockRelease(op *api.LockRelease, out *api.OpResult) error {
	id := op.GetNodeId()
	l, err := w.currentLock(id, op.GetToken())
	if err != nil {
		return err
	}
	if i := get(w, intents, id); i != nil {
		if l.GetState() != api.Lock_BREAKING {
			return errs.About(errs.Conflict, id, "node %s: the intent %q (seq %d) is open", id, i.GetKind(), i.GetSeq())
		}
		n, err := w.editNode(id)
		if err != nil {
			return err
		}
		w.quarantine(n, api.Quarantine_LONG, false)
	}
	drop(w, locks, id)
	out.Id, out.Token = id, l.GetToken()
	return nil
}
