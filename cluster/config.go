package cluster

import (
	"context"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
)

// RaftTimeouts must be the same on all peers.
type RaftTimeouts struct {
	Heartbeat   time.Duration // default 500 ms
	Election    time.Duration // default 500 ms
	LeaderLease time.Duration // default 250 ms
}

// Config says who this peer is. Only DataDir is required; a new peer needs
// either Init or JoinToken.
type Config struct {
	DataDir string
	// ID is the member id; default: what the data directory says, else the
	// host name's first label.
	ID            string
	ClusterListen string // default "127.0.0.1:0"
	GossipListen  string // default: the host of ClusterListen, any port
	// Advertised is this peer as others shall know it: addresses, drivers,
	// group, zone, weight, version, feature level. Empty cluster and gossip
	// addresses are those of the listeners; id and phase are filled in.
	Advertised *api.Member

	Init      bool          // found a new cluster
	Settings  *api.Settings // of a cluster that this peer founds; default DefaultSettings
	JoinToken string        // join a cluster; ignored by a peer that is a member of it already

	// Form, if it is set, lets a new peer agree with others on a cluster, and
	// lets a member take in peers that have the same key. Open then waits until
	// there is a cluster.
	Form *Form

	// Prepare is called when the data directory is locked and fits what is
	// asked for, and nothing is founded or joined yet. Its error is Open's:
	// what else can fail on this host belongs here.
	Prepare func() error

	Raft              RaftTimeouts
	SnapshotThreshold uint64 // entries between snapshots; default 8192
	TrailingLogs      uint64 // entries kept after a snapshot; default 4096

	Logger     *slog.Logger          // default: none
	Clock      clock.Clock           // default clock.System
	Registerer prometheus.Registerer // default: none
	// PeerServices register further services on the cluster listener, for
	// peers only.
	PeerServices []func(grpc.ServiceRegistrar)
	// OnFatal is told, once, why the process must stop; Run returns the same
	// error. It must return.
	OnFatal func(error)
	// Dial opens the TCP connections to other peers; default net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// CommitStall is how long a leader's disk may take for one write before the
	// leader ends, and how long entries may wait without a commit before it
	// refuses more; default 5 s.
	CommitStall time.Duration
	// PromoteAfter is how long a new member must have been caught up before it
	// gets a vote; default 2 s.
	PromoteAfter time.Duration
	// ReplaceAfter is how long a voter must have been silent before another peer
	// gets a vote in its stead, where there is one without; default 30 s.
	ReplaceAfter time.Duration

	wrapLog func(logStore) logStore // tests: a disk with faults
}

var validID = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// withDefaults checks the configuration and fills in what may be left out.
func (c Config) withDefaults() (Config, error) {
	if c.DataDir == "" {
		return c, errs.About(errs.Invalid, "data_dir", "no data directory given")
	}
	if c.ID != "" && !validID.MatchString(c.ID) {
		return c, errs.About(errs.Invalid, "id", "member id %q: 1 to 63 lower case letters, digits, '.' and '-' are allowed", c.ID)
	}
	if c.Init && c.JoinToken != "" {
		return c, errs.About(errs.Invalid, "init", "a peer cannot found a cluster and join one")
	}
	if c.Form != nil {
		if err := c.Form.validate(); err != nil {
			return c, err
		}
		if c.Init {
			return c, errs.About(errs.Invalid, "init", "the peers of join found cluster %s by themselves: start without --init", c.Form.ClusterID)
		}
	}
	if c.ClusterListen == "" {
		c.ClusterListen = "127.0.0.1:0"
	}
	host, _, err := net.SplitHostPort(c.ClusterListen)
	if err != nil {
		return c, errs.About(errs.Invalid, "cluster_listen", "cluster address %q: %v", c.ClusterListen, err)
	}
	if c.GossipListen == "" {
		c.GossipListen = net.JoinHostPort(host, "0")
	}
	if _, _, err := net.SplitHostPort(c.GossipListen); err != nil {
		return c, errs.About(errs.Invalid, "gossip_listen", "gossip address %q: %v", c.GossipListen, err)
	}
	setDefault(&c.Raft.Heartbeat, 500*time.Millisecond)
	setDefault(&c.Raft.Election, max(500*time.Millisecond, c.Raft.Heartbeat))
	setDefault(&c.Raft.LeaderLease, c.Raft.Heartbeat/2)
	setDefault(&c.CommitStall, 5*time.Second)
	setDefault(&c.PromoteAfter, 2*time.Second)
	setDefault(&c.ReplaceAfter, 30*time.Second)
	if c.SnapshotThreshold == 0 {
		c.SnapshotThreshold = 8192
	}
	if c.TrailingLogs == 0 {
		c.TrailingLogs = 4096
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = clock.System{}
	}
	if c.OnFatal == nil {
		c.OnFatal = func(error) {}
	}
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	if c.Advertised == nil {
		c.Advertised = &api.Member{}
	}
	c.Advertised = proto.CloneOf(c.Advertised)
	if c.Settings == nil {
		c.Settings = DefaultSettings()
	}
	if c.Init || c.Form != nil {
		if err := CheckSettings(c.Settings); err != nil {
			return c, err
		}
	}
	return c, nil
}

func setDefault(d *time.Duration, v time.Duration) {
	if *d == 0 {
		*d = v
	}
}

// defaultID makes a member id from a host name.
func defaultID(host string) string {
	id, _, _ := strings.Cut(strings.ToLower(host), ".")
	id = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, id)
	if id = strings.Trim(id, "-"); id == "" || !validID.MatchString(id) {
		return "peer"
	}
	return id
}
