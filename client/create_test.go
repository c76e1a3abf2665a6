package client

import (
	"errors"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client/clienttest"
	"github.com/ironring/ironring/internal/errs"
)

// A batch whose answer was lost is repeated at another peer under the request
// ids of its nodes, and each node is created once. The caller's request is left
// alone.
func TestCreateNodesIsRepeatedUnderItsRequestIDs(t *testing.T) {
	c := clienttest.New()
	peers := startPeers(t, c, "p1", "p2")
	cl := newClient(t, peers)
	peers[0].After(func(string) error { return errs.New(errs.Timeout, "answer lost") })
	req := &api.CreateNodesRequest{Nodes: []*api.CreateNodeRequest{
		{Node: &api.Node{Name: "a", Driver: "fake"}}, {Node: &api.Node{Name: "b", Driver: "none"}}, {Node: &api.Node{Name: "c", Driver: "fake"}},
	}}
	rep, err := cl.CreateNodes(testContext(t), req)
	if err != nil {
		t.Fatal(err)
	}
	res := rep.GetResults()
	if len(res) != 3 || res[0].GetCreated().GetNode().GetName() != "a" || res[2].GetCreated().GetNode().GetName() != "c" ||
		res[1].GetFailure().GetKind() != errs.Invalid.String() {
		t.Errorf("%v", rep)
	}
	if req.GetNodes()[0].GetRequestId() != "" {
		t.Error("the caller's request was changed")
	}
	if cl.Index() < rep.GetIndex() || rep.GetIndex() == 0 {
		t.Errorf("the client saw %d, the answer says %d", cl.Index(), rep.GetIndex())
	}
	if _, err := cl.CreateNodes(testContext(t), &api.CreateNodesRequest{Nodes: make([]*api.CreateNodeRequest, 257)}); !errors.Is(err, errs.Invalid) {
		t.Errorf("too many: %v", err)
	}
}
