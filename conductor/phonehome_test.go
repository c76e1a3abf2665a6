package conductor_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

const (
	homeFirst  = "11111111-1111-4111-8111-111111111111"
	homeSecond = "22222222-2222-4222-8222-222222222222"
	homeEarly  = "33333333-3333-4333-8333-333333333333"
)

// callers is a cluster whose one peer takes phone-homes.
type callers struct {
	*testing.T
	c     *conductortest.Cluster
	peer  *asked
	cond  *conductor.Conductor
	locks map[string]uint64
}

// asked counts what a call costs the leader.
type asked struct {
	*conductortest.Peer
	reads, proposals int
}

func (a *asked) ReadIndex(ctx context.Context) (uint64, error) {
	a.reads++
	return a.Peer.ReadIndex(ctx)
}

func (a *asked) Propose(ctx context.Context, cmd *api.Command) (*api.Result, error) {
	a.proposals++
	return a.Peer.Propose(ctx, cmd)
}

func withCallers(t *testing.T, test func(r *callers)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := conductortest.New(t, "p1")
		drv, err := fake.New(fake.Config{})
		if err != nil {
			t.Fatal(err)
		}
		r := &callers{T: t, c: c, peer: &asked{Peer: c.Peer("p1")}, locks: map[string]uint64{}}
		r.cond, err = conductor.New(conductor.Config{
			Cluster: r.peer, MachineID: "m1", BootID: "b1", Registry: drivers.NewRegistry(drv), DataDir: t.TempDir(), Version: "test",
			Clock: c.Clock, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		c.Must(&api.Op{Op: &api.Op_LeaseRegister{LeaseRegister: &api.LeaseRegister{Lease: &api.Lease{Id: "l1", Conductor: "p1"}}}})
		test(r)
	})
}

// enrol adds a node, held by the peer.
func (r *callers) enrol(id string) {
	r.c.Must(&api.Op{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{Id: id, Driver: "fake", Assigned: "p1"}}}})
}

// deploy is one that waits for its evidence, or is at a step before it.
func (r *callers) deploy(id, flow, token string, before ...node.StepID) {
	r.Helper()
	f := &api.Flow{Id: flow, Kind: api.FlowKind_FLOW_DEPLOY, PhoneHomeDigest: node.PhoneHomeDigest(token)}
	for _, step := range append(before, node.StepEvidence) {
		s, err := node.NewStep(step, nil)
		if err != nil {
			r.Fatal(err)
		}
		f.Steps = append(f.Steps, s)
	}
	r.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: id, Flow: f}}})
	r.locks[id] = r.c.Must(&api.Op{Op: &api.Op_LockAcquire{LockAcquire: &api.LockAcquire{NodeId: id, LeaseId: "l1"}}}).GetOps()[0].GetToken()
	r.evidence(id, &api.Evidence{Policy: "phone_home", FlowId: f.GetId(), PhoneHomeDigest: f.GetPhoneHomeDigest()})
}

func (r *callers) evidence(id string, e *api.Evidence) {
	r.c.Must(&api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: id, Token: r.locks[id], Fields: []string{"evidence"}, Node: &api.Node{Evidence: e}}}})
}

// end ends the flow of a node; a done one in its last step.
func (r *callers) end(id string, status api.FlowStatus) {
	f := r.c.Store.View().Flow(id)
	if status == api.FlowStatus_FLOW_DONE {
		step := &api.StepStart{NodeId: id, Token: r.locks[id], FlowId: f.GetId(), Attempt: 1, CmdId: "x"}
		r.c.Must(&api.Op{Op: &api.Op_StepStart{StepStart: step}})
		r.c.Must(&api.Op{Op: &api.Op_StepDone{StepDone: &api.StepDone{NodeId: id, Token: r.locks[id], FlowId: f.GetId(), Attempt: 1}}})
	}
	r.c.Must(
		&api.Op{Op: &api.Op_FlowEnd{FlowEnd: &api.FlowEnd{NodeId: id, Token: r.locks[id], FlowId: f.GetId(), Status: status}}},
		&api.Op{Op: &api.Op_LockRelease{LockRelease: &api.LockRelease{NodeId: id, Token: r.locks[id]}}},
	)
}

// call phones home and compares the outcome, and what it cost the leader.
func (r *callers) call(what, token string, want errs.Kind, reads, proposals int) {
	r.Helper()
	r.peer.reads, r.peer.proposals = 0, 0
	err := r.cond.PhoneHome(r.Context(), token, netip.MustParseAddr("10.0.0.7"))
	if want == errs.Internal && err != nil || want != errs.Internal && !errors.Is(err, want) {
		r.Errorf("%s: %v", what, err)
	}
	if r.peer.reads != reads || r.peer.proposals != proposals {
		r.Errorf("%s: the leader was asked %d times, want %d, and %d commands were proposed, want %d", what, r.peer.reads, reads, r.peer.proposals, proposals)
	}
}

// recorded stands for no error: none of these calls is to end with a defect.
const recorded = errs.Internal

