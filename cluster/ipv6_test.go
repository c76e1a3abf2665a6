package cluster_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/cluster/clustertest"
)

// A cluster whose peers have IPv6 addresses only: founding, joining by token,
// gossip, leaving, a restart, and the loss of the leader.
func TestIPv6(t *testing.T) {
	t.Parallel()
	k := clustertest.Start(t, 3, clustertest.Options{IPv6: true})
	for _, p := range k.Peer("p2").Status(within(t, 5*time.Second)).GetPeers() {
		m := p.GetMember()
		for name, a := range map[string]string{"cluster": m.GetClusterAddress(), "gossip": m.GetGossipAddress(), "api": m.GetApiAddress()} {
			if !strings.HasPrefix(a, "[::1]:") || strings.HasSuffix(a, ":0") {
				t.Errorf("%s's %s address is %q", m.GetId(), name, a)
			}
		}
	}
	k.Wait("gossip works", func() bool { return k.Peer("p1").Alive("p3") && k.Peer("p3").Alive("p2") })
	k.MustPropose("p3", createNode("before"))
	old := k.WaitLeader()
	k.Kill(old.ID)
	k.MustPropose(k.WaitLeader().ID, createNode("without"))
	k.WaitReady(k.Restart(old.ID))
	k.WaitSame()
	var last *clustertest.Peer
	for _, p := range k.Peers() {
		if !p.IsLeader() {
			last = p
		}
	}
	if err := last.Leave(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	k.WaitVoters(2)
}
