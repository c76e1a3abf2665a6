// Package conductor is the role of a peer towards the machines: it keeps the
// lease of this process (lease), carries out flows (flow), talks to BMCs (bmc)
// and agents (agents), watches the power (power), keeps the journal (journal)
// and serves the API (service).
//
// Start reading at Conductor.Run, then flow/doc.go. The safety rules are those
// of the packages lease and flow.
package conductor

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/agents"
	"github.com/ironring/ironring/conductor/bmc"
	"github.com/ironring/ironring/conductor/flow"
	"github.com/ironring/ironring/conductor/journal"
	"github.com/ironring/ironring/conductor/lease"
	"github.com/ironring/ironring/conductor/power"
	"github.com/ironring/ironring/conductor/reach"
	"github.com/ironring/ironring/conductor/service"
	"github.com/ironring/ironring/conductor/watch"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/pxe/artifact"
)

// Config of a Conductor. All fields but PowerEvery, BMCReadTimeout and
// DescribeBoot are required.
type Config struct {
	Cluster    service.Cluster
	MachineID  string
	BootID     string
	Registry   *drivers.Registry
	DataDir    string
	Version    string
	PowerEvery time.Duration // between two polls of one machine's power; 0: 2 min
	// Artifacts are the files of this peer. nil: none can be put or used.
	Artifacts *artifact.Keeper
	// BMCReadTimeout is the longest that a question to a BMC may take; 0: 45 s.
	BMCReadTimeout time.Duration
	// DescribeBoot is service.Config.DescribeBoot. nil: no boot services.
	DescribeBoot func(nodeID string) (*api.BootRecordReply, error)
	Clock        clock.Clock
	Logger       *slog.Logger
}

// Conductor is the conductor of one peer.
type Conductor struct {
	cfg      Config
	journal  *journal.Journal
	copier   *journal.Copier
	watch    *watch.Broker
	keeper   *lease.Keeper
	engine   *flow.Engine
	power    *power.Sync
	reach    *reach.Observer
	endpoint *agents.Endpoint
	service  *service.Service
	drains   chan drain
}

// New wires a Conductor; Run makes it work.
func New(cfg Config) (*Conductor, error) {
	cl := cfg.Cluster
	store := cl.Store()
	c := &Conductor{cfg: cfg, drains: make(chan drain), watch: watch.New(store, store.View().Index())}
	c.copier = journal.NewCopier(c.copyTarget, c.sendCopies, cfg.Logger)
	var err error
	c.journal, err = journal.New(journal.Config{
		Dir: filepath.Join(cfg.DataDir, "journal"), Peer: cl.ID(), Clock: cfg.Clock, Logger: cfg.Logger, Copy: c.copier.Add,
	})
	if err != nil {
		return nil, err
	}
	c.keeper = lease.New(lease.Config{
		Proposer: cl, Member: cl.ID(), MachineID: cfg.MachineID, BootID: cfg.BootID,
		Timing: func() *api.Timing { return store.View().Settings().GetTiming() },
		Fresh: func(ctx context.Context) error {
			_, err := cl.ReadIndex(ctx)
			return err
		},
		Clock: cfg.Clock, Logger: cfg.Logger,
	})
	var access *bmc.Access
	c.reach = reach.New(reach.Config{
		Member: cl.ID(), Store: store, Propose: cl.Propose, Clock: cfg.Clock, Logger: cfg.Logger,
		Probe:  func(ctx context.Context, node string) { _, _ = access.Power(ctx, node) },
		Parked: func(n *api.Node) bool { return access.Parked(n) != nil },
	})
	access = bmc.New(bmc.Config{
		Contact: c.reach.Contact,
		Member:  cl.ID(), Registry: cfg.Registry, Keyring: cl.Keyring(), Store: store, Proposer: cl,
		Journal: c.journal, Clock: cfg.Clock, Logger: cfg.Logger, ReadTimeout: cfg.BMCReadTimeout,
	})
	hub := agents.NewHub(c.journal, func() []string { return agents.AgentAddresses(store.View(), cl.ID()) }, cfg.Clock, cfg.Logger)
	c.endpoint = agents.NewEndpoint(agents.Config{
		Self: cl.ID(), Store: store, Propose: cl.Propose, ReadIndex: cl.ReadIndex, PeerConn: cl.PeerConn, CA: cl.CA(),
		Hub: hub, Journal: c.journal, Watch: c.watch, Clock: cfg.Clock, Logger: cfg.Logger,
	})
	var images flow.Images // nil, not a nil *Keeper
	if cfg.Artifacts != nil {
		images = cfg.Artifacts
	}
	c.engine = flow.New(flow.Config{
		Images: images,
		Member: cl.ID(), Store: store, Propose: cl.Propose, Keeper: c.keeper, Watch: c.watch, BMC: access, Hub: hub,
		PeerFacts: c.peerFacts,
		Journal:   c.journal, Keyring: cl.Keyring(), Clock: cfg.Clock, Logger: cfg.Logger,
	})
	c.power = power.New(power.Config{
		Member: cl.ID(), Store: store, Propose: cl.Propose, BMC: access, Clock: cfg.Clock, Logger: cfg.Logger, Every: cfg.PowerEvery,
	})
	var files service.Artifacts // nil, not a nil *Keeper
	if cfg.Artifacts != nil {
		files = cfg.Artifacts
	}
	c.service = service.New(service.Config{
		Artifacts: files, PeerFacts: c.peerFacts,
		Cluster: cl, Leave: c.Leave, Registry: cfg.Registry, Journal: c.journal, Watch: c.watch, Endpoint: c.endpoint,
		Version: cfg.Version, DescribeBoot: cfg.DescribeBoot, Hardware: access.Hardware, Clock: cfg.Clock, Logger: cfg.Logger,
	})
	return c, nil
}

