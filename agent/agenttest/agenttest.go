// Package agenttest is a cluster as an agent sees it, for tests: peers with
// real TLS and real gRPC on loopback, and one scripted holder behind them.
//
// A Cluster holds what peers share: the CA, what agents said, the stream that
// is open now. Peers come and go with Peer and Stop. Everything is safe for
// concurrent use; waiting is by condition, with a deadline.
package agenttest

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/ironring/ironring/agent"
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
	"github.com/ironring/ironring/internal/rpc"
)

// Patience is how long the Wait functions wait before they fail the test,
// unless SetPatience said otherwise.
const Patience = 20 * time.Second

// Cluster is the CA, the records and the holder behind all peers.
type Cluster struct {
	tb testing.TB
	ca *pki.CA

	mu      sync.Mutex
	changed chan struct{} // guarded by mu; closed and replaced at each change
	enrols  []*api.EnrolRequest
	hellos  []*api.AgentHello
	ups     []*api.AgentUp
	stream  *stream // guarded by mu; nil when no agent is connected
	deny    error   // guarded by mu; what Enrol answers
	now     func() time.Time

	patience time.Duration
}

// SetPatience is for tests with emulated machines; call it at the start.
func (c *Cluster) SetPatience(d time.Duration) { c.patience = d }

// stream is one open conversation.
type stream struct {
	peer *Peer
	down chan *api.AgentDown
	done <-chan struct{}
}

// New makes a cluster without peers.
func New(tb testing.TB) *Cluster {
	tb.Helper()
	return NewAt(tb, time.Now)
}

// NewAt makes a cluster that was founded at another time: now is its clock.
func NewAt(tb testing.TB, now func() time.Time) *Cluster {
	tb.Helper()
	c := &Cluster{tb: tb, changed: make(chan struct{}), now: now, patience: Patience}
	var err error
	if c.ca, err = pki.Create("3f2b6b0e-test", now()); err != nil {
		tb.Fatal(err)
	}
	return c
}

// SetNow changes the cluster's clock, for peers made from now on too.
func (c *Cluster) SetNow(now func() time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

// Deny makes Enrol answer with err; nil makes it work again.
func (c *Cluster) Deny(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deny = err
}

// Digest is the CA's digest as the kernel line has it.
func (c *Cluster) Digest() string { return c.ca.Digest() }

// Line is a kernel line for these peers.
func (c *Cluster) Line(peers ...*Peer) agent.Line {
	l := agent.Line{Node: "4a6a2ed2-9d5c-4c6e-8d59-5f0b3f0d0001", Nonce: "nonce-1", CADigest: c.Digest()}
	for _, p := range peers {
		l.Peers = append(l.Peers, p.Addr)
	}
	return l
}

// Peer is one listening peer.
type Peer struct {
	Addr string

	c       *Cluster
	srv     *grpc.Server
	serving sync.WaitGroup
}

// Peer starts a peer on a port of its own; addr "" picks one. The test stops
// it at its end.
func (c *Cluster) Peer(addr string) *Peer {
	c.tb.Helper()
	csr, key, err := pki.NewRequest()
	if err != nil {
		c.tb.Fatal(err)
	}
	c.mu.Lock()
	now := c.now()
	c.mu.Unlock()
	cert, err := c.ca.Issue(csr, pki.Identity{Cluster: c.ca.Cluster(), Role: pki.RolePeer, Name: "p"}, 0, now)
	if err != nil {
		c.tb.Fatal(err)
	}
	h, err := pki.NewHolder(c.ca.CertDER(), cert, key)
	if err != nil {
		c.tb.Fatal(err)
	}
	cfg := h.ServerTLS(false)
	cfg.Time = func() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now() }
	return c.listen(addr, cfg)
}

func (c *Cluster) listen(addr string, cfg *tls.Config) *Peer {
	c.tb.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		c.tb.Fatal(err)
	}
	p := &Peer{Addr: l.Addr().String(), c: c, srv: grpc.NewServer(append(rpc.ServerOptions(nil), grpc.Creds(credentials.NewTLS(cfg)))...)}
	api.RegisterAgentServer(p.srv, &service{p: p})
	p.serving.Add(1)
	go func() {
		defer p.serving.Done()
		_ = p.srv.Serve(l)
	}()
	c.tb.Cleanup(p.Stop)
	return p
}

// Stop ends the peer as a kill does: every connection breaks.
func (p *Peer) Stop() {
	p.srv.Stop()
	p.serving.Wait()
}

// notifyLocked wakes all who wait.
func (c *Cluster) notifyLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Wait blocks until ok, which is called with the cluster locked, is true.
func (c *Cluster) Wait(what string, ok func() bool) {
	c.tb.Helper()
	deadline := time.NewTimer(c.patience)
	defer deadline.Stop()
	for {
		c.mu.Lock()
		done, changed := ok(), c.changed
		c.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			c.tb.Fatalf("waited %s for %s", c.patience, what)
		}
	}
}

