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

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/benchtest"
	"github.com/ironring/ironring/internal/config"
	"github.com/ironring/ironring/internal/rpc"
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
		func() error {
			_, err := ours.GetNode(ctx, &api.GetNodeRequest{Node: fmt.Sprintf("bench-%d", next.Add(1)%benchNodes)})
			return err
		},
		func() error { _, err := ceiling.Version(ctx, &api.VersionRequest{}); return err },
		workers)
}

// BenchmarkNodeCreate creates nodes through the unix socket of one running
// peer. Ceiling: as many callers commit as many bytes each through a packer of
// the same bounds to a bare Raft with the same log store, synced to disk; there
// is no gRPC, no check, no state.
func BenchmarkNodeCreate(b *testing.B) {
	peer := startPeer(b)
	ctx := b.Context()
	cmd := &api.Command{
		Meta: &api.Meta{Principal: "local:socket", Source: "unix", RequestId: "00000000-0000-0000-0000-000000000000", Reason: "create node", WallMs: 1},
		Ops:  []*api.Op{{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: benchNode(0)}}}},
	}
	raw, stop := benchtest.Packer(benchtest.Raft(b, 1), proto.Size(cmd), writers)
	defer stop()
	ours := api.NewIronringClient(dialUnix(b, peer.socket))
	var next atomic.Int64
	benchtest.Compare(b,
		func() error {
			_, err := ours.CreateNode(ctx, &api.CreateNodeRequest{Node: benchNode(int(next.Add(1)))})
			return err
		},
		raw, writers)
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