// API serves clients on the api listener and peers on the cluster listener.
func (c *Conductor) API() *service.Service { return c.service }

// AgentServer serves agents on the agent listener.
func (c *Conductor) AgentServer() api.AgentServer { return c.endpoint }

// Observe takes an event of the boot services; it never blocks.
func (c *Conductor) Observe(ev *api.JournalEvent) { c.journal.Append(ev) }

// Allocate gives a known MAC its address on a network.
func (c *Conductor) Allocate(ctx context.Context, network, mac string) (netip.Addr, error) {
	res, err := c.cfg.Cluster.Propose(ctx, &api.Command{
		Meta: &api.Meta{Principal: "peer:" + c.cfg.Cluster.ID(), Reason: "DHCP", WallMs: c.cfg.Clock.Now().UnixMilli()},
		Ops:  []*api.Op{{Op: &api.Op_AddressAllocate{AddressAllocate: &api.AddressAllocate{Network: network, Mac: mac}}}},
	})
	if err != nil {
		return netip.Addr{}, fmt.Errorf("address for %s on network %s: %w", mac, network, err)
	}
	return netip.ParseAddr(res.GetOps()[0].GetAddress())
}

// Run works until ctx ends. Stop order: the engine and the power sync end
// first, then the lease is released, then the journal is written out; another
// order would give up the lease under running work, or lose its last lines.
//
// An error means that work under a closed gate did not end: the process must
// exit, which is why that work is not waited for.
func (c *Conductor) Run(ctx context.Context) error {
	journals, stopJournals := context.WithCancel(context.WithoutCancel(ctx))
	defer stopJournals()
	var late errgroup.Group
	late.Go(func() error { return c.journal.Run(journals) })
	late.Go(func() error { return c.copier.Run(journals) })
	late.Go(func() error { return c.watch.Run(journals) })
	late.Go(func() error { return c.service.Run(journals) })
	late.Go(func() error { return c.sweep(journals) })

	err := c.work(ctx)
	c.closeDrivers(ctx)
	stopJournals()
	if jerr := late.Wait(); err == nil {
		err = jerr
	}
	return err
}

// closeTimeout bounds the logouts at BMCs when this peer stops.
const closeTimeout = 5 * time.Second

// closeDrivers logs out of BMCs: their places are few, and others come next.
func (c *Conductor) closeDrivers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	c.cfg.Registry.Close(ctx)
}

// sweepEvery is how often the journals of deleted nodes are looked for.
const sweepEvery = time.Hour

// sweep removes the journals of deleted nodes, until ctx ends.
func (c *Conductor) sweep(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		v := c.cfg.Cluster.Store().View()
		if err := c.journal.Sweep(func(id string) bool { return v.Node(id) != nil }); err != nil {
			c.cfg.Logger.Warn("journals of deleted nodes not removed", "err", err)
		}
	}
}

