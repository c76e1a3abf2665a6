package cluster_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/cluster/clustertest"
	"github.com/ironring/ironring/internal/errs"
)

func TestMain(m *testing.M) {
	syscall.Umask(0o022) // a data directory that a group may write to is refused
	// Clusters that wait for their timers cost little: one more of them than
	// there are processors run side by side. More would change leaders on a busy
	// machine.
	flag.Parse()
	if set := flag.Lookup("test.parallel"); set.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = set.Value.Set(strconv.Itoa(runtime.GOMAXPROCS(0) + 1)) // a number
	}
	goleak.VerifyTestMain(m)
}

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func createNode(name string) *api.Op {
	return &api.Op{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{
		Id: uuid.NewString(), Name: name, Driver: "fake", DriverInfo: []byte("{}"),
	}}}}
}

func command(requestID string, ops ...*api.Op) *api.Command {
	return &api.Command{Meta: &api.Meta{Principal: "test", Reason: "test", RequestId: requestID}, Ops: ops}
}

func TestThreePeers(t *testing.T) {
	t.Parallel()
	k := clustertest.Start(t, 3, clustertest.Options{})
	leader := k.WaitLeader()

	// Every peer takes a proposal, has applied it when it answers, and refuses
	// with the failure's kind.
	for _, p := range k.Peers() {
		res := k.MustPropose(p.ID, createNode("via-"+p.ID))
		if n := p.Store().View().NodeByName("via-" + p.ID); n == nil || n.GetId() != res.GetOps()[0].GetId() {
			t.Errorf("%s does not read its own write", p.ID)
		}
		_, err := p.Propose(within(t, 10*time.Second), command("", createNode("via-"+p.ID)))
		if !errors.Is(err, errs.Exists) {
			t.Errorf("a second node of one name through %s: %v", p.ID, err)
		}
	}
	// A linearizable read anywhere sees a write through anyone.
	k.MustPropose("p1", createNode("seen"))
	for _, p := range k.Peers() {
		if _, err := p.ReadIndex(within(t, 10*time.Second)); err != nil {
			t.Fatal(err)
		}
		if p.Store().View().NodeByName("seen") == nil {
			t.Errorf("%s does not see an acknowledged write", p.ID)
		}
	}
	k.Wait("gossip sees all peers", func() bool {
		for _, p := range k.Peers() {
			for _, q := range k.Peers() {
				if !p.Alive(q.ID) {
					return false
				}
			}
		}
		return true
	})
	s := k.Peer("p2").Status(within(t, 5*time.Second))
	if len(s.GetPeers()) != 3 || s.GetLeader() != leader.ID || s.GetNodes() != 4 || !strings.HasPrefix(s.GetNextFailure(), "the loss of any 2 of") {
		t.Errorf("status: %v", s)
	}
	// The leader dies: another leads, nothing is lost, and the old one finds back.
	k.Kill(leader.ID)
	next := k.WaitLeader()
	if next.ID == leader.ID || next.Store().View().NodeByName("seen") == nil {
		t.Errorf("leader is %s", next.ID)
	}
	s = next.Status(within(t, 5*time.Second))
	if s.GetHealth() != api.ClusterStatusReply_DEGRADED || !strings.HasPrefix(s.GetNextFailure(), "the loss of any one of") {
		t.Errorf("status without one peer: %v %q %q", s.GetHealth(), s.GetNextFailure(), s.GetProblems())
	}
	k.MustPropose(next.ID, createNode("later"))
	k.WaitReady(k.Restart(leader.ID))
	k.WaitSame()
	if k.Peer(leader.ID).Store().View().NodeByName("later") == nil {
		t.Error("the restarted peer misses a write")
	}
}

