package flow

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/agents"
	"github.com/ironring/ironring/conductor/bmc"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/conductor/journal"
	"github.com/ironring/ironring/conductor/lease"
	"github.com/ironring/ironring/conductor/watch"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

func TestMain(m *testing.M) {
	// A run of a whole deployment is not cheap; -rapid.checks asks for more.
	if err := flag.Set("rapid.checks", "25"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

const (
	nodeID   = "00000000-0000-4000-8000-000000000001"
	nodeMAC  = "52:54:00:00:00:01"
	checksum = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// bootsAnew are the properties of a node of which each flow boots the machine.
const bootsAnew = `{"fast_track":false}`

// rig is a cluster of conductors and one node with its machine, in a bubble.
type rig struct {
	*testing.T
	c          *conductortest.Cluster
	driver     *fake.Driver
	bmc        *fake.BMC
	machine    *conductortest.Machine
	dir        string
	properties string // those that the node gets: "{}" at first, or bootsAnew
	images     Images // what the peers keep, set before they start; nil: nothing

	mu     sync.Mutex
	stacks map[string]*stack // guarded by mu; of live peers
	all    []*stack          // guarded by mu
	over   bool              // guarded by mu; the test has ended
	// onChange is called around each BMC change of a peer; guarded by mu.
	onChange func(peer string, after bool)
}

// stack is the working part of one conductor.
type stack struct {
	peer    *conductortest.Peer
	keeper  *lease.Keeper
	hub     *agents.Hub
	journal *journal.Journal
	engine  *Engine
	stop    context.CancelFunc
	done    chan error
}

// inBubble runs a test with a rig whose leader is at its duties.
func inBubble(t *testing.T, change func(*conductortest.MachineConfig), test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, c: conductortest.New(t, "p1", "p2", "p3"), stacks: map[string]*stack{}, dir: t.TempDir(), properties: "{}"}
		var err error
		if r.driver, err = fake.New(fake.Config{}); err != nil {
			t.Fatal(err)
		}
		r.bmc = r.driver.BMC(nodeID)
		cfg := conductortest.MachineConfig{
			Cluster: r.c, Node: nodeID, BMC: r.bmc, Hub: r.hub, MAC: nodeMAC, BootTime: 20 * time.Second, WriteTime: 30 * time.Second,
			Disks: []agentproto.Disk{{Name: "/dev/sda", Serial: "S1", WWN: "0x5", SizeBytes: 100 << 30, Tran: "sata"}},
		}
		if change != nil {
			change(&cfg)
		}
		r.machine = conductortest.NewMachine(cfg)
		ctx, cancel := context.WithCancel(context.Background())
		led := make(chan error, 1)
		go func() { led <- r.c.Lead(ctx) }()
		t.Cleanup(func() {
			r.mu.Lock()
			r.over = true
			all := r.all
			r.mu.Unlock()
			for _, s := range all {
				s.stop()
			}
			for _, s := range all {
				if err := <-s.done; err != nil {
					t.Errorf("conductor %s ended with: %v", s.peer.ID(), err)
				}
			}
			r.machine.Close()
			cancel()
			if err := <-led; err != nil {
				t.Error(err)
			}
		})
		test(r)
	})
}

func (r *rig) hub(peer string) *agents.Hub {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.stacks[peer]; s != nil {
		return s.hub
	}
	return nil
}

// start starts a conductor on a peer.
func (r *rig) start(id string) *stack {
	r.Helper()
	p := r.c.Peer(id)
	p.Revive()
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("FLOW_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("peer", id)
	}
	r.mu.Lock()
	dir := filepath.Join(r.dir, fmt.Sprint(len(r.all)))
	r.mu.Unlock()
	j, err := journal.New(journal.Config{Dir: dir, Peer: id, Clock: r.c.Clock, Logger: log})
	if err != nil {
		r.Fatal(err)
	}
	b := watch.New(r.c.Store, r.c.Store.Index())
	s := &stack{peer: p, journal: j, done: make(chan error, 1)}
	s.hub = agents.NewHub(j, func() []string { return nil }, r.c.Clock, log)
	s.keeper = lease.New(lease.Config{
		Proposer: p, Member: id, MachineID: "m-" + id, BootID: "b", Clock: r.c.Clock, Logger: log,
		Timing: func() *api.Timing { return r.c.Store.View().Settings().GetTiming() },
	})
	access := bmc.New(bmc.Config{
		Member: id, Registry: drivers.NewRegistry(&cable{r.driver, r, id}), Keyring: p.Keyring(), Store: r.c.Store, Proposer: p, Journal: j, Clock: r.c.Clock, Logger: log,
	})
	engine := New(Config{
		Member: id, Store: r.c.Store, Propose: p.Propose, Keeper: s.keeper, Watch: b, BMC: access, Hub: s.hub, Journal: j,
		Images: r.images, Keyring: p.Keyring(), Clock: r.c.Clock, Logger: log,
	})
	s.engine = engine
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	p.OnKill(func() {
		r.mu.Lock()
		delete(r.stacks, id)
		r.mu.Unlock()
		stop()
	})
	r.mu.Lock()
	r.stacks[id] = s
	r.all = append(r.all, s)
	r.mu.Unlock()
	go func() { s.done <- s.run(ctx, engine, b) }()
	return s
}

