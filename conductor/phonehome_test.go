package conductor_test

import (
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// A call is of the one node that waits for its token, and changes no other; one
// that comes too early, or that nobody waits for, is never proposed.
func TestPhoneHomeIsOfOneNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := conductortest.New(t, "p1")
		drv, err := fake.New(fake.Config{})
		if err != nil {
			t.Fatal(err)
		}
		cond, err := conductor.New(conductor.Config{
			Cluster: c.Peer("p1"), MachineID: "m1", BootID: "b1", Registry: drivers.NewRegistry(drv), DataDir: t.TempDir(), Version: "test",
			Clock: c.Clock, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		c.Must(&api.Op{Op: &api.Op_LeaseRegister{LeaseRegister: &api.LeaseRegister{Lease: &api.Lease{Id: "l1", Conductor: "p1"}}}})
		// deploy is one that waits for its evidence, or is at a step before it.
		deploy := func(id, token string, before ...node.StepID) {
			c.Must(&api.Op{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{Id: id, Driver: "fake", Assigned: "p1"}}}})
			f := &api.Flow{Id: "flow-" + id, Kind: api.FlowKind_FLOW_DEPLOY, PhoneHomeDigest: node.PhoneHomeDigest(token)}
			for _, step := range append(before, node.StepEvidence) {
				s, err := node.NewStep(step, nil)
				if err != nil {
					t.Fatal(err)
				}
				f.Steps = append(f.Steps, s)
			}
			c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: id, Flow: f}}})
			lock := c.Must(&api.Op{Op: &api.Op_LockAcquire{LockAcquire: &api.LockAcquire{NodeId: id, LeaseId: "l1"}}}).GetOps()[0].GetToken()
			c.Must(&api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: id, Token: lock, Fields: []string{"evidence"}, Node: &api.Node{
				Evidence: &api.Evidence{Policy: "phone_home", FlowId: f.GetId(), PhoneHomeDigest: f.GetPhoneHomeDigest()},
			}}}})
		}
		const first, second, early = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222", "33333333-3333-4333-8333-333333333333"
		deploy(first, "token-of-the-first")
		deploy(second, "token-of-the-second")
		deploy(early, "token-of-the-third", node.StepWriteImage, node.StepPowerOn)
		at := c.Store.Index()
		from := netip.MustParseAddr("10.0.0.7")
		if err := cond.PhoneHome(t.Context(), "token-of-nobody!", from); !errors.Is(err, errs.Denied) {
			t.Errorf("nobody's token: %v", err)
		}
		if err := cond.PhoneHome(t.Context(), "token-of-the-third", from); !errors.Is(err, errs.Busy) {
			t.Errorf("too early: %v", err)
		}
		if c.Store.Index() != at {
			t.Error("a call that counts for nothing was proposed")
		}
		for range 2 { // the second changes nothing
			if err := cond.PhoneHome(t.Context(), "token-of-the-second", from); err != nil {
				t.Error(err)
			}
		}
		v := c.Store.View()
		for id, want := range map[string]string{first: "", second: "phone_home", early: ""} {
			if e := v.Node(id).GetEvidence(); e.GetSeen() != want {
				t.Errorf("%s: %v", id, e)
			}
		}
	})
}
