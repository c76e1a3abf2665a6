package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"sync"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
	"github.com/ironring/ironring/internal/rpc"
)

// addressOf is where a member's cluster listener is: what it gossips, else its
// record, else the Raft configuration, else what was known when joining.
func (c *Cluster) addressOf(id string) (string, error) {
	if a := c.gossip.clusterAddress(id); a != "" {
		return a, nil
	}
	if m := c.store.View().Member(id); m.GetClusterAddress() != "" {
		return m.GetClusterAddress(), nil
	}
	for _, s := range c.servers() {
		if string(s.ID) == id {
			return string(s.Address), nil
		}
	}
	for _, s := range c.creds.identity.Seeds {
		if s.ID == id {
			return s.Cluster, nil
		}
	}
	return "", errs.About(errs.NotFound, id, "there is no member %q", id)
}

// addressBook gives Raft addresses of the form "ID|host:port".
type addressBook struct{ c *Cluster }

// ServerAddr implements raft.ServerAddressProvider.
func (b addressBook) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	a, err := b.c.addressOf(string(id))
	if err != nil {
		return "", err
	}
	return raft.ServerAddress(string(id) + "|" + a), nil
}

// servers is the latest Raft configuration, nil before Run.
func (c *Cluster) servers() []raft.Server {
	r := c.raft.Load()
	if r == nil {
		return nil
	}
	f := r.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return f.Configuration().Servers
}

// admit decides about the other side of a connection. A member is known by its
// id and its key, so that neither a former member of that id nor somebody who
// made himself a certificate with a stolen CA key passes for it. But a peer
// that has no leader cannot know the latest members and takes every peer that
// it does not know to be a former one, or it might refuse the very leader that
// would tell it.
func (c *Cluster) admit(id pki.Identity, key []byte) error {
	if id.Role != pki.RolePeer || id.Cluster != c.ClusterID() {
		return errs.New(errs.Denied, "%s is not a peer of this cluster", id.Principal())
	}
	v := c.store.View()
	if f := v.Former(id.Name, key); f != nil {
		return errs.About(errs.Denied, id.Name, "peer %s is not a member of this cluster any more", id.Name)
	}
	m := v.Member(id.Name)
	if isMember(m) && (len(m.GetKeyDigest()) == 0 || bytes.Equal(m.GetKeyDigest(), key)) {
		return nil
	}
	if m == nil {
		for _, s := range c.servers() {
			if string(s.ID) == id.Name {
				return nil
			}
		}
	}
	if leader, _ := c.Leader(); leader == "" {
		return nil
	}
	return errs.About(errs.Denied, id.Name, "peer %s is not a member of this cluster, or has another key than the member", id.Name)
}

// AdmitTLS is for listeners that peers may call with their certificate beside
// others: it refuses peers that are no members. Everybody else passes.
func (c *Cluster) AdmitTLS(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return nil
	}
	id, err := pki.ParseIdentity(cs.PeerCertificates[0])
	if err != nil || id.Role != pki.RolePeer {
		return err
	}
	return c.admit(id, keyDigest(cs))
}

// AdmitCall is AdmitTLS for a call: a connection may be older than the removal.
func (c *Cluster) AdmitCall(ctx context.Context) error {
	cert, err := pki.CertificateFromContext(ctx)
	if err != nil {
		return nil // who brings no certificate is nobody's peer
	}
	id, err := pki.ParseIdentity(cert)
	if err != nil || id.Role != pki.RolePeer {
		return err
	}
	return c.admit(id, pki.KeyDigest(cert.RawSubjectPublicKeyInfo))
}

func isMember(m *api.Member) bool { return m != nil && !gone(m) }

// peerConns caches one gRPC connection for each member.
type peerConns struct {
	mu     sync.Mutex
	conns  map[string]*grpc.ClientConn // guarded by mu
	closed bool                        // guarded by mu
}

// PeerConn is a connection to a member's cluster listener, made when it is
// first used and shared by all callers, who must not close it. Errors of calls
// have kinds (package internal/rpc).
func (c *Cluster) PeerConn(id string) (*grpc.ClientConn, error) {
	if _, err := c.addressOf(id); err != nil {
		return nil, err
	}
	c.peers.mu.Lock()
	defer c.peers.mu.Unlock()
	if cc := c.peers.conns[id]; cc != nil {
		return cc, nil
	}
	if c.peers.closed {
		return nil, errs.New(errs.Unreachable, "this peer is stopping")
	}
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		address, err := c.addressOf(id)
		if err != nil {
			return nil, err
		}
		return c.cfg.Dial(ctx, "tcp", address)
	}
	cc, err := grpc.NewClient("passthrough:///"+id, append(rpc.DialOptions(),
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(credentials.NewTLS(c.streams.clientTLS(id, protoGRPC))))...)
	if err != nil {
		return nil, errs.New(errs.Internal, "connect to peer %s: %w", id, err)
	}
	c.peers.conns[id] = cc
	return cc, nil
}

// prune closes connections to those who are no members.
func (p *peerConns) prune(member func(id string) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, cc := range p.conns {
		if !member(id) {
			cc.Close()
			delete(p.conns, id)
		}
	}
}

func (p *peerConns) close() {
	p.prune(func(string) bool { return false })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}