// work runs engine, power sync and lease until ctx ends. While the peer leaves
// the cluster it pauses: the lease must be gone before the member is.
func (c *Conductor) work(ctx context.Context) error {
	for {
		wctx, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- c.workOnce(wctx) }()
		var d drain
		select {
		case err := <-ended:
			stop()
			return err
		case d = <-c.drains:
		}
		stop()
		if err := <-ended; err != nil {
			return err // the work goes on: nobody may believe that it is parked
		}
		close(d.done)
		select {
		case <-d.resume:
		case <-ctx.Done():
			return nil
		}
	}
}

// workOnce returns when all work has ended and the lease is released; an error
// of the lease means that work did not end, and is returned at once.
func (c *Conductor) workOnce(ctx context.Context) error {
	// The lease outlives the work that stops in order under it.
	kctx, stopKeeper := context.WithCancel(context.WithoutCancel(ctx))
	defer stopKeeper()
	var work errgroup.Group
	work.Go(func() error { return c.power.Run(ctx) })
	work.Go(func() error { return c.reach.Run(ctx) })
	work.Go(func() error { defer stopKeeper(); return c.engine.Run(ctx) })
	if err := c.keeper.Run(kctx); err != nil {
		return err
	}
	return work.Wait()
}

// drain asks for a pause of all work. done is closed when it has begun; it
// ends when resume is closed.
type drain struct{ done, resume chan struct{} }

// Leave takes this peer out of the cluster for good: its work is parked for
// others to go on with, its lease released, then its membership ends. If that
// fails the work goes on.
func (c *Conductor) Leave(ctx context.Context) error {
	d := drain{done: make(chan struct{}), resume: make(chan struct{})}
	select {
	case c.drains <- d:
	case <-ctx.Done():
		return errs.New(errs.Timeout, "leave: %w", ctx.Err())
	}
	select {
	case <-d.done:
	case <-ctx.Done():
		close(d.resume)
		return errs.New(errs.Timeout, "leave: work did not end: %w", ctx.Err())
	}
	err := c.cfg.Cluster.Leave(ctx)
	if err != nil {
		close(d.resume)
	}
	return err
}

// copyTarget is who gets a copy of our events of a node: its owner, or the
// next member after us where we are the owner.
func (c *Conductor) copyTarget(node string) string {
	v := c.cfg.Cluster.Store().View()
	self := c.cfg.Cluster.ID()
	if l := v.Lock(node); l != nil && l.GetConductor() != self {
		return l.GetConductor()
	}
	if owner := v.Node(node).GetAssigned(); owner != "" && owner != self {
		return owner
	}
	first, next := "", ""
	for _, m := range v.Members() { // in order of id
		id := m.GetId()
		if id == self || !c.cfg.Cluster.Alive(id) {
			continue
		}
		if first == "" {
			first = id
		}
		if next == "" && id > self {
			next = id
		}
	}
	if next == "" {
		return first
	}
	return next
}

// factsTimeout bounds a question to other peers about a node.
const factsTimeout = 2 * time.Second

// peerFacts asks the other live peers what they have seen of a node.
func (c *Conductor) peerFacts(ctx context.Context, node string) map[string]*api.LiveFacts {
	ctx, cancel := context.WithTimeout(ctx, factsTimeout)
	defer cancel()
	var mu sync.Mutex
	out := map[string]*api.LiveFacts{}
	var all sync.WaitGroup
	for _, m := range c.cfg.Cluster.Store().View().Members() {
		id := m.GetId()
		if id == c.cfg.Cluster.ID() || !c.cfg.Cluster.Alive(id) {
			continue
		}
		all.Go(func() {
			conn, err := c.cfg.Cluster.PeerConn(id)
			if err != nil {
				return
			}
			f, err := api.NewConductorClient(conn).LocalFacts(ctx, &api.LocalFactsRequest{NodeId: node})
			if err != nil {
				return // it says nothing: others may
			}
			mu.Lock()
			defer mu.Unlock()
			out[id] = f
		})
	}
	all.Wait()
	return out
}

func (c *Conductor) sendCopies(ctx context.Context, peer string, events []*api.JournalEvent) error {
	conn, err := c.cfg.Cluster.PeerConn(peer)
	if err != nil {
		return err
	}
	_, err = api.NewConductorClient(conn).AppendJournal(ctx, &api.AppendJournalRequest{Events: events})
	return err
}
