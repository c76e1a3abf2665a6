package service_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/internal/errs"
)

// Nodes that are created together are created or refused one by one: each with
// all of its ports or not at all, with results in order, and a repeated call
// gives the same nodes.
func TestCreateNodes(t *testing.T) {
	bubble(t, func(f *fixture) {
		info := fmt.Appendf(nil, `{"fake_address":"a","fake_password":%q}`, secret)
		req := &api.CreateNodesRequest{}
		for i := range 9 {
			req.Nodes = append(req.Nodes, &api.CreateNodeRequest{
				RequestId: fmt.Sprint("r", i), Node: &api.Node{Name: fmt.Sprint("n", i), Driver: "fake", DriverInfo: info},
				Ports: []*api.Port{{Address: fmt.Sprintf("52:54:00:00:01:%02x", i)}},
			})
		}
		req.Nodes[2].Node.Driver = "none"
		req.Nodes[4].Node.Name = "n3"
		req.Nodes[6].Ports[0].Address = req.Nodes[5].Ports[0].Address
		req.Nodes[7].Node.Properties = []byte(`{"root_device":{"serial":`)
		wrong := map[int]errs.Kind{2: errs.Invalid, 4: errs.Exists, 6: errs.Exists, 7: errs.Invalid}

		first, err := f.svc.CreateNodes(f.ctx, req)
		if err != nil {
			f.Fatal(err)
		}
		again, err := f.svc.CreateNodes(f.ctx, req)
		if err != nil {
			f.Fatal(err)
		}
		for i, res := range first.GetResults() {
			if kind, bad := wrong[i]; bad {
				if errs.ParseKind(res.GetFailure().GetKind()) != kind || strings.Contains(res.GetFailure().GetMessage(), secret) {
					f.Errorf("node %d: %v, want %v", i, res, kind)
				}
				continue
			}
			n := res.GetCreated().GetNode()
			if n.GetName() != fmt.Sprint("n", i) || n.GetState() != api.State_ENROLL || n.GetRev() != 1 {
				f.Errorf("node %d: %v", i, res)
			}
			if !strings.Contains(string(f.stored(n.GetName()).GetDriverInfo()), "sealed") || strings.Contains(res.String(), "sealed") {
				f.Errorf("node %d: the secret is not sealed, or was shown", i)
			}
			if was := again.GetResults()[i].GetCreated().GetNode().GetId(); was != n.GetId() {
				f.Errorf("node %d was created twice: %s and %s", i, n.GetId(), was)
			}
			if len(f.c.Store.View().PortsOf(n.GetId())) != 1 || first.GetIndex() < res.GetCreated().GetIndex() {
				f.Errorf("node %d: %v", i, res)
			}
		}
		if got := f.c.Store.View().NodeCount(); got != 5 || len(first.GetResults()) != 9 {
			f.Errorf("%d nodes, %d results", got, len(first.GetResults()))
		}
		if rep, err := f.svc.CreateNodes(f.ctx, &api.CreateNodesRequest{}); err != nil || len(rep.GetResults()) != 0 {
			f.Errorf("nothing: %v, %v", rep, err)
		}
		_, err = f.svc.CreateNodes(f.ctx, &api.CreateNodesRequest{Nodes: make([]*api.CreateNodeRequest, 257)})
		wants(t, "too many", err, errs.Invalid, "at most 256")
		// Where no leader takes any of them, the client asks another peer.
		f.p.Decide(func(*api.Command) conductortest.Fate {
			return conductortest.Fate{Refuse: errs.New(errs.NoQuorum, "there is no leader")}
		})
		_, err = f.svc.CreateNodes(f.ctx, &api.CreateNodesRequest{Nodes: []*api.CreateNodeRequest{{Node: &api.Node{Driver: "fake", DriverInfo: info}}}})
		wants(t, "no leader", err, errs.NoQuorum, "no leader")
	})
}
