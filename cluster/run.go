package cluster

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rpc"
)

// failure is the first reason why this process must stop.
type failure struct {
	once   sync.Once
	mu     sync.Mutex
	err    error              // guarded by mu
	cancel context.CancelFunc // guarded by mu; ends Run
}

// fatal stops Run and tells OnFatal. Only the first call counts.
func (c *Cluster) fatal(err error) {
	c.failed.once.Do(func() {
		var removed *RemovedError
		if errors.As(err, &removed) {
			c.log.Error(removed.Error())
		} else {
			c.log.Error("this peer must stop", "err", err)
		}
		c.failed.mu.Lock()
		c.failed.err = err
		cancel := c.failed.cancel
		c.failed.mu.Unlock()
		if cancel != nil {
			cancel()
		}
		c.cfg.OnFatal(err)
	})
}

// Run takes part in the cluster until the context ends, this peer leaves, or
// something fails that it cannot go on after. It may be called once.
//
// It does not wait for a write that hangs: the process must end for others to
// take over, and nothing else here can be stopped until the disk answers.
//
// It ends in this order: leadership is handed over (a courtesy, bounded);
// calls of peers and local work stop, because they use Raft; gossip says
// goodbye; Raft stops while its connections still work, or its last round
// would wait for their timeouts; then the connections, then the log.
func (c *Cluster) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() {
		defer close(c.ended)
		done <- c.run(ctx)
	}()
	select {
	case err := <-done:
		return err
	case <-c.hung:
	}
	select {
	case err := <-done:
		return err
	case <-time.After(hungGrace):
		c.failed.mu.Lock()
		defer c.failed.mu.Unlock()
		return c.failed.err
	}
}

// hungGrace is how long a disk that hung may still take for an orderly end.
const hungGrace = 2 * time.Second

func (c *Cluster) run(ctx context.Context) error {
	defer c.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.failed.mu.Lock()
	c.failed.cancel = cancel
	c.failed.mu.Unlock()

	listening, stopListening := context.WithCancel(context.WithoutCancel(ctx))
	defer stopListening()
	var listen sync.WaitGroup
	listen.Go(func() {
		if err := c.streams.run(listening); err != nil {
			c.fatal(err)
		}
	})
	defer func() { stopListening(); listen.Wait() }()

	leading := make(chan bool, 16)
	r, transport, err := c.startRaft(leading)
	if err != nil {
		return err
	}
	defer func() {
		if err := c.shutRaft(r).Error(); err != nil {
			c.log.Warn("stop raft", "err", err)
		}
		transport.CloseStreams()
		if err := transport.Close(); err != nil {
			c.log.Debug("close raft transport", "err", err)
		}
	}()
	if err := c.startGossip(); err != nil {
		return err
	}
	c.work(ctx, r, leading)
	c.failed.mu.Lock()
	defer c.failed.mu.Unlock()
	return c.failed.err
}

// work runs everything that uses Raft and returns when the context has ended
// and all of it has stopped.
func (c *Cluster) work(ctx context.Context, r *raft.Raft, leading <-chan bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	cm := newCommitter(r, newPlacer(c.store).place, c.metrics)
	v := newVerifier(r)
	wg.Go(func() { cm.run(inner) })
	wg.Go(func() { c.newStallWatch(cm).run(inner) })
	wg.Go(func() { v.run(inner) })
	wg.Go(func() { c.lead(inner, r, leading) })
	wg.Go(func() { c.announce(inner) })
	wg.Go(func() { c.watchMembers(inner) })
	wg.Go(func() { c.keepCertificate(inner) })
	wg.Go(func() { c.keepKeys(inner) })
	wg.Go(func() { c.keepKnocking(inner) })
	wg.Go(func() { c.gossip.keepJoined(inner, c.gossipSeeds) })
	c.committer.Store(cm)
	c.verifier.Store(v)
	server := c.newServer()
	wg.Go(func() {
		if err := server.Serve(c.streams.grpc); err != nil && !errors.Is(err, grpc.ErrServerStopped) && inner.Err() == nil {
			c.fatal(errs.New(errs.Internal, "serve peers: %w", err))
		}
	})
	select {
	case <-ctx.Done():
	case <-c.left:
		// The caller of Leave may still be a peer that waits for our answer.
	}
	c.handOver(r)
	close(c.stopped)
	server.Stop()
	stop()
	c.peers.close()
	wg.Wait()
}

