package cluster

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
	"github.com/ironring/ironring/internal/seal"

	"google.golang.org/grpc"
)

// Cluster is this peer's part in the cluster. Make it with Open.
type Cluster struct {
	cfg     Config
	log     *slog.Logger
	clock   clock.Clock
	dir     *dataDir
	creds   *membership
	store   *fsm.Store
	storage *storage
	machine *machine
	gossip  *gossip
	streams *streams
	peers   peerConns
	metrics *metrics

	// Set by Run, once.
	raft      atomic.Pointer[raft.Raft]
	committer atomic.Pointer[committer]
	verifier  atomic.Pointer[verifier]

	dutyTerm atomic.Uint64 // term in which this peer does the leader's duties; 0: it does not
	failed   failure
	closing  sync.Once
	stopped  chan struct{} // closed when Run begins to end: no leader will come

	announced atomic.Bool   // the member record is as this process wants it
	leaving   atomic.Bool   // Leave was called
	hung      chan struct{} // closed when a write of Raft hangs for too long, or Raft cannot go on
	hungOnce  sync.Once
	shutOnce  sync.Once
	shut      raft.Future   // of Raft's shutdown; set in shutOnce
	ended     chan struct{} // closed when everything of Run has ended, after Run if the disk hangs
	left      chan struct{} // closed when this peer left the cluster
	leftOnce  sync.Once

	identityMu sync.Mutex // guards changes of creds.identity

	saidSpent  sync.Map // ids of spent shared keys that somebody came with
	formKeyBad string   // why the shared key cannot be read, "" when it can; of announce's goroutine
}

// Open prepares a peer: it takes the data directory's lock, makes or loads its
// identity (joining the cluster over the network if that is asked for), binds
// the listeners and opens Raft's log. Nothing runs yet: call Run, or Close.
func Open(ctx context.Context, cfg Config) (_ *Cluster, err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	dir, err := openDataDir(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		log: cfg.Logger, clock: cfg.Clock, dir: dir, store: fsm.New(), left: make(chan struct{}), hung: make(chan struct{}), ended: make(chan struct{}), stopped: make(chan struct{}),
		peers: peerConns{conns: map[string]*grpc.ClientConn{}},
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if err := c.dir.checkUse(&cfg); err != nil {
		return nil, err
	}
	if cfg.Prepare != nil {
		if err := cfg.Prepare(); err != nil {
			return nil, err
		}
	}
	if c.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, err
	}
	listener, err := c.bind(&cfg)
	if err != nil {
		return nil, err
	}
	c.cfg = cfg
	if err := dir.settle(ctx, cfg, listener); err != nil {
		listener.Close()
		return nil, err
	}
	if c.creds, err = dir.load(cfg.Clock.Now()); err != nil {
		listener.Close()
		return nil, err
	}
	if c.creds.notice != "" {
		c.log.Warn(c.creds.notice, "until", c.creds.holder.Leaf().NotAfter)
	}
	c.cfg.Advertised.SealKey = c.creds.self.Public()
	c.cfg.Advertised.KeyDigest = pki.KeyDigest(c.creds.holder.Leaf().RawSubjectPublicKeyInfo)
	c.streams = newStreams(listener, c.creds.holder, c.admit, cfg.Dial, c.log)
	c.streams.knock = c.answerKnock
	if cfg.Form != nil {
		if err := c.streams.takeForming(cfg.Form, c.answerForm); err != nil {
			listener.Close()
			return nil, err
		}
	}
	c.machine = &machine{store: c.store, fatal: c.fatal, applied: c.metrics.applied}
	if c.storage, err = dir.openStorage(c.creds.identity, c.log); err == nil && cfg.wrapLog != nil {
		c.storage.log = cfg.wrapLog(c.storage.log)
	}
	return c, err
}

