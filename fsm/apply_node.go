package fsm

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// editNode is a node for modification. Its rev rises once a command.
func (w *work) editNode(id string) (*api.Node, error) {
	fresh := w.slots[slotKey{nodes.name, id}] == nil
	n := edit(w, nodes, id)
	if n == nil {
		return nil, noSuch("node", id)
	}
	if fresh {
		n.Rev++
		n.UpdatedMs = w.meta.GetWallMs()
	}
	return n, nil
}

// checkRev compares a node's rev, as it was before the command, with what the
// caller saw; 0 is whatever it is.
func (w *work) checkRev(n *api.Node, rev uint64) error {
	is := n.GetRev()
	if was := base(w, nodes, n.GetId()); was != nil {
		is = was.GetRev()
	}
	if rev != 0 && rev != is {
		return errs.About(errs.Conflict, n.GetId(), "node %s was changed: its rev is %d, not %d", n.GetId(), is, rev)
	}
	return nil
}

// checkName keeps names unique.
func (w *work) checkName(id, name string) error {
	if name == "" {
		return nil
	}
	for _, other := range find(w, nodes, byName, name, func(n *api.Node) bool { return n.GetName() == name }) {
		if other.GetId() != id {
			return errs.About(errs.Exists, name, "node %s has the name %q already", other.GetId(), name)
		}
	}
	return nil
}

func (w *work) nodeCreate(op *api.NodeCreate, out *api.OpResult) error {
	spec := op.GetNode()
	id := spec.GetId()
	if err := checkUUID("id", id); err != nil {
		return err
	}
	if err := checkSpec(spec); err != nil {
		return err
	}
	if other := get(w, nodes, id); other != nil {
		return errs.About(errs.Exists, id, "node %s exists already", id)
	}
	if err := w.checkName(id, spec.GetName()); err != nil {
		return err
	}
	n := &api.Node{
		Id: id, Rev: 1, CreatedMs: w.meta.GetWallMs(), UpdatedMs: w.meta.GetWallMs(),
		State: api.State_ENROLL, StateSinceMs: w.meta.GetWallMs(), StateSinceTick: w.c.ticks,
	}
	if err := node.Apply(n, node.SpecFields, spec); err != nil {
		return err
	}
	// The leader chose the owner as it proposed. A member that left since is
	// replaced by the next Assign, which is no reason to refuse the node.
	if owner := spec.GetAssigned(); owner != "" && get(w, members, owner) != nil {
		n.Assigned, n.AssignEpoch = owner, 1
	}
	put(w, nodes, n)
	w.note(n, pastState, "created")
	out.Id, out.Rev = id, n.GetRev()
	return nil
}

func (w *work) nodePatch(op *api.NodePatch, out *api.OpResult) error {
	id, fields := op.GetNodeId(), op.GetFields()
	was := get(w, nodes, id)
	if was == nil {
		return noSuch("node", id)
	}
	if err := node.CheckFields(fields, node.SpecFields); err != nil {
		return err
	}
	if err := checkSpec(op.GetNode()); err != nil {
		return err
	}
	// Before rev, which a flow changes with each step: that there is one is what
	// a person can do something about.
	if err := w.checkPatchable(was, fields); err != nil {
		return err
	}
	if err := w.checkRev(was, op.GetRev()); err != nil {
		return err
	}
	if slices.Contains(fields, "name") {
		if err := w.checkName(id, op.GetNode().GetName()); err != nil {
			return err
		}
	}
	n, err := w.editNode(id)
	if err != nil {
		return err
	}
	driver, info := n.GetDriver(), n.GetDriverInfo()
	if err := node.Apply(n, fields, op.GetNode()); err != nil {
		return err
	}
	if slices.Contains(fields, "driver") || slices.Contains(fields, "driver_info") {
		doubtBMC(n, driver, info)
	}
	if slices.Contains(fields, "maintenance") && !n.GetMaintenance() {
		n.MaintenanceReason, n.Fault = "", ""
	}
	w.note(n, pastPatch, "changed %s", strings.Join(fields, ", "))
	out.Id, out.Rev = id, n.GetRev()
	return nil
}

// anytime are the fields that no flow reads, which may be patched while one is
// under way.
var anytime = append([]string{"name", "resource_class"}, node.AnytimeFields...)

// checkPatchable refuses fields that a flow depends on while there is one.
func (w *work) checkPatchable(n *api.Node, fields []string) error {
	i := slices.IndexFunc(fields, func(f string) bool { return !slices.Contains(anytime, f) })
	if i < 0 {
		return nil
	}
	if f := get(w, flows, n.GetId()); running(f) {
		return errs.About(errs.Locked, n.GetId(), "node %s: %s cannot be changed while %s is under way",
			n.GetId(), fields[i], flowName(f))
	}
	if l := get(w, locks, n.GetId()); l != nil && l.GetClass() != classWaiting {
		return lockedBy(l)
	}
	return nil
}

func (w *work) nodeDelete(op *api.NodeDelete) error {
	id := op.GetNodeId()
	n := get(w, nodes, id)
	if n == nil {
		return noSuch("node", id)
	}
	if err := w.checkRev(n, op.GetRev()); err != nil {
		return err
	}
	if l := get(w, locks, id); l != nil {
		return lockedBy(l)
	}
	if f := get(w, flows, id); running(f) {
		return errs.About(errs.Locked, id, "node %s cannot be deleted while %s is under way", id, flowName(f))
	}
	if err := node.CheckDelete(n); err != nil {
		return err
	}
	if n.GetQuarantine().GetClass() != api.Quarantine_NONE {
		// Its BMC may be enrolled again at once, and a late action of the fenced
		// holder would land on the new node.
		return errs.About(errs.Busy, id, "node %s is in quarantine after the loss of a conductor, try again in a minute", id)
	}
	for _, p := range find(w, ports, byNode, id, func(p *api.Port) bool { return p.GetNodeId() == id }) {
		w.dropPort(p)
	}
	drop(w, flows, id)
	drop(w, inventories, id)
	drop(w, intents, id)
	drop(w, nodes, id)
	w.forget(id)
	return nil
}