// handOver spares the others an election. It fails where nobody can take over,
// which is all right.
func (c *Cluster) handOver(r *raft.Raft) {
	if r.State() != raft.Leader || c.isHung() || len(c.servers()) < 2 {
		return
	}
	if err := r.LeadershipTransfer().Error(); err != nil {
		c.log.Debug("hand over leadership", "err", err)
	}
}

func (c *Cluster) newServer() *grpc.Server {
	opts := append(rpc.ServerOptions(c.log), grpc.Creds(shaken{}),
		grpc.ChainUnaryInterceptor(c.membersOnly), grpc.ChainStreamInterceptor(c.membersOnlyStream))
	s := grpc.NewServer(opts...)
	api.RegisterClusterServer(s, peerService{c: c})
	for _, register := range c.cfg.PeerServices {
		register(s)
	}
	return s
}

// startRaft starts Raft; from here on entries are applied.
func (c *Cluster) startRaft(leading chan<- bool) (*raft.Raft, *raft.NetworkTransport, error) {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(c.ID())
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = c.cfg.Raft.Heartbeat, c.cfg.Raft.Election, c.cfg.Raft.LeaderLease
	conf.CommitTimeout = min(50*time.Millisecond, c.cfg.Raft.Heartbeat/4)
	conf.SnapshotThreshold, conf.TrailingLogs = c.cfg.SnapshotThreshold, c.cfg.TrailingLogs
	conf.SnapshotInterval = 30 * time.Second
	conf.ShutdownOnRemove = false // a removed peer finds out by its own record
	conf.NotifyCh = leading
	conf.Logger = raftLogger(c.log)
	conf.NoLegacyTelemetry = true
	if err := raft.ValidateConfig(conf); err != nil {
		return nil, nil, errs.About(errs.Invalid, "raft", "raft time-outs: %w", err)
	}
	store := lastWordsStore{c.storage.raftLog(), c.termLost, c.entryLost}
	cache, err := raft.NewLogCache(512, store)
	if err != nil {
		return nil, nil, errs.New(errs.Internal, "make log cache: %w", err)
	}
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: raftLayer{c.streams.raft, c.streams}, ServerAddressProvider: addressBook{c},
		MaxPool: 3, Timeout: max(2*time.Second, 2*c.cfg.Raft.Election), Logger: conf.Logger,
		MsgpackUseNewTimeFormat: true,
	})
	fail := func(err error) (*raft.Raft, *raft.NetworkTransport, error) {
		transport.Close()
		return nil, nil, err
	}
	if err := c.foundRaft(conf, cache, transport); err != nil {
		return fail(err)
	}
	r, err := c.newRaft(conf, cache, store, transport)
	switch {
	case err != nil && c.isHung():
		return fail(err)
	case err != nil:
		return fail(errs.New(errs.Internal, "start raft from %s: %w", c.dir.file(raftDir), err))
	}
	c.raft.Store(r)
	return r, transport, nil
}

// foundRaft writes the first configuration of a new cluster, with this peer as
// its only voter, and notes that Raft's store is in use.
func (c *Cluster) foundRaft(conf *raft.Config, log raft.LogStore, transport raft.Transport) error {
	if c.creds.identity.RaftMade {
		return nil
	}
	if c.creds.identity.Founder {
		used, err := raft.HasExistingState(log, c.storage.log, c.storage.snapshots)
		if err != nil {
			return errs.New(errs.Internal, "read raft state: %w", err)
		}
		if !used {
			err = raft.BootstrapCluster(conf, log, c.storage.log, c.storage.snapshots, transport, raft.Configuration{
				Servers: []raft.Server{{ID: conf.LocalID, Address: raft.ServerAddress(c.cfg.Advertised.GetClusterAddress())}},
			})
			if err != nil {
				return errs.New(errs.Internal, "found raft: %w", err)
			}
		}
	}
	return c.updateIdentity(func(id *identity) { id.RaftMade = true })
}

func (c *Cluster) startGossip() error {
	m := c.cfg.Advertised
	return c.gossip.start(c.ID(), c.ClusterID(), m.GetGossipAddress(), c.creds.gossipKey(),
		gossipMeta{Version: m.GetVersion(), Cluster: m.GetClusterAddress()})
}

// gossipSeeds are the gossip addresses of the other members.
func (c *Cluster) gossipSeeds() map[string]string {
	out := map[string]string{}
	members := c.store.View().Members()
	for _, m := range others(members, c.ID()) {
		out[m.GetId()] = m.GetGossipAddress()
	}
	if len(members) == 0 {
		for _, s := range c.creds.identity.Seeds {
			out[s.ID] = s.Gossip
		}
	}
	return out
}

func joinPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
