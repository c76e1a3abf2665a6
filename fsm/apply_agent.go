package fsm

import (
	"bytes"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// agentEnrol binds an agent's key to the boot nonce of its node.
func (w *work) agentEnrol(op *api.AgentEnrol, out *api.OpResult) error {
	id, s := op.GetNodeId(), op.GetSession()
	was := get(w, nodes, id)
	if was == nil {
		return noSuch("node", id)
	}
	if len(s.GetKeyDigest()) != 32 {
		return errs.About(errs.Invalid, "key_digest", "the digest of the agent's key has %d bytes, not 32", len(s.GetKeyDigest()))
	}
	if err := checkSize("agent session", len(s.GetIncarnation())+len(s.GetAddress())+len(s.GetVersion()), maxText); err != nil {
		return err
	}
	boot := was.GetBoot()
	if boot.GetTarget() != api.BootTarget_BOOT_RAMDISK || boot.GetNonce() == "" || boot.GetNonce() != s.GetNonce() {
		return errs.About(errs.Denied, id, "an agent of node %s called with a boot nonce that is not current", id)
	}
	enrolled := w.meta.GetWallMs()
	if a := was.GetAgent(); a.GetNonce() == s.GetNonce() {
		if !bytes.Equal(a.GetKeyDigest(), s.GetKeyDigest()) {
			return errs.About(errs.Conflict, id, "two machines claim this boot of node %s", id)
		}
		enrolled = a.GetEnrolledMs()
	}
	n, err := w.editNode(id)
	if err != nil {
		return err
	}
	n.Agent = proto.CloneOf(s)
	n.Agent.EnrolledMs = enrolled
	out.Id, out.Rev = id, n.GetRev()
	return nil
}

// inventorySet stores what the agent found.
func (w *work) inventorySet(op *api.InventorySet, out *api.OpResult) error {
	inv := op.GetInventory()
	id := inv.GetNodeId()
	if _, err := w.heldLock(id, op.GetToken()); err != nil {
		return err
	}
	if err := checkSize("inventory", len(inv.GetJson()), maxInventory); err != nil {
		return err
	}
	put(w, inventories, proto.CloneOf(inv))
	out.Id = id
	return nil
}
