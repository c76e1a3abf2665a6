package cluster_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/cluster/clustertest"
)

// votersOf are the members with a vote, as a peer sees it.
func votersOf(t *testing.T, p *clustertest.Peer) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for _, s := range p.Status(within(t, 5*time.Second)).GetPeers() {
		if s.GetVoter() {
			out[s.GetMember().GetId()] = true
		}
	}
	return out
}

// The cap on voters is honoured when it is changed, both ways; votes go to
// different zones first; and a voter that is silent for long gives its vote to
// a peer that is alive, so that the next loss costs nothing either.
func TestVotersFollowSettings(t *testing.T) {
	t.Parallel()
	k := clustertest.Start(t, 5, clustertest.Options{Configure: func(id string, c *cluster.Config) {
		c.ReplaceAfter = 1500 * time.Millisecond
		c.Advertised.Zone = map[string]string{"p1": "a", "p2": "a", "p3": "b", "p4": "b", "p5": "c"}[id]
	}})
	set := func(n uint32) {
		p := k.WaitLeader()
		s := proto.CloneOf(p.Store().View().Settings())
		s.MaxVoters = n
		k.MustPropose(p.ID, &api.Op{Op: &api.Op_SettingsSet{SettingsSet: &api.SettingsSet{Settings: s}}})
	}
	set(5)
	k.WaitVoters(5)
	set(3)
	k.WaitVoters(3)
	leader := k.WaitLeader()
	for range 2 {
		var victim string
		for id := range votersOf(t, leader) {
			if id != leader.ID {
				victim = id
			}
		}
		k.Kill(victim)
		k.Wait("its vote goes to another", func() bool {
			voters := votersOf(t, leader)
			return len(voters) == 3 && !voters[victim]
		})
	}
	// Two of five are gone, one after the other, and the cluster stands one
	// more loss.
	for id := range votersOf(t, leader) {
		if id != leader.ID {
			k.Kill(id)
			break
		}
	}
	k.MustPropose(k.WaitLeader().ID, createNode("still-here"))
}
