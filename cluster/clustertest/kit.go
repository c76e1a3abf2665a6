package clustertest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rpc"
)

// Limit is how long a Wait may take before the test fails.
const Limit = 30 * time.Second

// openLimit is how long a peer may take to find or make its cluster; a test may
// have it wait.
const openLimit = 4 * Limit

// Options of a Kit; the zero value is good.
type Options struct {
	Settings *api.Settings // default: DefaultSettings with Timing
	Drivers  []string      // of every peer; default "fake"
	// Configure may change a peer's configuration before each start.
	Configure func(id string, cfg *cluster.Config)
	Verbose   bool // log to standard error
	IPv6      bool // all peers on [::1] in place of loopback addresses of their own
}

// Kit is a cluster of peers named p1, p2, ...
type Kit struct {
	t    testing.TB
	opts Options
	net  *fabric
	dir  string

	mu    sync.Mutex
	peers map[string]*Peer // guarded by mu
}

// Peer is one peer of a Kit.
type Peer struct {
	ID               string
	Dir              string
	*cluster.Cluster // of the last start

	listen, gossip, api string
	cancel              context.CancelFunc
	done                chan struct{}
	server              *grpc.Server
	serving             chan struct{}
	mu                  sync.Mutex
	err                 error // guarded by mu; what Run returned
}

// Timing is a profile ten times faster than the default one.
func Timing() *api.Timing {
	return &api.Timing{
		LeaseMs: 1_200, HolderMs: 800, RenewMs: 200, RpcMs: 100, MarginMs: 200, GuardMs: 500,
		ElectionMs: 300, SettleMs: 400, TcpUserMs: 300, BmcEffectMs: 300,
	}
}

// Settings are the default ones with Timing and short holds.
func Settings() *api.Settings {
	s := cluster.DefaultSettings()
	s.Timing, s.IdleMoveMs, s.JoinStableMs = Timing(), 2_000, 30_000
	return s
}

// New makes a Kit without peers. Everything ends with the test.
func New(t testing.TB, opts Options) *Kit {
	t.Helper()
	if opts.Settings == nil {
		opts.Settings = Settings()
	}
	if opts.Drivers == nil {
		opts.Drivers = []string{"fake"}
	}
	k := &Kit{t: t, opts: opts, net: newFabric(), dir: t.TempDir(), peers: map[string]*Peer{}}
	t.Cleanup(k.Stop)
	return k
}

// Start makes a Kit of n peers: p1 founds the cluster, the others join it, and
// all of them are ready voters.
func Start(t testing.TB, n int, opts Options) *Kit {
	t.Helper()
	k := New(t, opts)
	k.Found("p1")
	for i := 2; i <= n; i++ {
		k.Join(fmt.Sprintf("p%d", i), k.Token("p1"))
	}
	k.WaitVoters(min(n, int(k.opts.Settings.GetMaxVoters())))
	return k
}

// Found starts the first peer of a cluster.
func (k *Kit) Found(id string) *Peer {
	k.t.Helper()
	p := k.Add(id)
	if err := k.TryStart(p, func(c *cluster.Config) { c.Init, c.Settings = true, k.opts.Settings }); err != nil {
		k.t.Fatalf("found a cluster with %s: %v", id, err)
	}
	k.WaitReady(p)
	return p
}

// Join starts a peer with a join token.
func (k *Kit) Join(id, token string) *Peer {
	k.t.Helper()
	p := k.Add(id)
	if err := k.TryStart(p, func(c *cluster.Config) { c.JoinToken = token }); err != nil {
		k.t.Fatalf("join %s: %v", id, err)
	}
	k.WaitReady(p)
	return p
}

// Token makes a join token at a peer. An election on a busy machine has it try
// again: a token that nobody was told is harmless.
func (k *Kit) Token(at string) (token string) {
	k.t.Helper()
	var err error
	k.Wait("a join token is made at "+at, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), Limit)
		defer cancel()
		token, _, err = k.Peer(at).CreateJoinToken(ctx, 0)
		if kind := errs.KindOf(err); err != nil && kind != errs.Timeout && kind != errs.NoQuorum && kind != errs.NotLeader {
			k.t.Fatalf("make a join token at %s: %v", at, err)
		}
		return err == nil
	})
	return token
}

var hosts atomic.Uint32

// Add gives a new peer a directory and addresses; it does not start.
func (k *Kit) Add(id string) *Peer {
	n := hosts.Add(1)
	host := fmt.Sprintf("127.77.%d.%d:0", 1+os.Getpid()%250, 1+n%250)
	if k.opts.IPv6 {
		host = "[::1]:0"
	}
	p := &Peer{ID: id, Dir: filepath.Join(k.dir, id), listen: host, gossip: host, api: host}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.peers[id] = p
	return p
}

