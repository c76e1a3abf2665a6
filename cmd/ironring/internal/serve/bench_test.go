package serve

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/config"
	"github.com/ironring/ironring/internal/rpc"
)

// The benchmarks here measure ours and a ceiling in turn, in the same process,
// and report the ratio of the medians: what they print is worth something on a
// busy machine too. Run them with `make bench`.

const (
	rounds     = 5
	roundTime  = 2 * time.Second
	workers    = 64  // for reads
	writers    = 512 // for writes: enough that entries are packed
	packed     = 256 // commands in one entry, as in package cluster
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
	compare(b,
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
	raw, stop := startPacker(startRaft(b), proto.Size(cmd))
	defer stop()
	ours := api.NewIronringClient(dialUnix(b, peer.socket))
	var next atomic.Int64
	compare(b,
		func() error {
			_, err := ours.CreateNode(ctx, &api.CreateNodeRequest{Node: benchNode(int(next.Add(1)))})
			return err
		},
		raw, writers)
}

// startPacker gives a function that commits one command of a size and returns
// when it is applied.
func startPacker(r *raft.Raft, size int) (commit func() error, stop func()) {
	queue, quit := make(chan chan error, writers), make(chan struct{})
	inFlight := make(chan struct{}, 2)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			inFlight <- struct{}{}
			var batch []chan error
			select {
			case first := <-queue:
				batch = append(batch, first)
			case <-quit:
				return
			}
			for more := true; more && len(batch) < packed; {
				select {
				case next := <-queue:
					batch = append(batch, next)
				default:
					more = false
				}
			}
			f := r.Apply(make([]byte, size*len(batch)), 10*time.Second)
			all.Go(func() {
				err := f.Error()
				<-inFlight
				for _, c := range batch {
					c <- err
				}
			})
		}
	})
	commit = func() error {
		done := make(chan error, 1)
		queue <- done
		return <-done
	}
	return commit, func() { close(quit); all.Wait() }
}

// compare runs ours and ceiling in turn, each from n goroutines, and reports
// operations a second.
func compare(b *testing.B, ours, ceiling func() error, n int) {
	b.Helper()
	var us, top []float64
	for range rounds {
		us = append(us, rate(b, ours, n))
		top = append(top, rate(b, ceiling, n))
	}
	slices.Sort(us)
	slices.Sort(top)
	mine, most := us[rounds/2], top[rounds/2]
	b.ReportMetric(mine, "ours/s")
	b.ReportMetric(most, "ceiling/s")
	b.ReportMetric(100*mine/most, "%ofceiling")
	b.ReportMetric(0, "ns/op")
}

// rate runs op in n goroutines for one round.
func rate(b *testing.B, op func() error, n int) float64 {
	b.Helper()
	var done atomic.Int64
	var all sync.WaitGroup
	start := time.Now()
	for range n {
		all.Go(func() {
			for time.Since(start) < roundTime {
				if err := op(); err != nil {
					b.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	return float64(done.Load()) / time.Since(start).Seconds()
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

// nothing is a state machine that forgets.
type nothing struct{}

func (nothing) Apply(*raft.Log) any                 { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, nil }
func (nothing) Restore(r io.ReadCloser) error       { return r.Close() }
func (nothing) Persist(s raft.SnapshotSink) error   { return s.Close() }
func (nothing) Release()                            {}

// startRaft runs a bare Raft of one server on the same log store as a peer's.
func startRaft(b *testing.B) *raft.Raft {
	b.Helper()
	dir := b.TempDir()
	store, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, "raft.db")})
	if err != nil {
		b.Fatal(err)
	}
	snaps, err := raft.NewFileSnapshotStore(dir, 1, io.Discard)
	if err != nil {
		b.Fatal(err)
	}
	cfg := raft.DefaultConfig()
	cfg.LocalID, cfg.LogOutput = "raw", io.Discard
	cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = 500*time.Millisecond, 500*time.Millisecond, 250*time.Millisecond
	addr, trans := raft.NewInmemTransport("")
	if err := raft.BootstrapCluster(cfg, store, store, snaps, trans, raft.Configuration{Servers: []raft.Server{{ID: "raw", Address: addr}}}); err != nil {
		b.Fatal(err)
	}
	r, err := raft.NewRaft(cfg, nothing{}, store, store, snaps, trans)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := r.Shutdown().Error(); err != nil {
			b.Error(err)
		}
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); r.State() != raft.Leader; {
		if time.Now().After(deadline) {
			b.Fatal("the bare raft has no leader")
		}
		<-time.After(20 * time.Millisecond)
	}
	return r
}
