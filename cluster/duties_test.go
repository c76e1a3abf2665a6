package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/cluster/clustertest"
	"github.com/ironring/ironring/internal/errs"
)

// renewer keeps leases alive until it is told not to.
type renewer struct {
	via  *cluster.Cluster
	mu   sync.Mutex
	seq  uint64            // guarded by mu
	live map[string]string // guarded by mu; peer -> lease
	done chan struct{}
	end  context.CancelFunc
}

// leases registers a lease for each running peer and renews them through one,
// which must not be restarted.
func leases(t *testing.T, k *clustertest.Kit, via string) *renewer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &renewer{via: k.Peer(via).Cluster, live: map[string]string{}, done: make(chan struct{}), end: cancel}
	for _, p := range k.Peers() {
		r.live[p.ID] = k.Lease(p.ID)
	}
	go r.run(ctx)
	t.Cleanup(func() { cancel(); <-r.done })
	return r
}

func (r *renewer) run(ctx context.Context) {
	defer close(r.done)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r.mu.Lock()
		var ops []*api.Op
		for _, id := range r.live {
			r.seq++
			ops = append(ops, &api.Op{Op: &api.Op_LeaseRenew{LeaseRenew: &api.LeaseRenew{LeaseId: id, Seq: r.seq}}})
		}
		r.mu.Unlock()
		for _, op := range ops {
			// Refusals and elections are what these tests are about.
			_, _ = r.via.Propose(ctx, command("", op))
		}
	}
}

// drop stops renewing a peer's lease.
func (r *renewer) drop(peer string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := r.live[peer]
	delete(r.live, peer)
	return id
}

func TestAssignmentAndExpiry(t *testing.T) {
	t.Parallel()
	k := clustertest.Start(t, 3, clustertest.Options{})
	orphan := k.MustPropose("p1", createNode("before-any-conductor")).GetOps()[0].GetId()
	v := k.Peer("p1").Store().View
	k.Wait("it is said why nobody owns it", func() bool { return v().Node(orphan).GetUnassignedReason() != "" })
	r := leases(t, k, "p1")
	k.Wait("it gets an owner", func() bool { return v().Node(orphan).GetAssigned() != "" })

	// New nodes have an owner from their first moment, in balance.
	owned := map[string]int{}
	for i := range 60 {
		id := k.MustPropose("p2", createNode(fmt.Sprintf("n%d", i))).GetOps()[0].GetId()
		n := k.Peer("p2").Store().View().Node(id)
		if n.GetAssigned() == "" || n.GetAssignEpoch() != 1 {
			t.Fatalf("node %s was created with owner %q, epoch %d", id, n.GetAssigned(), n.GetAssignEpoch())
		}
		owned[n.GetAssigned()]++
	}
	for id, n := range owned {
		if n > 23 { // ceil(1.1 * 61 / 3)
			t.Errorf("%s owns %d of 60", id, n)
		}
	}

	// A conductor locks a node, opens an intent, and stops renewing.
	var victim *api.Node
	for n := range v().NodesAssigned("p3") {
		victim = n
	}
	r.mu.Lock()
	lease := r.live["p3"]
	r.mu.Unlock()
	token := k.MustPropose("p1", &api.Op{Op: &api.Op_LockAcquire{LockAcquire: &api.LockAcquire{
		NodeId: victim.GetId(), LeaseId: lease, Purpose: "test",
	}}}).GetOps()[0].GetToken()
	k.MustPropose("p1", &api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{
		NodeId: victim.GetId(), Token: token, Fields: []string{"bmc"}, Node: &api.Node{Bmc: &api.BmcFacts{BmcKey: "b 623", DriverRev: victim.GetDriverRev()}},
	}}})
	k.MustPropose("p1", &api.Op{Op: &api.Op_IntentOpen{IntentOpen: &api.IntentOpen{NodeId: victim.GetId(), Token: token, Kind: "power_on"}}})
	start := time.Now()
	r.drop("p3")
	k.Wait("the lease is fenced", func() bool { return v().Lease(lease).GetState() == api.Lease_FENCED })
	if took := time.Since(start); took < 1100*time.Millisecond {
		t.Errorf("fenced after %v, before the lease was over", took)
	}
	fenced := time.Now()
	if v().Lease(lease).GetFencedCause() != "expired" || v().Lock(victim.GetId()) != nil {
		t.Errorf("after the fence: %v, lock %v", v().Lease(lease), v().Lock(victim.GetId()))
	}
	if q := v().Node(victim.GetId()).GetQuarantine(); q.GetClass() != api.Quarantine_LONG {
		t.Errorf("quarantine is %v", q)
	}
	k.Wait("the quarantine ends", func() bool { return v().Node(victim.GetId()).GetQuarantine().GetClass() == api.Quarantine_NONE })
	if took := time.Since(fenced); took < 900*time.Millisecond { // G0 + Q is 1000 ms
		t.Errorf("the quarantine ended after %v", took)
	}
	// Idle nodes move after the hold, the two others share them.
	k.Wait("its nodes have other owners", func() bool {
		for range v().NodesAssigned("p3") {
			return false
		}
		return true
	})
	if took := time.Since(start); took < 2*time.Second {
		t.Errorf("idle nodes moved after %v, before the hold", took)
	}
	if v().Globals().GetTicks() == 0 {
		t.Error("the cluster clock does not move")
	}
}

