package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rpc"
)

func TestMain(m *testing.M) {
	// Each check is three peers and hours of their time; -rapid.checks asks for
	// more.
	if err := flag.Set("rapid.checks", "25"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// world is a cluster whose peers share one copy of the state.
type world struct {
	t     *testing.T
	store *fsm.Store
	pipes bool // peers are reached in memory, for bubbles

	skipped atomic.Int64 // by which the host's clock is ahead of the real one

	mu    sync.Mutex
	index uint64           // guarded by mu
	peers map[string]*peer // guarded by mu
}

// Now and Elapsed make the world the clock of its peers.
func (w *world) Now() time.Time { return time.Now() }
func (w *world) Elapsed() time.Duration {
	return clock.System{}.Elapsed() + time.Duration(w.skipped.Load())
}

// pass lets time go by, of the host's and of the cluster's clock.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	const step = 10 * time.Second // the most that a tick may say
	for ; d > 0; d -= step {
		w.skipped.Add(int64(step))
		w.tick(step)
	}
}

func (w *world) tick(d time.Duration) {
	w.t.Helper()
	w.ok(&api.Op{Op: &api.Op_Tick{Tick: &api.Tick{Ms: uint64(d.Milliseconds()), Term: 1}}})
}

// lose ends the lease of a member.
func (w *world) lose(id string) {
	w.t.Helper()
	w.ok(&api.Op{Op: &api.Op_LeaseRelease{LeaseRelease: &api.LeaseRelease{LeaseId: "l-" + id}}})
}

// peer is one Keeper with its listener.
type peer struct {
	*Keeper
	id     string
	dir    string
	addr   string
	dial   []grpc.DialOption
	client *grpc.ClientConn
	stop   func()        // kills it; more than once is fine
	ended  chan struct{} // closed by stop
}

func (p *peer) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func newWorld(t *testing.T, ids ...string) *world {
	w := emptyWorld(t)
	for _, id := range ids {
		w.join(id)
		w.start(id, filepath.Join(t.TempDir(), id), nil)
	}
	return w
}

// emptyWorld is a cluster without peers.
func emptyWorld(t *testing.T) *world {
	w := &world{t: t, store: fsm.New(), peers: map[string]*peer{}}
	w.ok(&api.Op{Op: &api.Op_Bootstrap{Bootstrap: &api.Bootstrap{ClusterId: "c", Settings: &api.Settings{Timing: &api.Timing{LeaseMs: 12000, HolderMs: 8000}, MaxVoters: 3, RingVersion: 1}}}})
	return w
}

// join makes a ready member with a live lease.
func (w *world) join(id string) {
	w.ok(&api.Op{Op: &api.Op_MemberSet{MemberSet: &api.MemberSet{Member: &api.Member{Id: id, Phase: api.Member_READY, FeatureLevel: fsm.FeatureLevel, BootAddress: id + ".example:80"}}}},
		&api.Op{Op: &api.Op_LeaseRegister{LeaseRegister: &api.LeaseRegister{Lease: &api.Lease{Id: "l-" + id, Conductor: id, MachineId: "m-" + id, BootId: "b"}, DirectoryLock: true}}})
}

func (w *world) start(id, dir string, tune func(*Config)) *peer {
	w.t.Helper()
	cfg := Config{
		Dir: dir, Self: id, Store: w.store, Propose: w.propose, PeerConn: w.conn, Clock: w,
		Logger: slog.New(slog.DiscardHandler), Period: 50 * time.Millisecond, Poll: 20 * time.Millisecond,
		Caller: func(context.Context) (string, error) { return "peer", nil },
		Usage:  func(string) (uint64, uint64, error) { return 0, 1 << 40, nil },
	}
	if tune != nil {
		tune(&cfg)
	}
	k, err := New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	lis, addr, dial := w.listen()
	srv := grpc.NewServer(rpc.ServerOptions(cfg.Logger)...)
	api.RegisterArtifactsServer(srv, k)
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = srv.Serve(lis) })
	all.Go(func() {
		if err := k.Run(ctx); err != nil {
			w.t.Errorf("%s: %v", id, err)
		}
	})
	client, err := grpc.NewClient(addr, dial...)
	if err != nil {
		w.t.Fatal(err)
	}
	p := &peer{Keeper: k, id: id, dir: dir, addr: addr, dial: dial, client: client, ended: make(chan struct{})}
	p.stop = sync.OnceFunc(func() {
		close(p.ended)
		srv.Stop()
		cancel()
		all.Wait()
		client.Close()
	})
	w.t.Cleanup(p.stop)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.peers[id] = p
	return p
}

