package fsm

import (
	"crypto/subtle"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// phoneHome takes the call of a deployed system. It needs no lock: whoever
// waits for it reads the record. The second call of one boot changes nothing.
func (w *work) phoneHome(op *api.PhoneHome, out *api.OpResult) error {
	id := op.GetNodeId()
	was := get(w, nodes, id)
	if was == nil {
		return noSuch("node", id)
	}
	e := was.GetEvidence()
	if op.GetToken() == "" || subtle.ConstantTimeCompare([]byte(op.GetToken()), []byte(e.GetToken())) != 1 {
		return errs.About(errs.Denied, id, "the phone-home of node %s has a token that is not current", id)
	}
	if err := checkSize("source", len(op.GetSource()), maxID); err != nil {
		return err
	}
	out.Id = id
	if e.GetSeen() != "" {
		return nil
	}
	f := get(w, flows, id)
	if !running(f) || f.GetId() != e.GetFlowId() {
		return errs.About(errs.WrongState, id, "node %s: the deploy that waited for this call is over", id)
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