// nodeWrite sets flow fields under a token.
func (w *work) nodeWrite(op *api.NodeWrite, out *api.OpResult) error {
	id := op.GetNodeId()
	if _, err := w.heldLock(id, op.GetToken()); err != nil {
		return err
	}
	if op.GetFlowId() != "" {
		if _, err := w.flowAt(id, op.GetFlowId(), op.GetCursor(), op.GetAttempt()); err != nil {
			return err
		}
	}
	if err := node.CheckFields(op.GetFields(), node.FlowFields); err != nil {
		return err
	}
	return w.writeFlowFields(id, op.GetFields(), op.GetNode(), out)
}

// nodeObserve sets a few flow fields without a lock.
func (w *work) nodeObserve(op *api.NodeObserve, out *api.OpResult) error {
	id := op.GetNodeId()
	n := get(w, nodes, id)
	if n == nil {
		return noSuch("node", id)
	}
	if n.GetAssignEpoch() != op.GetAssignEpoch() {
		return errs.About(errs.Conflict, id, "node %s was assigned anew: its epoch is %d, not %d",
			id, n.GetAssignEpoch(), op.GetAssignEpoch())
	}
	if op.DriverRev != nil && op.GetDriverRev() != n.GetDriverRev() {
		return errs.About(errs.Conflict, id, "node %s: its BMC was asked with the driver_info of rev %d, which has changed at rev %d",
			id, op.GetDriverRev(), n.GetDriverRev())
	}
	if l := get(w, locks, id); l != nil {
		return lockedBy(l)
	}
	if err := node.CheckFields(op.GetFields(), node.ObserveFields); err != nil {
		return err
	}
	return w.writeFlowFields(id, op.GetFields(), op.GetNode(), out)
}

func (w *work) writeFlowFields(id string, fields []string, from *api.Node, out *api.OpResult) error {
	if err := checkFlowFields(from); err != nil {
		return err
	}
	if slices.Contains(fields, "bmc") {
		if err := w.checkBMC(id, from.GetBmc()); err != nil {
			return err
		}
		if is := get(w, nodes, id); from.GetBmc() != nil && node.BMCChanged(&api.Node{Bmc: from.GetBmc(), DriverRev: is.GetDriverRev()}) {
			return errs.About(errs.Conflict, id, "node %s: its BMC was asked with the driver_info of rev %d, which has changed at rev %d",
				id, from.GetBmc().GetDriverRev(), is.GetDriverRev())
		}
	}
	n, err := w.editNode(id)
	if err != nil {
		return err
	}
	nonce := n.GetBoot().GetNonce()
	minted := n.GetBoot().GetMintedTick()
	if err := node.Apply(n, fields, from); err != nil {
		return err
	}
	n.LastError, n.Fault = clip(n.GetLastError(), maxError), clip(n.GetFault(), maxText)
	if b := n.GetBoot(); b != nil {
		b.MintedTick = minted
		if b.GetNonce() != nonce {
			b.MintedTick = w.c.ticks
		}
	}
	if n.GetBoot().GetNonce() != nonce {
		n.Agent = nil // enrolled for a boot that is over
	}
	out.Id, out.Rev = id, n.GetRev()
	return nil
}

// checkFlowFields bounds the records that a flow writes into a node.
func checkFlowFields(n *api.Node) error {
	if n.GetEvidence().GetToken() != "" {
		return errs.About(errs.Invalid, "evidence.token", "a phone-home token in clear")
	}
	size := 0
	for _, s := range []string{
		n.GetBoot().GetNonce(),
		n.GetRootDisk().GetName(), n.GetRootDisk().GetSerial(), n.GetRootDisk().GetWwn(),
		n.GetRootDisk().GetByPath(), n.GetRootDisk().GetModel(), n.GetRootDisk().GetFlowId(), n.GetRootDisk().GetBegunCmd(),
		n.GetBmc().GetSystemUuid(), n.GetBmc().GetSerial(), n.GetBmc().GetVendor(), n.GetBmc().GetModel(),
		n.GetBmc().GetFirmware(), n.GetBmc().GetBmcKey(), n.GetErasure().GetFlowId(), n.GetBmcPark().GetMessage(),
		string(n.GetBmcPark().GetCredentialsDigest()),
		n.GetEvidence().GetPolicy(), n.GetEvidence().GetFlowId(), n.GetEvidence().GetBootEntry(),
		n.GetEvidence().GetSeen(), n.GetEvidence().GetSource(), string(n.GetEvidence().GetPhoneHomeDigest()),
	} {
		size += len(s)
	}
	for _, list := range [][]string{n.GetBmc().GetSystemUuids(), n.GetBmc().GetBmcAddresses(), n.GetBmc().GetBmcMacs(), n.GetErasure().GetDisks()} {
		for _, s := range list {
			size += len(s) + 1
		}
	}
	for _, d := range slices.Concat(n.GetErasure().GetErased(), n.GetRootDisk().GetBefore()) {
		size += proto.Size(d)
	}
	return checkSize("flow fields of a node", size, maxDocument)
}
