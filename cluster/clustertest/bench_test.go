package clustertest

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/internal/benchtest"
)

// BenchmarkPropose commits node creations at the leader of three peers, each
// of which has a live lease, so that nodes get their owner as they are made.
// Ceiling: as many callers commit as many bytes each through a packer of the
// same bounds to three bare Raft servers with the same log store.
func BenchmarkPropose(b *testing.B) {
	const callers = 256
	p := leader(b)
	raw, stop := benchtest.Packer(benchtest.Raft(b, 3), size(), callers)
	defer stop()
	benchtest.Compare(b, benchtest.Side{Callers: callers, Do: func() error {
		_, err := p.Propose(b.Context(), creation())
		return err
	}}, benchtest.Side{Callers: callers, Do: raw})
}

// BenchmarkProposeAll is BenchmarkPropose with 256 commands at once. Ceiling:
// the same, with as many callers as there are commands on their way.
func BenchmarkProposeAll(b *testing.B) {
	const callers, each = 8, 256
	p := leader(b)
	raw, stop := benchtest.Packer(benchtest.Raft(b, 3), size(), callers*each)
	defer stop()
	benchtest.Compare(b, benchtest.Side{Callers: callers, Each: each, Do: func() error {
		cmds := make([]*api.Command, each)
		for i := range cmds {
			cmds[i] = creation()
		}
		for _, o := range p.ProposeAll(b.Context(), cmds) {
			if o.Err != nil {
				return o.Err
			}
		}
		return nil
	}}, benchtest.Side{Callers: callers * each, Do: raw})
}

var created atomic.Int64

func creation() *api.Command {
	return &api.Command{Meta: &api.Meta{Principal: "local:bench", Source: "unix", Reason: "create node", WallMs: time.Now().UnixMilli()}, Ops: []*api.Op{{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{
		Id: uuid.Must(uuid.NewV7()).String(), Name: fmt.Sprintf("bench-%d", created.Add(1)), Driver: "fake",
		DriverInfo: []byte(`{"fake_address":"192.0.2.1"}`), Properties: []byte(`{"cpus":64,"memory_mb":262144}`), Extra: []byte("{}"), InstanceInfo: []byte("{}"),
	}}}}}}
}

// size is that of a creation as it stands in the log.
func size() int {
	c := creation()
	c.Ops[0].GetNodeCreate().Node.Assigned = "p1"
	return proto.Size(c)
}

// leader starts three peers and keeps their leases alive. The collector runs
// as in a peer's process (`serve`), for both sides.
func leader(b *testing.B) *Peer {
	b.Helper()
	old := debug.SetGCPercent(200)
	b.Cleanup(func() { debug.SetGCPercent(old) })
	k := Start(b, 3, Options{Settings: cluster.DefaultSettings(), Configure: func(_ string, cfg *cluster.Config) {
		// As in benchtest: a busy machine must not change leaders in the middle.
		cfg.Raft = cluster.RaftTimeouts{Heartbeat: 2 * time.Second, Election: 2 * time.Second, LeaderLease: time.Second}
	}})
	p := k.Peer(k.WaitLeader().ID)
	var leases []string
	for _, p := range k.Peers() {
		leases = append(leases, k.Lease(p.ID))
	}
	ctx, cancel := context.WithCancel(b.Context())
	var all sync.WaitGroup
	all.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for seq := uint64(1); ; seq++ {
			for _, id := range leases {
				_, err := p.Propose(ctx, &api.Command{Meta: &api.Meta{Reason: "renew the lease"}, Ops: []*api.Op{{Op: &api.Op_LeaseRenew{LeaseRenew: &api.LeaseRenew{LeaseId: id, Seq: seq}}}}})
				if err != nil && ctx.Err() == nil {
					b.Error(err)
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	b.Cleanup(func() { cancel(); all.Wait() })
	return p
}