// listen makes a listener, and says how it is reached.
func (w *world) listen() (lis net.Listener, addr string, dial []grpc.DialOption) {
	dial = append(rpc.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if w.pipes {
		lis := bufconn.Listen(64 << 10)
		return lis, "passthrough:///pipe", append(dial, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	return lis, lis.Addr().String(), dial
}

// stopAll ends all peers before the test does.
func (w *world) stopAll() {
	for _, p := range w.all() {
		p.stop()
	}
}

func (w *world) all() []*peer {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Values(w.peers))
}

func (w *world) peer(id string) *peer {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.peers[id]
}

func (w *world) conn(id string) (*grpc.ClientConn, error) {
	if p := w.peer(id); p != nil {
		return p.client, nil
	}
	return nil, errs.New(errs.NotFound, "no member %s", id)
}

func (w *world) propose(_ context.Context, cmd *api.Command) (*api.Result, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.index++
	cmd.Meta = fsm.CompleteMeta(cmd.GetMeta(), "test", 1)
	b, err := proto.Marshal(&api.Entry{Commands: []*api.Command{cmd}})
	if err != nil {
		return nil, err
	}
	res, err := w.store.Apply(w.index, 1, b)
	if err != nil {
		return nil, err
	}
	if f := res[0].GetFailure(); f != nil {
		return nil, errs.New(errs.ParseKind(f.GetKind()), "%s", f.GetMessage())
	}
	return res[0], nil
}

func (w *world) ok(ops ...*api.Op) {
	w.t.Helper()
	if _, err := w.propose(context.Background(), &api.Command{Meta: &api.Meta{Principal: "system", Reason: "test"}, Ops: ops}); err != nil {
		w.t.Fatal(err)
	}
}

// feed gives bytes in parts.
func feed(data []byte) func() ([]byte, error) {
	return func() ([]byte, error) {
		if len(data) == 0 {
			return nil, io.EOF
		}
		part := data[:min(len(data), 100_000)]
		data = data[len(part):]
		return part, nil
	}
}

// Moments of a put.
const (
	received   = "received"   // one copy is on disk
	replicated = "replicated" // two are, nothing is recorded
	proposed   = "proposed"   // and recorded, and nobody knows
)

// put stores bytes at a peer as the service does. at is called at each moment
// of it, and ends it there unless it says to go on.
func (w *world) put(id string, data []byte, at func(moment string) bool) (*api.Artifact, error) {
	p, digest := w.peer(id), sum256(data)
	if at == nil {
		at = func(string) bool { return true }
	}
	if err := p.Receive(digest, uint64(len(data)), feed(data)); err != nil || !at(received) {
		return nil, err
	}
	copies, until, err := p.Replicate(context.Background(), digest)
	if err != nil || !at(replicated) {
		return nil, err
	}
	_, err = w.propose(context.Background(), &api.Command{Meta: &api.Meta{Principal: "system", Reason: "test"}, Ops: []*api.Op{{Op: &api.Op_ArtifactSet{ArtifactSet: &api.ArtifactSet{
		Artifact: &api.Artifact{Digest: digest, Size: uint64(len(data)), Copies: copies}, BeforeTick: until,
	}}}}})
	if err == nil {
		at(proposed)
	}
	return w.store.View().Artifact(digest), err
}

func (w *world) mustPut(id string, data []byte) *api.Artifact {
	w.t.Helper()
	a, err := w.put(id, data, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// read gets a whole artifact as a machine does.
func (p *peer) read(t *testing.T, digest string) ([]byte, error) {
	r, err := p.Open(t.Context(), digest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func (w *world) wantRead(id string, data []byte) {
	w.t.Helper()
	if b, err := w.peer(id).read(w.t, sum256(data)); err != nil || !bytes.Equal(b, data) {
		w.t.Errorf("%s gave %d bytes of %d: %v", id, len(b), len(data), err)
	}
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func random(seed, n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(int64(seed))).Read(b)
	return b
}

func sum256(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func copies(a *api.Artifact) string { return fmt.Sprint(a.GetCopies()) }
