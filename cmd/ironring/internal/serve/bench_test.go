package serve

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/benchtest"
	"github.com/ironring/ironring/internal/config"
	"github.com/ironring/ironring/internal/rpc"
	"github.com/ironring/ironring/internal/seal"
)

// The benchmarks here measure ours and a ceiling in turn, in the same process,
// and report the ratio of the medians: what they print is worth something on a
// busy machine too. Run them with `make bench`.

const (
	workers    = 64  // for reads
	writers    = 512 // for writes: enough that entries are packed
	benchNodes = 1000
)

// BenchmarkNodeRead reads nodes through the unix socket of one running peer.
// Ceiling: an empty call over the same transport.
func BenchmarkNodeRead(b *testing.B) {
	peer := startPeer(b)
	ctx := b.Context()
	for i := range benchNodes {
		if _, err := peer.CreateNode(ctx, &api.CreateNodeRequest{Node: benchNode(i)}); err != nil {
			b.Fatal(err)
		}
	}
	socket := filepath.Join(b.TempDir(), "empty")
	ceiling := api.NewIronringClient(dialUnix(b, serveEmpty(b, socket)))
	ours := api.NewIronringClient(dialUnix(b, peer.socket))
	var next atomic.Int64
	benchtest.Compare(b,
		benchtest.Side{Callers: workers, Do: func() error {
			_, err := ours.GetNode(ctx, &api.GetNodeRequest{Node: fmt.Sprintf("bench-%d", next.Add(1)%benchNodes)})
			return err
		}},
		benchtest.Side{Callers: workers, Do: func() error { _, err := ceiling.Version(ctx, &api.VersionRequest{}); return err }})
}

// BenchmarkNodeCreate creates nodes through the unix socket of one running
// peer, one in each call. Ceiling: as many callers commit as many bytes each
// through a packer of the same bounds to a bare Raft with the same log store,
// synced to disk; there is no gRPC, no check, no state.
func BenchmarkNodeCreate(b *testing.B) {
	peer := startPeer(b)
	ctx := b.Context()
	raw, stop := benchtest.Packer(benchtest.Raft(b, 1), creationSize(b), writers)
	defer stop()
	ours := api.NewIronringClient(dialUnix(b, peer.socket))
	var next atomic.Int64
	benchtest.Compare(b,
		benchtest.Side{Callers: writers, Do: func() error {
			_, err := ours.CreateNode(ctx, &api.CreateNodeRequest{Node: benchNode(int(next.Add(1))), RequestId: uuid.NewString()})
			return err
		}},
		benchtest.Side{Callers: writers, Do: raw})
}

// BenchmarkNodeCreateBatch is BenchmarkNodeCreate with 256 nodes in each call,
// each of them a command of its own in the log. Ceiling: the same, with as many
// callers as there are nodes on their way.
func BenchmarkNodeCreateBatch(b *testing.B) {
	const callers, each = 8, 256
	peer := startPeer(b)
	ctx := b.Context()
	raw, stop := benchtest.Packer(benchtest.Raft(b, 1), creationSize(b), callers*each)
	defer stop()
	ours := api.NewIronringClient(dialUnix(b, peer.socket))
	var next atomic.Int64
	benchtest.Compare(b,
		benchtest.Side{Callers: callers, Each: each, Do: func() error {
			req := &api.CreateNodesRequest{}
			for range each {
				req.Nodes = append(req.Nodes, &api.CreateNodeRequest{Node: benchNode(int(next.Add(1))), RequestId: uuid.NewString()})
			}
			rep, err := ours.CreateNodes(ctx, req)
			if err != nil {
				return err
			}
			for _, r := range rep.GetResults() {
				if r.GetCreated() == nil {
					return fmt.Errorf("not created: %v", r.GetFailure())
				}
			}
			return nil
		}},
		benchtest.Side{Callers: callers * each, Do: raw})
}

// creationSize is the size of the command that creates a node of benchNode, as
// it stands in the log: with the secret sealed, and the owner.
func creationSize(b *testing.B) int {
	b.Helper()
	n := benchNode(100_000)
	n.Id, n.Extra, n.InstanceInfo, n.Assigned = uuid.NewString(), []byte("{}"), []byte("{}"), "p1"
	keyring, err := seal.New()
	if err != nil {
		b.Fatal(err)
	}
	if n.DriverInfo, err = keyring.SealDoc(seal.NodeAAD(n.GetId(), "driver_info"), n.DriverInfo, seal.SecretPath); err != nil {
		b.Fatal(err)
	}
	return proto.Size(&api.Command{
		Meta: &api.Meta{Principal: "local:socket", Source: "unix", RequestId: uuid.NewString(), Reason: "create node", WallMs: time.Now().UnixMilli()},
		Ops:  []*api.Op{{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: n}}}},
	})
}

func benchNode(i int) *api.Node {
	return &api.Node{
		Name: fmt.Sprintf("bench-%d", i), Driver: "ipmi",
		DriverInfo: []byte(`{"ipmi_address":"192.0.2.1","ipmi_username":"admin","ipmi_password":"password"}`),
		Properties: []byte(`{"cpus":64,"memory_mb":262144,"root_device":{"serial":"S3X9NF0K123456"}}`),
	}
}

type benchPeer struct {
	*client.Client
	socket string
}

// startPeer runs a whole peer in this process.
func startPeer(b *testing.B) *benchPeer {
	b.Helper()
	dir, err := os.MkdirTemp("", "bench") // short: a socket's path is bounded
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	cfg, err := config.Parse(fmt.Appendf(nil, "data_dir: %s/data\nid: p1\nsocket: %s/sock\ndrivers: [ipmi]\nboot: {dhcp: 'off'}\n", dir, dir), config.System())
	if err != nil {
		b.Fatal(err)
	}
	// Any free port: the file's rules are for operators, who need to know them.
	anyPort := "127.0.0.1:0"
	cfg.Listen = config.Listen{Cluster: anyPort, Gossip: anyPort, API: anyPort, Agent: anyPort, Boot: anyPort, TFTP: anyPort}
	cfg.Advertise = config.Advertise{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, Options{Config: cfg, Init: true, Logger: slog.New(slog.DiscardHandler)}) }()
	b.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	c, err := client.New(client.Config{Socket: cfg.Socket})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	for deadline := time.Now().Add(30 * time.Second); ; {
		st, err := c.ClusterStatus(ctx, &api.ClusterStatusRequest{})
		if err == nil && st.GetLeader() != "" && len(st.GetPeers()) == 1 && st.GetPeers()[0].GetLease() == "live" {
			return &benchPeer{c, cfg.Socket}
		}
		if time.Now().After(deadline) {
			b.Fatalf("the peer is not ready: %v %v", st, err)
		}
		select {
		case err := <-ended:
			ended <- err
			b.Fatalf("the peer ended: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func dialUnix(b *testing.B, socket string) *grpc.ClientConn {
	b.Helper()
	conn, err := grpc.NewClient("unix:"+socket, append(rpc.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return conn
}

type empty struct {
	api.UnimplementedIronringServer
}

func (empty) Version(context.Context, *api.VersionRequest) (*api.VersionReply, error) {
	return &api.VersionReply{}, nil
}

// serveEmpty serves a call that does nothing.
func serveEmpty(b *testing.B, socket string) string {
	b.Helper()
	ln, err := net.Listen("unix", socket)
	if err != nil {
		b.Fatal(err)
	}
	s := grpc.NewServer()
	api.RegisterIronringServer(s, empty{})
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(ln) }()
	b.Cleanup(func() { s.Stop(); <-done })
	return socket
}