// Send gives a message to the agent on the stream that is open now, waiting
// for one if none is. It returns the peer whose stream it is.
func (c *Cluster) Send(m *api.AgentDown) *Peer {
	c.tb.Helper()
	for {
		var s *stream
		c.Wait("a stream", func() bool { s = c.stream; return s != nil })
		select {
		case s.down <- m:
			return s.peer
		case <-s.done:
		}
	}
}

// Hello is a new holder's first message.
func (c *Cluster) Hello(token uint64, peers ...string) *Peer {
	c.tb.Helper()
	return c.Send(&api.AgentDown{Msg: &api.AgentDown_Hello{Hello: &api.HolderHello{Token: token, Peers: peers}}})
}

// Command gives the agent a command.
func (c *Cluster) Command(token uint64, id, name string, args []byte) *Peer {
	c.tb.Helper()
	return c.Send(&api.AgentDown{Msg: &api.AgentDown_Command{Command: &api.AgentCommand{Token: token, CmdId: id, Name: name, Args: args}}})
}

// Cancel stops a command.
func (c *Cluster) Cancel(token uint64, id string) *Peer {
	c.tb.Helper()
	return c.Send(&api.AgentDown{Msg: &api.AgentDown_Cancel{Cancel: &api.CancelCommand{Token: token, CmdId: id}}})
}

// Ups are all messages so far, hellos among them.
func (c *Cluster) Ups() []*api.AgentUp {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*api.AgentUp(nil), c.ups...)
}

// Forget drops the messages so far.
func (c *Cluster) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ups = nil
}

// Enrols are all accepted enrolments so far.
func (c *Cluster) Enrols() []*api.EnrolRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*api.EnrolRequest(nil), c.enrols...)
}

// WaitHello waits for the n-th stream and returns its hello.
func (c *Cluster) WaitHello(n int) *api.AgentHello {
	c.tb.Helper()
	var h *api.AgentHello
	c.Wait("a hello", func() bool {
		if len(c.hellos) < n {
			return false
		}
		h = c.hellos[n-1]
		return true
	})
	return h
}

// WaitStatus waits for a status of a command that fits; nil fits every one.
// Statuses inside hellos count too.
func (c *Cluster) WaitStatus(id string, fits func(*api.CommandStatus) bool) *api.CommandStatus {
	c.tb.Helper()
	var found *api.CommandStatus
	c.Wait("a status of "+id, func() bool {
		for _, u := range c.ups {
			list := u.GetHello().GetCommands()
			if st := u.GetStatus(); st != nil {
				list = append(list[:len(list):len(list)], st)
			}
			for _, st := range list {
				if st.CmdId == id && (fits == nil || fits(st)) {
					found = st
					return true
				}
			}
		}
		return false
	})
	return found
}

// WaitEnd waits until a command has ended, however.
func (c *Cluster) WaitEnd(id string) *api.CommandStatus {
	c.tb.Helper()
	return c.WaitStatus(id, func(st *api.CommandStatus) bool { return st.State != api.CommandStatus_RUNNING })
}

// service is the Agent service of one peer.
type service struct {
	api.UnimplementedAgentServer
	p *Peer
}

func (s *service) Enrol(_ context.Context, req *api.EnrolRequest) (*api.EnrolReply, error) {
	c := s.p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deny != nil {
		return nil, c.deny
	}
	cert, err := c.ca.Issue(req.CsrDer, pki.Identity{Cluster: c.ca.Cluster(), Role: pki.RoleAgent, Name: req.NodeId, Nonce: req.Nonce}, 0, c.now())
	if err != nil {
		return nil, err
	}
	c.enrols = append(c.enrols, req)
	c.notifyLocked()
	return &api.EnrolReply{CertDer: cert, ServerMs: c.now().UnixMilli()}, nil
}

func (s *service) Converse(st grpc.BidiStreamingServer[api.AgentUp, api.AgentDown]) error {
	c := s.p.c
	id, err := pki.IdentityFromContext(st.Context())
	if err != nil {
		return err
	}
	first, err := st.Recv()
	if err != nil {
		return err
	}
	h := first.GetHello()
	if h == nil || h.NodeId != id.Name || h.Nonce != id.Nonce {
		return errs.New(errs.Denied, "hello does not fit the certificate")
	}
	ctx, cancel := context.WithCancel(st.Context())
	defer cancel()
	me := &stream{peer: s.p, down: make(chan *api.AgentDown), done: ctx.Done()}
	c.mu.Lock()
	c.hellos = append(c.hellos, h)
	c.ups = append(c.ups, first)
	c.stream = me
	c.notifyLocked()
	c.mu.Unlock()
	var sending sync.WaitGroup
	sending.Go(func() {
		for {
			select {
			case m := <-me.down:
				if st.Send(m) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	defer sending.Wait()
	defer cancel()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.stream == me {
			c.stream = nil
		}
	}()
	for {
		up, err := st.Recv()
		if err != nil {
			return nil
		}
		c.mu.Lock()
		c.ups = append(c.ups, up)
		c.notifyLocked()
		c.mu.Unlock()
	}
}

// CountLocked is how many messages there are; only for the condition of Wait.
func (c *Cluster) CountLocked() int { return len(c.ups) }
