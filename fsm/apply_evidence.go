package fsm

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// phoneHome takes the call of a deployed system. It needs no lock: whoever
// waits for it reads the record. The second call of one boot changes nothing.
func (w *work) phoneHome(op *api.PhoneHome, out *api.OpResult) error {
	id := op.GetNodeId()
	was, f := get(w, nodes, id), get(w, flows, id)
	if was == nil {
		return noSuch("node", id)
	}
	if op.GetToken() != "" {
		return errs.About(errs.Invalid, "phone_home.token", "a phone-home with its token in clear")
	}
	if len(op.GetDigest()) == 0 || !bytes.Equal(op.GetDigest(), f.GetPhoneHomeDigest()) {
		return errs.About(errs.Denied, id, "the phone-home of node %s has a token that is not current", id)
	}
	if err := checkSize("source", len(op.GetSource()), maxID); err != nil {
		return err
	}
	out.Id = id
	e := was.GetEvidence()
	switch ours := e.GetFlowId() == f.GetId(); {
	case ours && e.GetSeen() != "":
		return nil
	case !ours || !running(f):
		return errs.About(errs.WrongState, id, "node %s: the deploy that waited for this call is over", id)
	case !node.AwaitsSystem(f):
		return errs.About(errs.Busy, id, "node %s: a call before the machine was switched on from its disk proves nothing; call again", id)
	}
	n, err := w.editNode(id)
	if err != nil {
		return err
	}
	n.Evidence = proto.CloneOf(e)
	n.Evidence.Seen, n.Evidence.SeenMs, n.Evidence.Source = "phone_home", w.meta.GetWallMs(), op.GetSource()
	w.note(n, pastFlow, "phone-home from %s", op.GetSource())
	out.Rev = n.GetRev()
	return nil
}

// checkPhoneHome refuses a token that the system of another node may call
// with: it would prove the wrong machine. That is one that is being deployed,
// and one that was deployed with the token and not torn down since.
func (w *work) checkPhoneHome(id string, digest []byte) error {
	if len(digest) == 0 {
		return nil
	}
	if len(digest) != sha256.Size {
		return errs.About(errs.Invalid, "flow.phone_home_digest", "a phone-home digest of %d bytes, not %d", len(digest), sha256.Size)
	}
	key := hex.EncodeToString(digest)
	for _, f := range find(w, flows, byPhoneHome, key, func(f *api.Flow) bool { return flowPhoneHome(f) == key }) {
		if f.GetNodeId() != id {
			return errs.About(errs.Conflict, "phone_home_token", "the deploy of node %s waits for the same phone-home token: give each node one of its own", f.GetNodeId())
		}
	}
	for _, n := range find(w, nodes, byPhoneHome, key, func(n *api.Node) bool { return nodePhoneHome(n) == key }) {
		if n.GetId() != id {
			return errs.About(errs.Conflict, "phone_home_token", "node %s was deployed with the same phone-home token, and its system may call again: give each node one of its own", n.GetId())
		}
	}
	return nil
}

// flowPhoneHome and nodePhoneHome are keys of indexes; "" where there is none.
func flowPhoneHome(f *api.Flow) string {
	if !running(f) {
		return ""
	}
	return hex.EncodeToString(f.GetPhoneHomeDigest())
}

func nodePhoneHome(n *api.Node) string {
	return hex.EncodeToString(n.GetEvidence().GetPhoneHomeDigest())
}

// FlowOfPhoneHome is the unfinished flow whose system calls with the token of
// a digest, nil when there is none.
func (v *View) FlowOfPhoneHome(digest []byte) *api.Flow {
	if len(digest) == 0 {
		return nil
	}
	return first(v.txn, flows, byPhoneHome, hex.EncodeToString(digest))
}

// NodeOfPhoneHome is the node whose deployed system has the token of a digest,
// as its evidence says, nil when there is none: also once the deploy has ended,
// until the node is torn down or deployed anew.
func (v *View) NodeOfPhoneHome(digest []byte) *api.Node {
	if len(digest) == 0 {
		return nil
	}
	return first(v.txn, nodes, byPhoneHome, hex.EncodeToString(digest))
}
