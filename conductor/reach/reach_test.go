package reach_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/conductor/lease"
	"github.com/ironring/ironring/conductor/reach"
	"github.com/ironring/ironring/internal/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const lost = "10.1.2.0/24"

// site is peers, each with an observer, and cables to the management network.
type site struct {
	*testing.T
	c *conductortest.Cluster

	mu     sync.Mutex
	cut    map[string]bool // guarded by mu; by peer: it does not reach 10.1.2.0/24
	probes map[string]int  // guarded by mu; by peer
	obs    map[string]*reach.Observer
}

func bubble(t *testing.T, test func(s *site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &site{T: t, c: conductortest.New(t, "p1", "p2", "p3"), cut: map[string]bool{}, probes: map[string]int{}, obs: map[string]*reach.Observer{}}
		ctx, cancel := context.WithCancel(context.Background())
		var all sync.WaitGroup
		t.Cleanup(func() { cancel(); all.Wait() })
		all.Go(func() { _ = s.c.Lead(ctx) })
		for _, id := range []string{"p1", "p2", "p3"} {
			keeper := lease.New(lease.Config{
				Proposer: s.c.Peer(id), Member: id, MachineID: "m-" + id, BootID: "b", Clock: s.c.Clock, Logger: slog.New(slog.DiscardHandler),
				Timing: func() *api.Timing { return s.c.Store.View().Settings().GetTiming() },
			})
			all.Go(func() { _ = keeper.Run(ctx) })
			conductortest.Until(t, time.Minute, "lease", func() bool { return s.c.Store.View().LiveLease(id) != nil })
			s.obs[id] = reach.New(reach.Config{
				Member: id, Store: s.c.Store, Propose: s.c.Peer(id).Propose, Clock: s.c.Clock, Logger: slog.New(slog.DiscardHandler),
				Probe:  func(_ context.Context, node string) { s.call(id, node) },
				Parked: func(*api.Node) bool { return false },
			})
		}
		for _, o := range s.obs {
			all.Go(func() { _ = o.Run(ctx) })
		}
		for i := range 6 { // 0 and 3 are p1's, and so on; 0 to 2 are in the subnet
			subnet := []string{"10.1.2", "10.1.3"}[i/3]
			s.c.Must(
				&api.Op{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{
					Id: nodeID(i), Driver: "fake", DriverInfo: fmt.Appendf(nil, `{"ipmi_address":"%s.%d"}`, subnet, i+1), Assigned: fmt.Sprint("p", i%3+1),
				}}}},
				&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: nodeID(i), Event: api.Event_EV_MANAGE, Flow: &api.Flow{
					Id: fmt.Sprint("f", i), Kind: api.FlowKind_FLOW_VERIFY, Steps: []*api.Step{{Name: "x", Policy: api.ResumePolicy_RESUME_IDEMPOTENT}},
				}}}},
			)
			s.finish(i)
		}
		test(s)
	})
}

// finish ends the flow that brought a node out of enroll.
func (s *site) finish(i int) {
	id, owner := nodeID(i), fmt.Sprint("p", i%3+1)
	tok := s.c.Must(&api.Op{Op: &api.Op_LockAcquire{LockAcquire: &api.LockAcquire{NodeId: id, LeaseId: s.c.Store.View().LiveLease(owner).GetId()}}}).GetOps()[0].GetToken()
	s.c.Must(
		&api.Op{Op: &api.Op_StepStart{StepStart: &api.StepStart{NodeId: id, Token: tok, FlowId: fmt.Sprint("f", i), Attempt: 1}}},
		&api.Op{Op: &api.Op_StepDone{StepDone: &api.StepDone{NodeId: id, Token: tok, FlowId: fmt.Sprint("f", i), Attempt: 1}}},
		&api.Op{Op: &api.Op_FlowEnd{FlowEnd: &api.FlowEnd{NodeId: id, Token: tok, FlowId: fmt.Sprint("f", i), Status: api.FlowStatus_FLOW_DONE, Event: api.Event_EV_DONE}}},
		&api.Op{Op: &api.Op_LockRelease{LockRelease: &api.LockRelease{NodeId: id, Token: tok}}},
	)
}

func nodeID(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }

// call is a call of a peer to a BMC.
func (s *site) call(peer, id string) {
	s.mu.Lock()
	s.probes[peer]++
	cut := s.cut[peer] && id < nodeID(3)
	s.mu.Unlock()
	var err error
	if cut {
		err = errs.New(errs.Unreachable, "no route")
	}
	s.obs[peer].Contact(s.c.Store.View().Node(id), err)
}

