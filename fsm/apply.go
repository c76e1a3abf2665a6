package fsm

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// Apply applies a committed entry: one result for each of its commands. A
// refused command has Result.failure set and has changed nothing. The error is
// for what must stop the process: an entry that this build does not
// understand, or one that is not newer than the state.
//
// Results are shared with the state and must not be modified.
func (s *Store) Apply(index, term uint64, entry []byte) ([]*api.Result, error) {
	e, err := Decode(entry)
	if err != nil {
		return nil, fmt.Errorf("apply entry %d: %w", index, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	db := s.db.Load()
	at := newView(db).head
	if index <= at.index {
		return nil, fmt.Errorf("apply entry %d: the state is already at %d", index, at.index)
	}

	w := &work{
		db: db.Txn(true), index: index, term: term, head: *at, hints: s.hints, newHints: hints{},
		answered: s.answered, slots: map[slotKey]*slot{}, reported: make(map[slotKey]struct{}, 2*len(e.GetCommands())),
	}
	w.sealed = bytes.Contains(entry, []byte(sealedStart))
	defer w.db.Abort() // nothing once committed
	results := make([]*api.Result, len(e.GetCommands()))
	for i, cmd := range e.GetCommands() {
		results[i] = w.command(cmd, len(entry))
	}
	w.flushAnswers()
	w.head.index, w.head.term = index, term
	h := w.head // a copy, so that the state does not keep the whole work alive
	must(w.db.Insert(tableHead, &h))
	w.db.Commit()
	s.changes.add(index, w.changes)
	return results, nil
}

// command applies one command of an entry of a given size.
func (w *work) command(cmd *api.Command, entrySize int) *api.Result {
	w.begin(cmd.GetMeta())
	res := &api.Result{Index: w.index}
	if err := w.admit(cmd, entrySize); err != nil {
		res.Failure = failure(err)
		return res
	}
	if known := w.known(); known != nil {
		return known
	}
	if w.sealed {
		if err := w.checkSealed(cmd); err != nil {
			res.Failure = failure(err)
			return res
		}
	}
	for _, op := range cmd.GetOps() {
		out := &api.OpResult{}
		if err := w.op(op, out); err != nil {
			res.Failure, res.Ops = failure(err), nil
			return res
		}
		res.Ops = append(res.Ops, out)
	}
	w.audit(cmd)
	w.flush()
	w.remember(res)
	return res
}

// admit checks the bounds of a command.
func (w *work) admit(cmd *api.Command, entrySize int) error {
	if entrySize > MaxEntry {
		return errs.New(errs.Invalid, "an entry of %d bytes is over %d", entrySize, MaxEntry)
	}
	if entrySize > MaxCommand { // else no command in it can be
		if size := proto.Size(cmd); size > MaxCommand {
			return errs.New(errs.Invalid, "a command of %d bytes is over %d", size, MaxCommand)
		}
	}
	if len(cmd.GetOps()) == 0 {
		return errs.New(errs.Invalid, "a command without operations")
	}
	return checkMeta(w.meta)
}

func failure(err error) *api.Failure {
	f := &api.Failure{Kind: errs.KindOf(err).String(), Subject: clip(errs.SubjectOf(err), maxText)}
	f.Message = clip(err.Error(), maxError)
	return f
}

var errEmptyOp = errors.New("an operation without content")

// op applies one operation. A refusal may leave the overlay half changed: the
// whole command is forgotten then.
func (w *work) op(op *api.Op, out *api.OpResult) error {
	switch o := op.GetOp().(type) {
	case *api.Op_NodeCreate:
		return w.nodeCreate(o.NodeCreate, out)
	case *api.Op_NodePatch:
		return w.nodePatch(o.NodePatch, out)
	case *api.Op_NodeDelete:
		return w.nodeDelete(o.NodeDelete)
	case *api.Op_BmcTrust:
		return w.bmcTrust(o.BmcTrust, out)
	case *api.Op_PortCreate:
		return w.portCreate(o.PortCreate, out)
	case *api.Op_PortDelete:
		return w.portDelete(o.PortDelete)
	case *api.Op_NetworkSet:
		return w.networkSet(o.NetworkSet, out)
	case *api.Op_NetworkDelete:
		return w.networkDelete(o.NetworkDelete)
	case *api.Op_AddressAllocate:
		return w.addressAllocate(o.AddressAllocate, out)
	case *api.Op_FlowCreate:
		return w.flowCreate(o.FlowCreate, out)
	case *api.Op_FlowRequest:
		return w.flowRequest(o.FlowRequest, out)
	case *api.Op_StepStart:
		return w.stepStart(o.StepStart, out)
	case *api.Op_StepDone:
		return w.stepDone(o.StepDone, out)
	case *api.Op_FlowRewind:
		return w.flowRewind(o.FlowRewind, out)
	case *api.Op_FlowEnd:
		return w.flowEnd(o.FlowEnd, out)
	case *api.Op_NodeWrite:
		return w.nodeWrite(o.NodeWrite, out)
	case *api.Op_NodeObserve:
		return w.nodeObserve(o.NodeObserve, out)
	case *api.Op_AgentEnrol:
		return w.agentEnrol(o.AgentEnrol, out)
	case *api.Op_InventorySet:
		return w.inventorySet(o.InventorySet, out)
	case *api.Op_PhoneHome:
		return w.phoneHome(o.PhoneHome, out)
	case *api.Op_LeaseRegister:
		return w.leaseRegister(o.LeaseRegister, out)
	case *api.Op_LeaseRenew:
		return w.leaseRenew(o.LeaseRenew, out)
	case *api.Op_LeaseExpire:
		return w.leaseExpire(o.LeaseExpire)
	case *api.Op_LeaseFence:
		return w.leaseFence(o.LeaseFence)
	case *api.Op_LeaseTombstone:
		return w.leaseTombstone(o.LeaseTombstone)
	case *api.Op_LeaseRelease:
		return w.leaseRelease(o.LeaseRelease)
	case *api.Op_LockAcquire:
		return w.lockAcquire(o.LockAcquire, out)
	case *api.Op_LockBreak:
		return w.lockBreak(o.LockBreak)
	case *api.Op_LockRelease:
		return w.lockRelease(o.LockRelease, out)
	case *api.Op_QuarantineClear:
		return w.quarantineClear(o.QuarantineClear)
	case *api.Op_IntentOpen:
		return w.intentOpen(o.IntentOpen, out)
	case *api.Op_IntentClose:
		return w.intentClose(o.IntentClose)
	case *api.Op_Bootstrap:
		return w.bootstrap(o.Bootstrap)
	case *api.Op_MemberSet:
		return w.memberSet(o.MemberSet, out)
	case *api.Op_MemberRemove:
		return w.memberRemove(o.MemberRemove)
	case *api.Op_Assign:
		return w.assign(o.Assign)
	case *api.Op_Tick:
		return w.tick(o.Tick)
	case *api.Op_SettingsSet:
		return w.settingsSet(o.SettingsSet, out)
	case *api.Op_TokenCreate:
		return w.tokenCreate(o.TokenCreate, out)
	case *api.Op_TokenConsume:
		return w.tokenConsume(o.TokenConsume, out)
	case *api.Op_FeatureLevelSet:
		return w.featureLevelSet(o.FeatureLevelSet)
	case *api.Op_KeysRequest:
		return w.keysRequest(o.KeysRequest)
	case *api.Op_KeysRotate:
		return w.keysRotate(o.KeysRotate)
	case *api.Op_KeysReseal:
		return w.keysReseal(o.KeysReseal)
	case *api.Op_KeysRetire:
		return w.keysRetire(o.KeysRetire)
	case *api.Op_ReachSet:
		return w.reachSet(o.ReachSet, out)
	case *api.Op_RestoreEpochRaise:
		return w.restoreEpochRaise(o.RestoreEpochRaise)
	case *api.Op_ArtifactSet:
		return w.artifactSet(o.ArtifactSet, out)
	case *api.Op_ArtifactCopy:
		return w.artifactCopy(o.ArtifactCopy, out)
	case *api.Op_ArtifactTouch:
		return w.artifactTouch(o.ArtifactTouch)
	case *api.Op_ArtifactDrop:
		return w.artifactDrop(o.ArtifactDrop)
	case *api.Op_RamdiskSet:
		return w.ramdiskSet(o.RamdiskSet, out)
	case *api.Op_RamdiskDelete:
		return w.ramdiskDelete(o.RamdiskDelete)
	}
	return errs.New(errs.Invalid, "%w", errEmptyOp)
}