func TestQuorumLostAndFound(t *testing.T) {
	t.Parallel()
	k := clustertest.Start(t, 3, clustertest.Options{})
	k.Kill("p2")
	k.Kill("p3")
	p1 := k.Peer("p1")
	k.Wait("p1 notices", func() bool { id, _ := p1.Leader(); return id == "" })
	start := time.Now()
	_, err := p1.Propose(within(t, 600*time.Millisecond), command("", createNode("lost")))
	if !errors.Is(err, errs.NoQuorum) || time.Since(start) > 3*time.Second {
		t.Errorf("propose without a quorum: %v after %v", err, time.Since(start))
	}
	if _, err := p1.ReadIndex(within(t, 300*time.Millisecond)); !errors.Is(err, errs.NoQuorum) {
		t.Errorf("read without a quorum: %v", err)
	}
	if s := p1.Status(within(t, 5*time.Second)); s.GetHealth() != api.ClusterStatusReply_NO_QUORUM || !strings.Contains(s.GetNextFailure(), "not p2, p3") {
		t.Errorf("status: %v %q", s.GetHealth(), s.GetNextFailure())
	}
	if p1.LeaderContact() == 0 {
		t.Error("no leader, but contact with it")
	}
	k.Restart("p2")
	k.WaitLeader()
	k.MustPropose("p1", createNode("found"))
	// Everything stops and starts: the state is still there.
	k.Quit("p1")
	k.Quit("p2")
	k.Restart("p1")
	k.Restart("p2")
	k.WaitLeader()
	if _, err := k.Peer("p1").ReadIndex(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if k.Peer("p1").Store().View().NodeByName("found") == nil {
		t.Error("a restart lost a node")
	}
}

func TestPartition(t *testing.T) {
	t.Parallel()
	k := clustertest.Start(t, 3, clustertest.Options{})
	old := k.WaitLeader()
	k.Partition(old.ID)
	k.Wait("another leads", func() bool {
		for _, p := range k.Peers() {
			if p.ID != old.ID && p.IsLeader() {
				return true
			}
		}
		return false
	})
	// The cut-off peer commits nothing and says so.
	if _, err := old.Propose(within(t, time.Second), command("r1", createNode("minority"))); err == nil {
		t.Error("a peer without a majority committed")
	}
	var other *clustertest.Peer
	for _, p := range k.Peers() {
		if p.ID != old.ID {
			other = p
		}
	}
	k.MustPropose(other.ID, createNode("majority"))
	k.Heal()
	k.WaitLeader()
	k.Wait("the old leader catches up", func() bool { return old.Store().View().NodeByName("majority") != nil })
	k.WaitSame()
	if old.Store().View().NodeByName("minority") != nil {
		// Unknown outcomes may come true; a refused one must not have.
		t.Log("the proposal of the minority was committed later")
	}
}

// A command with a request id is repeated through elections and acts once.
func TestRepeatedRequestActsOnce(t *testing.T) {
	t.Parallel()
	k := clustertest.Start(t, 3, clustertest.Options{})
	for i := range 3 {
		leader := k.WaitLeader()
		via := k.Peer("p1")
		if leader.ID == "p1" {
			via = k.Peer("p2")
		}
		type answer struct {
			res *api.Result
			err error
		}
		answers := make(chan answer, 8)
		for j := range 8 {
			go func() {
				id := fmt.Sprintf("req-%d-%d", i, j)
				res, err := via.Propose(within(t, 20*time.Second), command(id, createNode("node-"+id)))
				answers <- answer{res, err}
			}()
		}
		k.Kill(leader.ID)
		for range 8 {
			if a := <-answers; a.err != nil {
				t.Errorf("a repeatable command failed: %v", a.err)
			}
		}
		k.WaitReady(k.Restart(leader.ID))
	}
	k.WaitSame()
	if n := k.Peer("p1").Store().View().NodeCount(); n != 24 {
		t.Errorf("%d nodes, want 24", n)
	}
}

func TestSnapshotAndRestart(t *testing.T) {
	t.Parallel()
	small := func(_ string, c *cluster.Config) { c.SnapshotThreshold, c.TrailingLogs = 20, 5 }
	k := clustertest.Start(t, 3, clustertest.Options{Configure: small})
	k.Kill("p3") // must be brought up by a snapshot later
	for i := range 40 {
		k.MustPropose("p1", createNode(fmt.Sprintf("n%d", i)))
	}
	for _, id := range []string{"p1", "p2"} {
		if err := k.Peer(id).Snapshot(); err != nil {
			t.Fatal(err)
		}
	}
	k.WaitReady(k.Restart("p3"))
	k.WaitSame()
	for _, id := range []string{"p1", "p3"} { // one made its snapshot, one was sent it
		k.Quit(id)
		k.WaitReady(k.Restart(id))
	}
	k.WaitSame()
	if n := k.Peer("p3").Store().View().NodeCount(); n != 40 {
		t.Errorf("p3 has %d nodes", n)
	}
}
