package cluster

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
)

// Knocking is how a peer that hears no leader finds out why. It calls the
// cluster listeners that it knows, with the protocol "ironring-knock", and is
// told only what concerns itself: that it was removed, or the keys that were
// made while it was away, sealed to it, with which gossip takes it back. Any
// certificate of a peer of this cluster may knock: a removed one must hear it.

const (
	maxKnocks    = 8 // answered at the same time
	knockTimeout = 6 * time.Second
	maxKnock     = 1 << 20
	// knockAfter is how long no leader was heard of before a peer knocks.
	knockAfter  = 3 * time.Second
	knockPeriod = 2 * time.Second
)

// RemovedError says that this peer is no member any more.
type RemovedError struct {
	Cluster string
	Member  string
	At      time.Time
}

// Error implements error.
func (e *RemovedError) Error() string {
	return fmt.Sprintf("this peer, %s, was removed from cluster %s at %s; join again with a new data directory and a new token",
		e.Member, e.Cluster, e.At.UTC().Format(time.RFC3339))
}

// answerKnock answers one caller and hangs up.
func (s *streams) answerKnock(ctx context.Context, conn *tls.Conn, id pki.Identity) {
	defer conn.NetConn().Close() // no TLS goodbye: it could block
	select {
	case s.knocks <- struct{}{}:
		defer func() { <-s.knocks }()
	default:
		return // it knocks again
	}
	if s.knock == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, knockTimeout)
	defer cancel()
	s.knock(ctx, conn, id, keyDigest(conn.ConnectionState()))
}

// knockReply is what a peer is told about itself. That it was removed is only
// said when a leader has confirmed it.
func (c *Cluster) knockReply(ctx context.Context, id pki.Identity, key []byte) *api.KnockReply {
	reply := &api.KnockReply{ClusterId: c.ClusterID()}
	if id.Role != pki.RolePeer || id.Cluster != c.ClusterID() {
		return reply
	}
	v := c.store.View()
	if v.Former(id.Name, key) == nil && isMember(v.Member(id.Name)) && c.admit(id, key) == nil {
		reply.Member, reply.Keys = true, v.Keys()
		reply.Leader, _ = c.Leader()
		return reply
	}
	if _, err := c.ReadIndex(ctx); err != nil {
		return reply
	}
	if f := c.store.View().Former(id.Name, key); f != nil {
		reply.RemovedMs = max(f.GetRemovedMs(), 1)
	}
	return reply
}

func (c *Cluster) answerKnock(ctx context.Context, conn net.Conn, id pki.Identity, key []byte) {
	raw, err := proto.Marshal(c.knockReply(ctx, id, key))
	if err != nil {
		return
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	_, err = conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(raw))), raw...))
	if err != nil {
		c.log.Debug("answer a peer that knocks", "peer", id.Name, "err", err)
	}
}

// knockAt asks one peer.
func (c *Cluster) knockAt(ctx context.Context, id, address string) (*api.KnockReply, error) {
	ctx, cancel := context.WithTimeout(ctx, knockTimeout)
	defer cancel()
	conn, err := c.streams.dialPeer(ctx, id, address, protoKnock)
	if err != nil {
		return nil, errs.New(errs.Unreachable, "knock at peer %s: %w", id, err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, errs.New(errs.Unreachable, "knock at peer %s: %w", id, err)
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxKnock {
		return nil, errs.New(errs.Invalid, "knock at peer %s: an answer of %d bytes", id, n)
	}
	raw := make([]byte, n)
	if _, err := io.ReadFull(conn, raw); err != nil {
		return nil, errs.New(errs.Unreachable, "knock at peer %s: %w", id, err)
	}
	reply := &api.KnockReply{}
	if err := proto.Unmarshal(raw, reply); err != nil || reply.GetClusterId() != c.ClusterID() {
		return nil, errs.New(errs.Invalid, "knock at peer %s: the answer cannot be read", id)
	}
	return reply, nil
}

// keepKnocking knocks while no leader is heard of, until the context ends.
func (c *Cluster) keepKnocking(ctx context.Context) {
	tick := time.NewTicker(knockPeriod)
	defer tick.Stop()
	since := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.left:
			return
		case <-tick.C:
		}
		if leader, _ := c.Leader(); leader != "" && c.LeaderContact() < knockAfter {
			since = time.Now()
		}
		if time.Since(since) < knockAfter || c.leaving.Load() {
			continue
		}
		for id, address := range c.knockAddresses() {
			reply, err := c.knockAt(ctx, id, address)
			if err != nil {
				c.log.Debug("knock", "err", err)
				continue
			}
			if reply.GetRemovedMs() > 0 {
				c.removed(time.UnixMilli(reply.GetRemovedMs()))
				return
			}
			if reply.GetMember() && reply.GetKeys() != nil {
				if err := c.installKeys(reply.GetKeys()); err != nil {
					c.log.Warn("this peer could not take the cluster's new keys, will try again", "err", err)
				}
			}
		}
	}
}

// knockedOut reports whether another member confirms that this peer is none any
// more; it asks until the context ends or somebody knows.
func (c *Cluster) knockedOut(ctx context.Context) bool {
	for try := 1; ; try++ {
		for id, address := range c.knockAddresses() {
			reply, err := c.knockAt(ctx, id, address)
			switch {
			case err != nil:
			case reply.GetRemovedMs() > 0:
				return true
			case reply.GetMember() && reply.GetLeader() != "" && try > 3:
				return false
			}
		}
		if pause(ctx, try) != nil {
			return false
		}
	}
}

// knockAddresses are the cluster listeners of the other members, as far as
// they are known here.
func (c *Cluster) knockAddresses() map[string]string {
	out := map[string]string{}
	for _, s := range c.creds.identity.Seeds {
		out[s.ID] = s.Cluster
	}
	for _, m := range others(c.store.View().Members(), c.ID()) {
		out[m.GetId()] = m.GetClusterAddress()
	}
	delete(out, c.ID())
	return out
}

// removed ends this peer for good.
func (c *Cluster) removed(at time.Time) {
	c.markLeft(at)
	c.fatal(errs.About(errs.WrongState, c.ID(), "%w", &RemovedError{Cluster: c.ClusterID(), Member: c.ID(), At: at}))
}