// A call is of the one node that waits for its token, and changes no other; one
// that comes too early, or that nobody waits for, is never proposed.
func TestPhoneHomeIsOfOneNode(t *testing.T) {
	withCallers(t, func(r *callers) {
		for _, id := range []string{homeFirst, homeSecond, homeEarly} {
			r.enrol(id)
		}
		r.deploy(homeFirst, "f1", "token-of-the-first")
		r.deploy(homeSecond, "f2", "token-of-the-second")
		r.deploy(homeEarly, "f3", "token-of-the-third", node.StepWriteImage, node.StepPowerOn)
		r.call("nobody's token", "token-of-nobody!", errs.Denied, 1, 0)
		r.call("too early", "token-of-the-third", errs.Busy, 1, 0)
		r.call("in time", "token-of-the-second", recorded, 0, 1)
		r.call("the second one", "token-of-the-second", recorded, 0, 0)
		v := r.c.Store.View()
		for id, want := range map[string]string{homeFirst: "", homeSecond: "phone_home", homeEarly: ""} {
			if e := v.Node(id).GetEvidence(); e.GetSeen() != want {
				t.Errorf("%s: %v", id, e)
			}
		}
	})
}

// An answer can be lost: a call that is on record is told so again once the
// deploy has ended, without a question to the leader, until the node is torn
// down.
func TestPhoneHomeAnswerIsLost(t *testing.T) {
	withCallers(t, func(r *callers) {
		const token = "token-of-the-first"
		r.enrol(homeFirst)
		r.deploy(homeFirst, "f1", token)
		r.peer.Decide(func(*api.Command) conductortest.Fate { return conductortest.Fate{Lose: true} })
		r.call("whose outcome the peer is not told", token, recorded, 0, 1)
		r.peer.Decide(nil)
		r.call("while the deploy goes on", token, recorded, 0, 0)
		r.end(homeFirst, api.FlowStatus_FLOW_DONE)
		r.call("once it has ended", token, recorded, 0, 0)

		// A peer that may be behind asks: the token can have been given to the
		// node again.
		r.peer.Lag(time.Minute)
		r.call("at a peer that lags", token, recorded, 1, 0)
		r.peer.Lag(0)
		r.peer.Cut(true)
		r.call("at a peer that is cut off", token, errs.NoQuorum, 1, 0)
		r.peer.Cut(false)

		// The same token again: what the last deploy saw is no evidence of this.
		r.deploy(homeFirst, "f2", token, node.StepWriteImage, node.StepPowerOn)
		r.call("the last system, in the next deploy", token, errs.Busy, 1, 0)
		r.evidence(homeFirst, nil)
		r.end(homeFirst, api.FlowStatus_FLOW_FAILED)
		r.call("after the teardown", token, errs.Denied, 1, 0)
	})
}

// A call that comes when the deploy is over is refused for good.
func TestPhoneHomeIsTooLate(t *testing.T) {
	withCallers(t, func(r *callers) {
		const token = "token-of-the-first"
		r.enrol(homeFirst)
		r.deploy(homeFirst, "f1", token)
		r.end(homeFirst, api.FlowStatus_FLOW_FAILED)
		r.call("after the deploy has failed", token, errs.WrongState, 1, 0)
		if e := r.c.Store.View().Node(homeFirst).GetEvidence(); e.GetSeen() != "" {
			t.Errorf("it counts: %v", e)
		}

		// The deploy fails while the call is on its way.
		r.deploy(homeFirst, "f2", token)
		r.peer.Decide(func(*api.Command) conductortest.Fate {
			r.end(homeFirst, api.FlowStatus_FLOW_FAILED)
			return conductortest.Fate{}
		})
		r.call("overtaken by the failure", token, errs.WrongState, 0, 1)
	})
}

// Of two calls at once one is recorded; what then becomes of the node does not
// make the other one wrong.
func TestPhoneHomeOvertaken(t *testing.T) {
	withCallers(t, func(r *callers) {
		const token = "token-of-the-first"
		r.enrol(homeFirst)
		r.deploy(homeFirst, "f1", token)
		r.peer.Decide(func(*api.Command) conductortest.Fate {
			r.c.Must(&api.Op{Op: &api.Op_PhoneHome{PhoneHome: &api.PhoneHome{NodeId: homeFirst, Digest: node.PhoneHomeDigest(token), Source: "10.0.0.7"}}})
			r.end(homeFirst, api.FlowStatus_FLOW_DONE)
			r.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: homeFirst, Flow: powerFlow(r)}}})
			return conductortest.Fate{}
		})
		r.call("overtaken by another", token, recorded, 0, 1)
	})
}

func powerFlow(r *callers) *api.Flow {
	r.Helper()
	s, err := node.NewStep(node.StepPowerOff, nil)
	if err != nil {
		r.Fatal(err)
	}
	return &api.Flow{Id: "power", Kind: api.FlowKind_FLOW_POWER, Steps: []*api.Step{s}}
}
