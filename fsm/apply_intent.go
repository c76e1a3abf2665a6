package fsm

import (
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// quarantine adds a wait before the next mutating BMC call of a node. It never
// shortens one that is under way: the end of one holder proves nothing about
// another.
func (w *work) quarantine(n *api.Node, class api.Quarantine_Class, tombstone bool) {
	old := n.GetQuarantine()
	if class == api.Quarantine_NONE || class < old.GetClass() {
		return
	}
	n.Quarantine = &api.Quarantine{
		Class: class, FenceIndex: w.index,
		Tombstone: tombstone && (old.GetClass() == api.Quarantine_NONE || old.GetTombstone()),
	}
}

func (w *work) quarantineClear(op *api.QuarantineClear) error {
	if err := w.leader(op.GetTerm()); err != nil {
		return err
	}
	id := op.GetNodeId()
	q := get(w, nodes, id).GetQuarantine()
	if q.GetClass() == api.Quarantine_NONE || q.GetClass() != op.GetClass() || q.GetFenceIndex() != op.GetFenceIndex() {
		return errs.About(errs.Conflict, id, "node %s: quarantine %s of fence %d is not current", id, op.GetClass(), op.GetFenceIndex())
	}
	n, err := w.editNode(id)
	if err != nil {
		return err
	}
	n.Quarantine = nil
	return nil
}

func (w *work) intentOpen(op *api.IntentOpen, out *api.OpResult) error {
	id := op.GetNodeId()
	if _, err := w.heldLock(id, op.GetToken()); err != nil {
		return err
	}
	if err := checkID("intent kind", op.GetKind()); err != nil {
		return err
	}
	if err := checkSize("args_digest", len(op.GetArgsDigest()), 64); err != nil {
		return err
	}
	if i := get(w, intents, id); i != nil {
		return errs.About(errs.Conflict, id, "node %s: the intent %q (seq %d) is open already", id, i.GetKind(), i.GetSeq())
	}
	if err := w.outOfQuarantine(id); err != nil {
		return err
	}
	if !node.Verified(get(w, nodes, id)) {
		return errs.About(errs.WrongState, id, "node %s: its BMC is not verified with the driver and driver_info that it has now", id)
	}
	n, err := w.editNode(id)
	if err != nil {
		return err
	}
	n.IntentSeq++
	put(w, intents, &api.Intent{
		NodeId: id, Seq: n.GetIntentSeq(), Token: op.GetToken(), Kind: op.GetKind(),
		ArgsDigest: op.GetArgsDigest(), OpenedTick: w.c.ticks,
	})
	out.Id, out.Rev, out.Seq = id, n.GetRev(), n.GetIntentSeq()
	return nil
}

func (w *work) outOfQuarantine(id string) error {
	if q := get(w, nodes, id).GetQuarantine(); q.GetClass() != api.Quarantine_NONE {
		return errs.About(errs.Busy, id, "node %s is in quarantine since fence %d", id, q.GetFenceIndex())
	}
	return nil
}

func (w *work) intentClose(op *api.IntentClose) error {
	id := op.GetNodeId()
	l, err := w.heldLock(id, op.GetToken())
	if err != nil {
		return err
	}
	i := get(w, intents, id)
	if i == nil || i.GetSeq() != op.GetSeq() {
		return errs.About(errs.Conflict, id, "node %s: the intent with seq %d is not open", id, op.GetSeq())
	}
	if i.GetToken() != l.GetToken() {
		if err := w.outOfQuarantine(id); err != nil {
			return err
		}
	}
	drop(w, intents, id)
	return nil
}