// checkUse compares what is asked for with what the data directory holds, and
// settles the member id.
func (d *dataDir) checkUse(cfg *Config) error {
	if !d.has(identityFile) {
		switch {
		case d.has(raftDir):
			return d.damaged(identityFile, "is missing although there is a log")
		case !cfg.Init && cfg.JoinToken == "" && cfg.Form == nil:
			return errs.About(errs.NotFound, d.path, "data directory %s holds no peer: found a cluster with --init, or join one with a token", d.path)
		}
		if cfg.ID == "" {
			host, _ := os.Hostname()
			cfg.ID = defaultID(host)
		}
		return nil
	}
	id, err := d.readIdentity()
	if err != nil {
		return err
	}
	if cfg.Init {
		return errs.About(errs.Exists, d.path, "data directory %s holds member %s of cluster %s already: start without --init", d.path, id.ID, id.ClusterID)
	}
	if cfg.ID != "" && cfg.ID != id.ID {
		return errs.About(errs.Invalid, "id", "data directory %s belongs to member %s, not to %s", d.path, id.ID, cfg.ID)
	}
	cfg.ID = id.ID
	if cfg.Form != nil && cfg.Form.ClusterID != id.ClusterID {
		return errs.About(errs.Invalid, "cluster_id", "data directory %s holds a member of cluster %s, not of %s", d.path, id.ClusterID, cfg.Form.ClusterID)
	}
	if cfg.JoinToken == "" {
		return nil
	}
	t, err := parseToken(cfg.JoinToken)
	if err != nil {
		return err
	}
	if t.ClusterID != id.ClusterID {
		return errs.About(errs.Exists, d.path, "data directory %s holds a member of cluster %s, but the join token is for cluster %s", d.path, id.ClusterID, t.ClusterID)
	}
	return nil
}

// settle founds or joins a cluster if this directory is not a member yet.
func (d *dataDir) settle(ctx context.Context, cfg Config, l net.Listener) error {
	switch {
	case d.has(identityFile):
		return nil
	case cfg.Init:
		return d.found(cfg, uuid.NewString())
	case cfg.JoinToken == "":
		return d.formAndJoin(ctx, cfg, l)
	}
	t, err := parseToken(cfg.JoinToken)
	if err != nil {
		return err
	}
	return d.join(ctx, cfg, t)
}

// bind opens the listeners and completes the addresses that are advertised.
func (c *Cluster) bind(cfg *Config) (net.Listener, error) {
	l, err := net.Listen("tcp", cfg.ClusterListen)
	if err != nil {
		return nil, errs.About(errs.Exists, "cluster_listen", "listen on %s for peers: %w", cfg.ClusterListen, err)
	}
	if c.gossip, err = bindGossip(cfg.GossipListen, c.log); err != nil {
		l.Close()
		return nil, err
	}
	m := cfg.Advertised
	m.Id = cfg.ID
	if m.Weight == 0 {
		m.Weight = 1
	}
	if m.MachineId == "" {
		m.MachineId, _, err = HostIDs()
	}
	if m.ClusterAddress == "" {
		m.ClusterAddress = l.Addr().String()
	}
	if m.GossipAddress == "" {
		host, _, _ := net.SplitHostPort(cfg.GossipListen)
		m.GossipAddress = joinPort(host, c.gossip.port())
	}
	for name, a := range map[string]string{"cluster": m.ClusterAddress, "gossip": m.GossipAddress} {
		host, _, serr := net.SplitHostPort(a)
		if ip := net.ParseIP(host); serr != nil || host == "" || ip != nil && ip.IsUnspecified() {
			err = errs.About(errs.Invalid, "advertise", "others cannot call %s address %q: set the address to advertise", name, a)
		}
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Close gives back what Open took, if Run was never called. It may be called
// any number of times.
func (c *Cluster) Close() error {
	var err error
	c.closing.Do(func() {
		if c.gossip != nil {
			c.gossip.stop()
		}
		if c.streams != nil {
			c.streams.listener.Close()
		}
		c.peers.close()
		if c.storage != nil {
			err = c.storage.log.Close()
		}
		err = errors.Join(err, c.dir.close())
	})
	return err
}

// ID is this peer's member id.
func (c *Cluster) ID() string { return c.creds.identity.ID }

// ClusterID is the id of the cluster.
func (c *Cluster) ClusterID() string { return c.creds.identity.ClusterID }

// Store is the replicated state as this peer has it.
func (c *Cluster) Store() *fsm.Store { return c.store }

// CA is the cluster's certificate authority.
func (c *Cluster) CA() *pki.CA { return c.creds.ca }

// Keyring seals and opens secrets in records.
func (c *Cluster) Keyring() *seal.Keyring { return c.creds.keyring }

// TLS is this peer's certificate, for the listeners of other packages
// (Holder.ServerTLS): callers of the api and agent listeners may come without
// a certificate to join or enrol.
func (c *Cluster) TLS() *pki.Holder { return c.creds.holder }

// Addresses are where this peer listens for other peers and for gossip.
func (c *Cluster) Addresses() (clusterAddress, gossipAddress string) {
	host, _, _ := net.SplitHostPort(c.cfg.GossipListen) // checked by withDefaults
	return c.streams.listener.Addr().String(), joinPort(host, c.gossip.port())
}

// Advertised is this peer's record as it wants it to be; it must not be
// modified.
func (c *Cluster) Advertised() *api.Member { return c.cfg.Advertised }