// run does as conductor.Conductor does.
func (s *stack) run(ctx context.Context, engine *Engine, b *watch.Broker) error {
	late, stopLate := context.WithCancel(context.WithoutCancel(ctx))
	defer stopLate()
	var all sync.WaitGroup
	all.Go(func() { _ = s.journal.Run(late) })
	all.Go(func() { _ = b.Run(late) })
	kctx, stopKeeper := context.WithCancel(context.WithoutCancel(ctx))
	defer stopKeeper()
	worked := make(chan error, 1)
	go func() { defer stopKeeper(); worked <- engine.Run(ctx) }()
	if err := s.keeper.Run(kctx); err != nil {
		return err
	}
	err := <-worked
	stopLate()
	all.Wait()
	return err
}

func (r *rig) alive(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stacks[id] != nil
}

// cable is the fake driver of one peer: a dead peer reaches no BMC.
type cable struct {
	*fake.Driver
	r    *rig
	peer string
}

var (
	_ drivers.PowerSetter      = (*cable)(nil)
	_ drivers.BootDeviceSetter = (*cable)(nil)
)

func (c *cable) cut() error {
	if c.r.alive(c.peer) {
		return nil
	}
	return errs.New(errs.Unreachable, "peer %s is dead", c.peer)
}

func (c *cable) around(change func() error) error {
	c.r.mu.Lock()
	hook := c.r.onChange
	c.r.mu.Unlock()
	if hook == nil {
		hook = func(string, bool) {}
	}
	hook(c.peer, false)
	if err := c.cut(); err != nil {
		return err
	}
	err := change()
	hook(c.peer, true)
	if c.cut() != nil {
		return errs.New(errs.Timeout, "peer %s died during the call", c.peer)
	}
	return err
}

func (c *cable) SetPower(ctx context.Context, t drivers.Target, g drivers.Grant, action api.PowerAction) error {
	return c.around(func() error { return c.Driver.SetPower(ctx, t, g, action) })
}

func (c *cable) SetBootDevice(ctx context.Context, t drivers.Target, g drivers.Grant, dev api.BootDevice, o drivers.BootOptions) error {
	return c.around(func() error { return c.Driver.SetBootDevice(ctx, t, g, dev, o) })
}

func (c *cable) PowerState(ctx context.Context, t drivers.Target) (api.PowerState, error) {
	if err := c.cut(); err != nil {
		return 0, err
	}
	return c.Driver.PowerState(ctx, t)
}

func (c *cable) BootDevice(ctx context.Context, t drivers.Target) (api.BootDevice, error) {
	if err := c.cut(); err != nil {
		return 0, err
	}
	return c.Driver.BootDevice(ctx, t)
}

func (c *cable) Identify(ctx context.Context, t drivers.Target) (*api.BmcFacts, error) {
	if err := c.cut(); err != nil {
		return nil, err
	}
	return c.Driver.Identify(ctx, t)
}

func (c *cable) ReadConsole(ctx context.Context, t drivers.Target, g drivers.Grant, opened func(), w io.Writer) error {
	if err := c.cut(); err != nil {
		return err
	}
	return c.Driver.ReadConsole(ctx, t, g, opened, w)
}