// Place gives a peer that was never started an address for its cluster
// listener, so that partitions know it from the start.
func (k *Kit) Place(id, address string) {
	p := k.Peer(id)
	p.listen = address
	k.net.change(func() { k.net.owner[address] = id })
}

// TryStart opens and runs a peer that is not running.
func (k *Kit) TryStart(p *Peer, change func(*cluster.Config)) error {
	lis, err := net.Listen("tcp", p.api)
	if err != nil {
		return err
	}
	p.api = lis.Addr().String()
	cfg := cluster.Config{
		DataDir: p.Dir, ID: p.ID, ClusterListen: p.listen, GossipListen: p.gossip,
		Advertised:   &api.Member{ApiAddress: p.api, Drivers: k.opts.Drivers, Version: "test", FeatureLevel: 1},
		Raft:         cluster.RaftTimeouts{Heartbeat: 300 * time.Millisecond, Election: 300 * time.Millisecond, LeaderLease: 300 * time.Millisecond},
		Dial:         k.net.dialer(p.ID),
		PromoteAfter: 100 * time.Millisecond,
	}
	if k.opts.Verbose {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("at", p.ID)
	}
	if k.opts.Configure != nil {
		k.opts.Configure(p.ID, &cfg)
	}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), openLimit)
	defer cancel()
	c, err := cluster.Open(ctx, cfg)
	if err != nil {
		lis.Close()
		return err
	}
	k.run(p, c, lis)
	return nil
}

func (k *Kit) run(p *Peer, c *cluster.Cluster, lis net.Listener) {
	p.listen, p.gossip = c.Addresses()
	p.Cluster = c
	k.net.change(func() { k.net.owner[p.listen], k.net.owner[p.api] = p.ID, p.ID; delete(k.net.dead, p.ID) })
	p.server = grpc.NewServer(append(rpc.ServerOptions(nil), grpc.Creds(credentials.NewTLS(c.TLS().ServerTLS(false))))...)
	api.RegisterJoinServer(p.server, c.JoinServer())
	p.serving = make(chan struct{})
	go func() {
		defer close(p.serving)
		_ = p.server.Serve(lis) // ends with Stop
	}()
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.done = cancel, make(chan struct{})
	go func() {
		defer close(p.done)
		err := c.Run(ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.err = err
	}()
}

// Peer is a peer by id.
func (k *Kit) Peer(id string) *Peer {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.peers[id]
	if p == nil {
		k.t.Fatalf("there is no peer %q", id)
	}
	return p
}

// Peers are the peers that run, by id.
func (k *Kit) Peers() []*Peer {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []*Peer
	for i := 1; len(out) < len(k.peers) && i < 100; i++ {
		if p := k.peers[fmt.Sprintf("p%d", i)]; p != nil && p.cancel != nil {
			out = append(out, p)
		}
	}
	return out
}

// Err is what a peer's Run returned; it waits for the end of Run.
func (p *Peer) Err() error {
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// halt ends a peer and waits for it.
func (p *Peer) halt() {
	if p.cancel == nil {
		return
	}
	p.server.Stop()
	<-p.serving
	p.cancel()
	<-p.done
	p.cancel = nil
}

// Kill ends a peer without a goodbye to Raft: it is cut off first.
func (k *Kit) Kill(id string) {
	k.t.Helper()
	p := k.Peer(id)
	k.net.change(func() { k.net.dead[id] = true })
	p.halt()
}

// Quit stops a peer as a service manager does.
func (k *Kit) Quit(id string) {
	k.t.Helper()
	k.Peer(id).halt()
}

// Restart starts a peer that was killed or quit, at its old addresses.
func (k *Kit) Restart(id string) *Peer {
	k.t.Helper()
	p := k.Peer(id)
	k.net.change(func() { delete(k.net.dead, id) })
	if err := k.TryStart(p, nil); err != nil {
		k.t.Fatalf("restart %s: %v", id, err)
	}
	return p
}

// Partition cuts the named peers off from all others.
func (k *Kit) Partition(ids ...string) {
	k.net.change(func() {
		k.net.side = map[string]int{}
		for _, id := range ids {
			k.net.side[id] = 1
		}
	})
}

// Heal ends every partition.
func (k *Kit) Heal() { k.net.change(func() { k.net.side = map[string]int{} }) }

// Stop ends all peers.
func (k *Kit) Stop() {
	for _, p := range k.Peers() {
		p.halt()
	}
}

// NewMember is a copy of what a peer advertises, for tests that change it.
func NewMember(p *Peer) *api.Member {
	return proto.CloneOf(p.Store().View().Member(p.ID))
}
