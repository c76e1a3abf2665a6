package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
)

// gossip is memberlist: who seems to be alive, and at which address. It is a
// hint and never decides anything.
type gossip struct {
	transport *memberlist.NetTransport
	log       *slog.Logger

	mu    sync.Mutex
	alive map[string]gossipMeta // guarded by mu
	list  *memberlist.Memberlist
	keys  *memberlist.Keyring  // guarded by mu; nil before start
	old   map[string]time.Time // guarded by mu; keys that are understood until then
}

// gossipMeta travels with each alive message: at most 512 bytes.
type gossipMeta struct {
	Version string `json:"v,omitempty"`
	Cluster string `json:"c,omitempty"` // cluster address: it may be newer than the record
}

// bindGossip opens the sockets; nothing is sent yet.
func bindGossip(address string, logger *slog.Logger) (*gossip, error) {
	host, port, err := splitAddress(address)
	if err != nil {
		return nil, err
	}
	t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{host}, BindPort: port, Logger: log.New(lineWriter{logger}, "", 0),
	})
	if err != nil {
		return nil, errs.About(errs.Exists, "gossip_listen", "listen on %s for gossip: %w", address, err)
	}
	return &gossip{transport: t, log: logger, alive: map[string]gossipMeta{}}, nil
}

func splitAddress(address string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(address)
	if err == nil {
		port, err = strconv.Atoi(p)
	}
	if err != nil {
		return "", 0, errs.New(errs.Invalid, "address %q: %w", address, err)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	return host, port, nil
}

// port is the bound port.
func (g *gossip) port() int { return g.transport.GetAutoBindPort() }

// start begins to gossip under the given name.
func (g *gossip) start(name, label, advertise string, key []byte, meta gossipMeta) error {
	host, port, err := splitAddress(advertise)
	if err != nil {
		return err
	}
	ips, err := net.LookupIP(host)
	if err != nil || len(ips) == 0 {
		return errs.New(errs.Invalid, "gossip address %q has no IP address: %v", advertise, err)
	}
	cfg := memberlist.DefaultLANConfig()
	keys, err := memberlist.NewKeyring(nil, key)
	if err != nil {
		return errs.New(errs.Internal, "gossip key: %w", err)
	}
	cfg.Name, cfg.Label, cfg.Keyring = name, label, keys
	cfg.Transport = g.transport
	cfg.AdvertiseAddr, cfg.AdvertisePort = ips[0].String(), port
	cfg.ProbeInterval, cfg.ProbeTimeout = 300*time.Millisecond, 150*time.Millisecond
	cfg.SuspicionMult, cfg.SuspicionMaxTimeoutMult = 3, 3
	cfg.GossipInterval = 100 * time.Millisecond
	cfg.TCPTimeout = 2 * time.Second
	cfg.DeadNodeReclaimTime = time.Second // a restarted peer may come back elsewhere at once
	cfg.Logger = log.New(lineWriter{g.log}, "", 0)
	cfg.Events = g
	text, err := json.Marshal(meta)
	if err != nil || len(text) > memberlist.MetaMaxSize {
		return errs.New(errs.Invalid, "version %q is too long to be gossiped", meta.Version)
	}
	cfg.Delegate = ownMeta(text)
	list, err := memberlist.Create(cfg)
	if err != nil {
		return errs.New(errs.Internal, "start gossip: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.list, g.keys = list, keys
	return nil
}

// gossipKeyLen is that of AES-256.
const gossipKeyLen = 32

// rekey sends with a new key from now on. The old one is understood for a
// little longer.
func (g *gossip) rekey(key []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.keys == nil { // not started: it starts with the new key
		return
	}
	was := g.keys.GetPrimaryKey()
	if bytes.Equal(was, key) {
		return
	}
	if err := errors.Join(g.keys.AddKey(key), g.keys.UseKey(key)); err != nil {
		g.log.Warn("gossip: the new key is refused", "err", err)
		return
	}
	if g.old == nil {
		g.old = map[string]time.Time{}
	}
	g.old[string(was)] = time.Now().Add(gossipOverlap)
}

// forgetOldKeys drops keys whose time is over.
func (g *gossip) forgetOldKeys() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key, until := range g.old {
		if time.Now().After(until) {
			delete(g.old, key)
			if err := g.keys.RemoveKey([]byte(key)); err != nil {
				g.log.Warn("gossip: an old key stays", "err", err)
			}
		}
	}
}

// keepJoined joins members that are not seen until the context ends: at the
// start, and after a partition that outlived memberlist's own memory.
func (g *gossip) keepJoined(ctx context.Context, others func() map[string]string) {
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		var missing []string
		for id, address := range others() {
			if !g.isAlive(id) && address != "" {
				missing = append(missing, address)
			}
		}
		if len(missing) > 0 {
			// Errors are its log's: the next round tries again.
			_, _ = g.list.Join(missing)
		}
		if clock.Pause(ctx, wait) != nil {
			return
		}
	}
}

// stop says goodbye and ends.
func (g *gossip) stop() {
	if g.list == nil {
		_ = g.transport.Shutdown()
		return
	}
	if err := g.list.Leave(300 * time.Millisecond); err != nil {
		g.log.Debug("gossip: leave", "err", err)
	}
	if err := g.list.Shutdown(); err != nil {
		g.log.Debug("gossip: shutdown", "err", err)
	}
}

func (g *gossip) isAlive(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.alive[id]
	return ok
}

// clusterAddress is what a live member gossips, "" when nothing is known.
func (g *gossip) clusterAddress(id string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.alive[id].Cluster
}

// NotifyJoin implements memberlist.EventDelegate.
func (g *gossip) NotifyJoin(n *memberlist.Node) { g.NotifyUpdate(n) }

// NotifyUpdate implements memberlist.EventDelegate.
func (g *gossip) NotifyUpdate(n *memberlist.Node) {
	var meta gossipMeta
	_ = json.Unmarshal(n.Meta, &meta) // without it the member is alive all the same
	g.mu.Lock()
	defer g.mu.Unlock()
	g.alive[n.Name] = meta
}

// NotifyLeave implements memberlist.EventDelegate.
func (g *gossip) NotifyLeave(n *memberlist.Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.alive, n.Name)
}

// ownMeta is the delegate that gives this peer's meta and has nothing to say
// beyond it.
type ownMeta []byte

// NodeMeta implements memberlist.Delegate.
func (m ownMeta) NodeMeta(int) []byte { return m }

// NotifyMsg implements memberlist.Delegate.
func (ownMeta) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (ownMeta) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (ownMeta) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (ownMeta) MergeRemoteState([]byte, bool) {}
