package clustertest

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/ironring/ironring/api"
)

// Wait waits until a condition holds, and fails the test after Limit.
func (k *Kit) Wait(what string, cond func() bool) {
	k.t.Helper()
	deadline := time.Now().Add(Limit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if time.Now().After(deadline) {
			k.t.Fatalf("gave up waiting until %s", what)
		}
		<-tick.C
	}
}

// WaitReady waits until a peer is a ready member.
func (k *Kit) WaitReady(p *Peer) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Limit)
	defer cancel()
	if err := p.WaitReady(ctx); err != nil {
		k.t.Fatalf("%s: %v", p.ID, err)
	}
}

// WaitLeader waits until one of the running peers leads and a majority of them
// agrees, and returns it.
func (k *Kit) WaitLeader() *Peer {
	k.t.Helper()
	var leader *Peer
	k.Wait("there is a leader", func() bool {
		votes := map[string]int{}
		peers := k.Peers()
		for _, p := range peers {
			id, _ := p.Leader()
			votes[id]++
		}
		for _, p := range peers {
			if p.IsLeader() && votes[p.ID] > len(peers)/2 {
				leader = p
				return true
			}
		}
		return false
	})
	return leader
}

// WaitVoters waits until the cluster has n voters.
func (k *Kit) WaitVoters(n int) {
	k.t.Helper()
	k.Wait("all peers have their votes", func() bool {
		voters := 0
		for _, p := range k.WaitLeader().Status(context.Background()).GetPeers() {
			if p.GetVoter() {
				voters++
			}
		}
		return voters == n
	})
}

// WaitSame waits until all running peers have applied the same index, and
// fails the test if their states differ.
func (k *Kit) WaitSame() {
	k.t.Helper()
	k.Wait("all peers are equal", func() bool {
		peers := k.Peers()
		sum, at := peers[0].Store().Digest()
		for _, p := range peers[1:] {
			s, i := p.Store().Digest()
			if i != at {
				return false
			}
			if s != sum {
				k.t.Fatalf("%s and %s differ at index %d", peers[0].ID, p.ID, at)
			}
		}
		return true
	})
}

// Lease registers a lease for a peer, so that it can own nodes, and returns
// its id. The test renews it, or lets it expire.
func (k *Kit) Lease(id string) string {
	k.t.Helper()
	lease := "lease-" + id + "-" + time.Now().Format("150405.000000000")
	k.MustPropose(id, &api.Op{Op: &api.Op_LeaseRegister{LeaseRegister: &api.LeaseRegister{
		Lease: &api.Lease{Id: lease, Conductor: id, Incarnation: "1", MachineId: "m", BootId: "b"}, DirectoryLock: true,
	}}})
	return lease
}

// MustPropose commits operations through a peer as one command.
func (k *Kit) MustPropose(at string, ops ...*api.Op) *api.Result {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Limit)
	defer cancel()
	// With a request id the outcome becomes known, whoever loses his leadership.
	meta := &api.Meta{Principal: "test", Reason: "test", RequestId: uuid.NewString()}
	res, err := k.Peer(at).Propose(ctx, &api.Command{Meta: meta, Ops: ops})
	if err != nil {
		k.t.Fatalf("propose through %s: %v", at, err)
	}
	return res
}