func (r *rig) setOnChange(f func(peer string, after bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onChange = f
}

// The node.

func (r *rig) node() *api.Node  { return r.c.Store.View().Node(nodeID) }
func (r *rig) flow() *api.Flow  { return r.c.Store.View().Flow(nodeID) }
func (r *rig) holder() string   { return r.c.Store.View().Lock(nodeID).GetConductor() }
func (r *rig) state() api.State { return r.node().GetState() }

// enrol makes the node, owned by a peer.
func (r *rig) enrol(owner string) {
	r.Helper()
	conductortest.Until(r, time.Minute, "lease of "+owner, func() bool { return r.c.Store.View().LiveLease(owner) != nil })
	r.c.Must(
		&api.Op{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{Id: nodeID, Driver: "fake", DriverInfo: []byte("{}"), Properties: []byte(r.properties), Assigned: owner}}}},
		&api.Op{Op: &api.Op_PortCreate{PortCreate: &api.PortCreate{Port: &api.Port{Id: nodeID, NodeId: nodeID, Address: nodeMAC, PxeEnabled: true}}}},
	)
}

// begin accepts a verb as the service does.
func (r *rig) begin(verb api.Event) {
	r.Helper()
	to, _, err := node.Next(r.state(), verb, r.node().GetTargetState())
	if err != nil {
		r.Fatal(err)
	}
	if !node.Transient(to) {
		r.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: nodeID, Event: verb}}})
		return
	}
	r.beginWith(verb, nil)
}

// beginWith accepts a verb that begins a flow, with arguments.
func (r *rig) beginWith(verb api.Event, args any) {
	r.Helper()
	kind, _ := node.FlowOf(verb)
	r.createWith(kind, api.PowerAction_POWER_ACTION_NONE, verb, args)
}

func (r *rig) create(kind api.FlowKind, action api.PowerAction, verb api.Event) {
	r.Helper()
	r.createWith(kind, action, verb, nil)
}

func (r *rig) createWith(kind api.FlowKind, action api.PowerAction, verb api.Event, args any) {
	r.Helper()
	steps, err := node.Plan(kind, action)
	if err != nil {
		r.Fatal(err)
	}
	f := &api.Flow{Id: uuid.NewString(), NodeId: nodeID, Kind: kind, Steps: steps}
	if args == nil && kind == api.FlowKind_FLOW_DEPLOY {
		args = DeployArgs{Image: "http://images/a.raw", Checksum: checksum}
	}
	if args != nil {
		if f.Args, err = json.Marshal(args); err != nil {
			r.Fatal(err)
		}
	}
	r.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: nodeID, Flow: f, Event: verb}}})
}

// idle waits until no flow is unfinished and no lock is held.
func (r *rig) idle(limit time.Duration) {
	r.Helper()
	end := time.Now().Add(limit)
	for time.Now().Before(end) {
		v := r.c.Store.View()
		if v.Flow(nodeID).GetStatus() != api.FlowStatus_FLOW_RUNNING && v.Lock(nodeID) == nil {
			return
		}
		_, _, more, _ := r.c.Store.Changes(r.c.Store.Index())
		select {
		case <-more:
		case <-time.After(time.Second):
		}
	}
	r.Fatalf("the node does not come to rest within %v: %s", limit, r.describe())
}

func (r *rig) describe() string {
	v := r.c.Store.View()
	f := v.Flow(nodeID)
	step := ""
	if int(f.GetCursor()) < len(f.GetSteps()) {
		step = node.IDOf(f.GetSteps()[f.GetCursor()]).String()
	}
	out := fmt.Sprintf("state %v, flow %v %v at step %d %s attempt %d error %q, lock %v, intent %v, quarantine %v, power %v\n",
		r.state(), f.GetKind(), f.GetStatus(), f.GetCursor(), step, f.GetAttempt(), f.GetError(), v.Lock(nodeID), v.Intent(nodeID), r.node().GetQuarantine(), r.bmc.Power())
	for _, h := range v.History(nodeID) {
		out += fmt.Sprintf("  %s %s\n", h.GetKind(), h.GetText())
	}
	return out
}

// wants fails the test unless the node rests in a state.
func (r *rig) wants(state api.State, status api.FlowStatus) {
	r.Helper()
	if r.state() != state || r.flow().GetStatus() != status {
		r.Errorf("want %v and %v: %s", state, status, r.describe())
	}
	if in := r.c.Store.View().Intent(nodeID); in != nil {
		r.Errorf("an intent is open: %v", in)
	}
}

// ready brings the node to available.
func (r *rig) ready(owner string) {
	r.Helper()
	r.enrol(owner)
	r.begin(api.Event_EV_MANAGE)
	r.idle(time.Minute)
	r.wants(api.State_MANAGEABLE, api.FlowStatus_FLOW_DONE)
	r.begin(api.Event_EV_PROVIDE)
	r.idle(10 * time.Minute)
	r.wants(api.State_AVAILABLE, api.FlowStatus_FLOW_DONE)
}
