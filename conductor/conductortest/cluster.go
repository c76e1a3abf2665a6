package conductortest

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster/duties"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
	"github.com/ironring/ironring/internal/rpc"
	"github.com/ironring/ironring/internal/seal"
)

// Settings are the defaults of a cluster.
func Settings() *api.Settings {
	return &api.Settings{
		Timing: &api.Timing{
			LeaseMs: 12_000, HolderMs: 8_000, RenewMs: 2_000, RpcMs: 1_000, MarginMs: 2_000,
			GuardMs: 5_000, ElectionMs: 3_000, SettleMs: 2_000, TcpUserMs: 5_000, BmcEffectMs: 5_000,
		},
		MaxVoters: 3, RingVersion: 1, IdleMoveMs: 60_000, JoinStableMs: 30_000,
		BootStallMs: 90_000, BootDeadlineMs: 30 * 60_000, BootTries: 3,
	}
}

// Cluster is a replicated state and its peers.
type Cluster struct {
	Store *fsm.Store
	Clock *Clock

	t       testing.TB
	ca      *pki.CA
	keyring *seal.Keyring
	peers   map[string]*Peer

	mu    sync.Mutex
	index uint64          // guarded by mu; of the last entry
	term  uint64          // guarded by mu
	watch func(*fsm.View) // guarded by mu
	log   []*api.Command  // guarded by mu
}

// New makes a cluster with the given members, all ready and with the fake
// driver.
func New(t testing.TB, members ...string) *Cluster {
	t.Helper()
	const id = "test"
	ca, err := pki.Create(id, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	keyring, err := seal.New()
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{
		Store: fsm.New(), Clock: NewClock(), t: t, ca: ca, keyring: keyring, peers: map[string]*Peer{}, term: 1,
	}
	c.Must(&api.Op{Op: &api.Op_Bootstrap{Bootstrap: &api.Bootstrap{ClusterId: id, Settings: Settings()}}})
	for _, m := range members {
		c.Must(&api.Op{Op: &api.Op_MemberSet{MemberSet: &api.MemberSet{Member: &api.Member{
			Id: m, Drivers: []string{"fake"}, Phase: api.Member_READY, FeatureLevel: 1, Weight: 1, AgentAddress: m + ":1",
		}}}})
		c.peers[m] = &Peer{cluster: c, id: m}
	}
	return c
}

// Peer is a member of the cluster.
func (c *Cluster) Peer(id string) *Peer { return c.peers[id] }

// Apply commits one command of the given operations.
func (c *Cluster) Apply(ops ...*api.Op) (*api.Result, error) {
	return c.commit("test", &api.Command{Meta: &api.Meta{Principal: "system", Reason: "the test asks for it"}, Ops: ops})
}

// Watch has f called with the state after each entry, in order; it must not
// call the Cluster.
func (c *Cluster) Watch(f func(v *fsm.View)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch = f
}

// Must is Apply that must be accepted.
func (c *Cluster) Must(ops ...*api.Op) *api.Result {
	c.t.Helper()
	res, err := c.Apply(ops...)
	if err != nil {
		c.t.Fatalf("%v: %v", ops, err)
	}
	return res
}

// Term is the term that commands of the leader's duties must carry.
func (c *Cluster) Term() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term
}

// Log is every command so far, accepted or refused. Commands must not be
// modified.
func (c *Cluster) Log() []*api.Command {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.log)
}

// commit applies a command that a peer proposes, as an entry of its own.
func (c *Cluster) commit(peer string, cmd *api.Command) (*api.Result, error) {
	cmd = &api.Command{Meta: fsm.CompleteMeta(cmd.GetMeta(), peer, c.Clock.Now().UnixMilli()), Ops: cmd.GetOps()}
	raw, err := proto.Marshal(&api.Entry{Commands: []*api.Command{cmd}})
	if err != nil {
		return nil, errs.New(errs.Invalid, "encode command: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	c.log = append(c.log, cmd)
	res, err := c.Store.Apply(c.index, c.term, raw)
	if err != nil {
		panic(err) // what would stop a peer
	}
	if c.watch != nil {
		c.watch(c.Store.View())
	}
	return res[0], rpc.FromFailure(res[0].GetFailure())
}

// Lead does a leader's duties until ctx ends.
func (c *Cluster) Lead(ctx context.Context) error {
	return duties.Run(ctx, duties.Config{
		Self: "leader", Term: c.Term(), Store: c.Store, Clock: c.Clock, Logger: slog.New(slog.DiscardHandler),
		Propose: func(_ context.Context, cmd *api.Command) (*api.Result, error) { return c.commit("leader", cmd) },
		Voters:  voters{c}, PromoteAfter: time.Second,
		Probe: func(context.Context, string) (*api.PeerInfoReply, error) {
			return &api.PeerInfoReply{AppliedIndex: c.Store.Index(), LastIndex: c.Store.Index()}, nil
		},
	})
}

// voters has every member as a voter.
type voters struct{ *Cluster }

func (v voters) Servers() ([]duties.Server, error) {
	var out []duties.Server
	for _, m := range v.Store.View().Members() {
		out = append(out, duties.Server{ID: m.GetId(), Address: m.GetClusterAddress(), Voter: true})
	}
	return out, nil
}

func (v voters) LastIndex() uint64           { return v.Store.Index() }
func (voters) AddNonvoter(_, _ string) error { return nil }
func (voters) AddVoter(_, _ string) error    { return nil }
func (voters) Demote(string) error           { return nil }
func (voters) Remove(string) error           { return nil }

// Clock is a clock for tests: real time, or that of a synctest bubble, and
// whatever it was moved by.
type Clock struct {
	begin time.Time

	mu   sync.Mutex
	wall time.Duration // guarded by mu; how far the wall clock is off
	gone time.Duration // guarded by mu; elapsed time that nobody noticed
}

var _ clock.Clock = (*Clock)(nil)

// NewClock makes a clock that starts now.
func NewClock() *Clock { return &Clock{begin: time.Now()} }

// Now implements clock.Clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.wall)
}

// Elapsed implements clock.Clock.
func (c *Clock) Elapsed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.begin) + c.gone
}

// Jump moves the wall clock.
func (c *Clock) Jump(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall += d
}

// Sleep is a suspend of the host: both clocks move, timers do not fire.
func (c *Clock) Sleep(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall += d
	c.gone += d
}