func (s *site) cutOff(peer string, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut[peer] = cut
}

func (s *site) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.probes["p1"] + s.probes["p2"] + s.probes["p3"]
}

func (s *site) records() (out string) {
	for _, r := range s.c.Store.View().Reaches() {
		out += fmt.Sprintf("%s %s %v\n", r.GetMember(), r.GetSubnet(), r.GetReachable())
	}
	return out
}

func (s *site) owner(i int) string { return s.c.Store.View().Node(nodeID(i)).GetAssigned() }

// An owner loses a subnet that others reach: its nodes there go to them, the
// others stay; when it has found it again, nothing is left of it.
func TestHandsOver(t *testing.T) {
	bubble(t, func(s *site) {
		conductortest.Pass(3 * time.Minute)
		if s.asked() != 0 || s.records() != "" {
			s.Fatalf("%d BMCs were asked of a healthy site: %s", s.asked(), s.records())
		}
		s.cutOff("p1", true)
		s.call("p1", nodeID(0)) // its poll fails
		conductortest.Pass(50 * time.Second)
		if s.records() != "" {
			s.Fatalf("lost too soon: %s", s.records())
		}
		conductortest.Until(s, 3*time.Minute, "the node moves", func() bool { return s.owner(0) != "p1" })
		if s.owner(0) == "" || s.owner(1) != "p2" || s.owner(2) != "p3" || s.owner(3) != "p1" {
			s.Errorf("owners %s %s %s %s", s.owner(0), s.owner(1), s.owner(2), s.owner(3))
		}
		if got := s.records(); got != "p1 "+lost+" false\np2 "+lost+" true\np3 "+lost+" true\n" {
			s.Errorf("records:\n%s", got)
		}
		at, before := s.c.Store.View().Reaches()[0].GetSinceMs(), s.owner(0)
		conductortest.Pass(6 * time.Minute)
		if r := s.c.Store.View().Reaches()[0]; r.GetSinceMs() != at || s.owner(0) != before {
			s.Errorf("it did not stay as it was: %v", r)
		}
		s.cutOff("p1", false)
		conductortest.Until(s, 3*time.Minute, "found again", func() bool { return s.records() == "" })
	})
}

// Nobody reaches the subnet: nothing moves, and the records say so.
func TestNobodyReachesIt(t *testing.T) {
	bubble(t, func(s *site) {
		for i, id := range []string{"p1", "p2", "p3"} {
			s.cutOff(id, true)
			s.call(id, nodeID(i))
		}
		conductortest.Until(s, 5*time.Minute, "all have lost it", func() bool {
			return s.records() == "p1 "+lost+" false\np2 "+lost+" false\np3 "+lost+" false\n"
		})
		conductortest.Pass(3 * time.Minute)
		for i := range 6 {
			if s.owner(i) != fmt.Sprint("p", i%3+1) {
				s.Errorf("node %d went to %s", i, s.owner(i))
			}
		}
	})
}

// A way that comes and goes moves nodes once, not each time.
func TestFlapping(t *testing.T) {
	bubble(t, func(s *site) {
		changes, last := 0, ""
		s.cutOff("p1", true)
		s.call("p1", nodeID(0))
		for i := range 120 { // twenty minutes
			conductortest.Pass(10 * time.Second)
			if now := s.records(); now != last {
				changes, last = changes+1, now
			}
			if i%12 == 11 { // two minutes gone, two minutes there
				s.cutOff("p1", i/12%2 == 1)
				s.call("p1", nodeID(0))
			}
		}
		if changes > 15 {
			s.Errorf("the records changed %d times in twenty minutes", changes)
		}
		if changes == 0 {
			s.Error("nothing was ever recorded")
		}
	})
}

// Refusals and faults of ours say nothing against the way.
func TestOtherErrors(t *testing.T) {
	bubble(t, func(s *site) {
		for range 10 {
			for _, k := range []errs.Kind{errs.Denied, errs.Internal, errs.Unsupported, errs.Fenced} {
				s.obs["p1"].Contact(s.c.Store.View().Node(nodeID(0)), errs.New(k, "x"))
			}
			conductortest.Pass(30 * time.Second)
		}
		if s.asked() != 0 || s.records() != "" {
			s.Errorf("%d BMCs were asked: %s", s.asked(), s.records())
		}
	})
}
