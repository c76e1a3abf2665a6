package clustertest

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/benchtest"
)

// BenchmarkPropose commits node creations at the leader of three peers.
// Ceiling: as many callers commit as many bytes each through a packer of the
// same bounds to three bare Raft servers with the same log store.
func BenchmarkPropose(b *testing.B) {
	const callers = 256
	k := Start(b, 3, Options{})
	p := k.Peer(k.WaitLeader().ID)
	var next atomic.Int64
	create := func() *api.Command {
		return &api.Command{Meta: &api.Meta{Principal: "local:bench", Source: "unix", Reason: "create node", WallMs: 1}, Ops: []*api.Op{{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{
			Id: uuid.NewString(), Name: fmt.Sprintf("bench-%d", next.Add(1)), Driver: "fake",
			DriverInfo: []byte(`{"fake_address":"192.0.2.1"}`), Properties: []byte(`{"cpus":64,"memory_mb":262144}`), Extra: []byte("{}"), InstanceInfo: []byte("{}"),
		}}}}}}
	}
	raw, stop := benchtest.Packer(benchtest.Raft(b, 3), proto.Size(create()), callers)
	defer stop()
	benchtest.Compare(b, benchtest.Side{Callers: callers, Do: func() error {
		_, err := p.Propose(b.Context(), create())
		return err
	}}, benchtest.Side{Callers: callers, Do: raw})
}