func TestRenewedLeaseSurvivesElections(t *testing.T) {
	t.Parallel()
	k := clustertest.Start(t, 4, clustertest.Options{})
	r := leases(t, k, "p4") // has no vote, so that it never leads
	for range 3 {
		leader := k.WaitLeader()
		k.Kill(leader.ID)
		k.WaitLeader()
		k.WaitReady(k.Restart(leader.ID))
	}
	k.WaitLeader()
	if _, err := k.Peer("p1").ReadIndex(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for peer, id := range r.live {
		if l := k.Peer("p1").Store().View().Lease(id); l.GetState() != api.Lease_LIVE {
			t.Errorf("the lease of %s is %v although it was renewed", peer, l)
		}
	}
}

func TestLockLimits(t *testing.T) {
	t.Parallel()
	k := clustertest.Start(t, 1, clustertest.Options{})
	r := leases(t, k, "p1")
	v := k.Peer("p1").Store().View
	r.mu.Lock()
	lease := r.live["p1"]
	r.mu.Unlock()
	lock := func(hold, stall uint64) string {
		id := k.MustPropose("p1", createNode("")).GetOps()[0].GetId()
		k.MustPropose("p1", &api.Op{Op: &api.Op_LockAcquire{LockAcquire: &api.LockAcquire{
			NodeId: id, LeaseId: lease, Purpose: "test", HoldLimitMs: hold, StallLimitMs: stall,
		}}})
		return id
	}
	held, stalled, fine := lock(500, 0), lock(0, 500), lock(0, 0)
	k.Wait("both locks are broken", func() bool {
		return v().Lock(held).GetState() == api.Lock_BREAKING && v().Lock(stalled).GetState() == api.Lock_BREAKING
	})
	if v().Lock(fine).GetState() != api.Lock_HELD {
		t.Error("a lock without limits was broken")
	}
	k.Wait("the holder that does not let go is fenced", func() bool { return v().Lease(lease).GetState() == api.Lease_FENCED })
	if c := v().Lease(lease).GetFencedCause(); c != "unresponsive" {
		t.Errorf("cause is %q", c)
	}
	// Its last renewal was a moment ago: the short quarantine lasts L + G0.
	fenced := time.Now()
	k.Wait("the quarantine ends", func() bool { return v().Node(fine).GetQuarantine().GetClass() == api.Quarantine_NONE })
	if took := time.Since(fenced); took < time.Second {
		t.Errorf("the quarantine of an unresponsive holder ended after %v", took)
	}
}

// calm is for tests that load a cluster: elections are not what they test.
func calm(_ string, c *cluster.Config) {
	c.Raft = cluster.RaftTimeouts{Heartbeat: time.Second}
}

// Many callers at once become few entries.
func TestPacking(t *testing.T) {
	k := clustertest.Start(t, 3, clustertest.Options{Configure: calm})
	via := k.Peer("p1")
	if via.IsLeader() {
		via = k.Peer("p2")
	}
	before := k.WaitLeader().Status(within(t, 5*time.Second)).GetIndex()
	const callers, each = 64, 20
	var wg sync.WaitGroup
	failed := make(chan error, callers*each)
	for i := range callers {
		wg.Go(func() {
			for j := range each {
				if _, err := via.Propose(context.Background(), command("", createNode(fmt.Sprintf("c%d-%d", i, j)))); err != nil {
					failed <- err
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		t.Fatal(err)
	}
	entries := via.Status(within(t, 5*time.Second)).GetIndex() - before
	if entries > callers*each/2 {
		t.Errorf("%d commands took %d entries", callers*each, entries)
	}
	k.WaitSame()
}

func TestProposeLimits(t *testing.T) {
	t.Parallel()
	k := clustertest.Start(t, 1, clustertest.Options{})
	big := createNode("big")
	big.GetNodeCreate().GetNode().Extra = make([]byte, 300<<10)
	if _, err := k.Peer("p1").Propose(within(t, 5*time.Second), command("", big)); !errors.Is(err, errs.Invalid) {
		t.Errorf("a command of 300 KiB: %v", err)
	}
	if _, err := k.Peer("p1").PeerConn("p9"); !errors.Is(err, errs.NotFound) {
		t.Errorf("connection to nobody: %v", err)
	}
	if err := k.Peer("p1").Leave(within(t, 5*time.Second)); !errors.Is(err, errs.WrongState) {
		t.Errorf("the last member leaves: %v", err)
	}
}

func TestSettledTimingProfiles(t *testing.T) {
	for name, p := range map[string]*api.Timing{"default": cluster.DefaultTiming(), "lan": cluster.LANTiming(), "tests": clustertest.Timing()} {
		if err := cluster.CheckTiming(p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*api.Timing){
		"C1": func(p *api.Timing) { p.HolderMs = 11_800 },
		"C2": func(p *api.Timing) { p.GuardMs = 6_000 },
		"C4": func(p *api.Timing) { p.RenewMs = 2_001 },
		"0":  func(p *api.Timing) { p.BmcEffectMs = 0 },
	} {
		p := cluster.DefaultTiming()
		change(p)
		if err := cluster.CheckTiming(p); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
