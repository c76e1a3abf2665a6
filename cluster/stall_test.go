package cluster_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/cluster/clustertest"
	"github.com/ironring/ironring/internal/errs"
)

// withFullDisks starts three peers, of which some have disks that can be filled.
func withFullDisks(t *testing.T, stall time.Duration) (k *clustertest.Kit, full map[string]*atomic.Bool) {
	full = map[string]*atomic.Bool{"p1": {}, "p2": {}, "p3": {}}
	k = clustertest.Start(t, 3, clustertest.Options{Verbose: os.Getenv("V") != "", Configure: func(id string, c *cluster.Config) {
		c.CommitStall = stall
		// A busy machine must not change leaders in the middle.
		c.Raft = cluster.RaftTimeouts{Heartbeat: time.Second, Election: time.Second, LeaderLease: 500 * time.Millisecond}
		c.FullDisk(full[id])
	}})
	return k, full
}

// others are a leader's two followers.
func others(k *clustertest.Kit, leader *clustertest.Peer) (a, b *clustertest.Peer) {
	var out []*clustertest.Peer
	for _, p := range k.Peers() {
		if p != leader {
			out = append(out, p)
		}
	}
	return out[0], out[1]
}

// A leader whose followers cannot store is well: it stays, answers reads, says
// who cannot store, and goes on when they can.
func TestLeaderStaysWhenFollowersCannotStore(t *testing.T) {
	const stall = 500 * time.Millisecond
	for name, second := range map[string]func(k *clustertest.Kit, p *clustertest.Peer, full *atomic.Bool) (heal func(), says string){
		"one full, one cut off": func(k *clustertest.Kit, p *clustertest.Peer, _ *atomic.Bool) (func(), string) {
			k.Partition(p.ID)
			return k.Heal, p.ID + ": does not answer"
		},
		"two full": func(_ *clustertest.Kit, p *clustertest.Peer, full *atomic.Bool) (func(), string) {
			full.Store(true)
			return func() { full.Store(false) }, p.ID + ": its disk is full"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, full := withFullDisks(t, stall)
			leader := k.WaitLeader()
			k.MustPropose(leader.ID, createNode("before"))
			a, b := others(k, leader)
			full[a.ID].Store(true)
			heal, says := second(k, b, full[b.ID])
			var refused error
			defer func() {
				if t.Failed() {
					t.Logf("the last refusal: %v; status: %v", refused, leader.Status(context.Background()))
				}
			}()
			k.Wait("changes are refused at once, with the reason", func() bool {
				_, refused = leader.Propose(within(t, 200*time.Millisecond), command("", createNode("during")))
				return errors.Is(refused, errs.NoQuorum) && strings.Contains(refused.Error(), a.ID+": its disk is full") && strings.Contains(refused.Error(), says)
			})
			for end := time.Now().Add(3 * stall); time.Now().Before(end); {
				if _, err := leader.ReadIndex(within(t, 5*time.Second)); err != nil {
					t.Fatalf("a read at the leader: %v", err)
				}
				if leader.Store().View().NodeByName("before") == nil {
					t.Fatal("the leader lost a node")
				}
			}
			if !leader.IsLeader() {
				t.Error("the leader gave up, although nobody else could lead")
			}
			s := leader.Status(within(t, 5*time.Second))
			if s.GetHealth() != api.ClusterStatusReply_NO_QUORUM || !strings.Contains(s.GetNextFailure(), "the quorum is lost: 1 of 3") ||
				!strings.Contains(s.GetNextFailure(), a.ID+" (its disk is full)") || !strings.Contains(strings.Join(s.GetProblems(), "; "), says) {
				t.Errorf("status: %v, %q, %q", s.GetHealth(), s.GetNextFailure(), s.GetProblems())
			}
			full[a.ID].Store(false)
			heal()
			k.Wait("changes are taken again", func() bool {
				_, err := leader.Propose(within(t, time.Second), command("", createNode("after")))
				return err == nil || errors.Is(err, errs.Exists)
			})
			k.Wait("all is well", func() bool {
				s := k.WaitLeader().Status(within(t, 5*time.Second))
				return s.GetHealth() != api.ClusterStatusReply_NO_QUORUM
			})
			k.WaitSame()
		})
	}
}

// A peer with a full disk takes no change: it would not see it done.
func TestFullDiskRefusesAtOnce(t *testing.T) {
	t.Parallel()
	k, full := withFullDisks(t, 5*time.Second)
	leader := k.WaitLeader()
	p, _ := others(k, leader)
	full[p.ID].Store(true)
	k.MustPropose(leader.ID, createNode("n1"))
	k.Wait("the peer knows that its disk is full", func() bool { return strings.Contains(problemsAt(t, p), " is full (") })
	index := leader.Store().Index()
	begin := time.Now()
	_, err := p.Propose(within(t, 20*time.Second), command("r1", createNode("n2")))
	if !errors.Is(err, errs.NoQuorum) || !strings.Contains(err.Error(), p.ID+"'s disk: the disk that holds "+p.Dir+" is full") {
		t.Errorf("a change: %v", err)
	}
	if _, rerr := p.ReadIndex(within(t, 20*time.Second)); rerr == nil {
		t.Errorf("a linearizable read was answered from an old state")
	}
	if passed := time.Since(begin); passed > 8*time.Second {
		t.Errorf("refused after %v", passed)
	}
	if leader.Store().View().NodeByName("n2") != nil {
		t.Error("the change was refused and done")
	}
	k.Wait("the clock goes on", func() bool { return leader.Store().Index() > index })
	k.Wait("the peer knows that it is behind, although it hears the leader", func() bool {
		return p.Behind() > 2*time.Second && p.LeaderContact() < 2*time.Second
	})
	full[p.ID].Store(false)
	k.Wait("the peer is in step again", func() bool { return p.Behind() < 2*time.Second })
	k.Wait("the peer takes changes again", func() bool {
		_, err := p.Propose(within(t, 5*time.Second), command("", createNode("n3")))
		return err == nil || errors.Is(err, errs.Exists)
	})
}

func problemsAt(t *testing.T, p *clustertest.Peer) string {
	return strings.Join(p.Status(within(t, 5*time.Second)).GetProblems(), "; ")
}
