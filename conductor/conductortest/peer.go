package conductortest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
	"github.com/ironring/ironring/internal/seal"
)

// proposeTimeout is what a caller without a deadline gets.
const proposeTimeout = 10 * time.Second

// Fate is what becomes of one command. The zero Fate commits it.
type Fate struct {
	Delay  time.Duration // before it is applied
	Refuse error         // not applied; this is the answer
	Drop   bool          // not applied; no answer until the caller's context ends
	Lose   bool          // applied; no answer until the caller's context ends
	Late   time.Duration // applied; the answer comes so much later
	Kill   bool          // the peer dies: before the command, with Lose after it
}

// Peer is one member as its conductor sees the cluster. It implements
// service.Cluster.
type Peer struct {
	// Conn is PeerConn; nil: nobody can be reached.
	Conn func(id string) (*grpc.ClientConn, error)
	// OnLeave is Leave; nil: it succeeds and does nothing.
	OnLeave func() error

	cluster *Cluster
	id      string

	mu     sync.Mutex
	fate   func(*api.Command) Fate // guarded by mu
	dead   bool                    // guarded by mu
	onKill []func()                // guarded by mu
	cut    bool                    // guarded by mu
	lag    time.Duration           // guarded by mu; what Behind says
}

// Decide has f decide what becomes of the peer's commands; nil: nothing
// special.
func (p *Peer) Decide(f func(*api.Command) Fate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fate = f
}

// Cut takes the peer from the leader, or gives it back.
func (p *Peer) Cut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
}

// OnKill has f called when the peer is killed.
func (p *Peer) OnKill(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onKill = append(p.onKill, f)
}

// Kill is kill -9: nothing that the peer proposes from now on arrives.
func (p *Peer) Kill() {
	p.mu.Lock()
	p.dead = true
	call := p.onKill
	p.onKill = nil
	p.mu.Unlock()
	for _, f := range call {
		f()
	}
}

// Revive lets a killed peer propose again, as a new process.
func (p *Peer) Revive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = false
}

func (p *Peer) decide(cmd *api.Command) (f Fate, dead, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return Fate{}, true, false
	}
	if p.fate != nil {
		f = p.fate(cmd)
	}
	return f, false, p.cut
}

// Propose commits a command, as far as its fate allows.
func (p *Peer) Propose(ctx context.Context, cmd *api.Command) (*api.Result, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, proposeTimeout)
		defer cancel()
	}
	f, dead, cut := p.decide(cmd)
	unknown := func() (*api.Result, error) {
		<-ctx.Done()
		return nil, errs.New(errs.Timeout, "the outcome is unknown: %w", ctx.Err())
	}
	if f.Kill && !f.Lose {
		p.Kill()
		dead = true
	}
	switch {
	case dead, f.Drop:
		return unknown()
	case cut:
		<-ctx.Done()
		return nil, errs.New(errs.NoQuorum, "there is no leader")
	case f.Refuse != nil:
		return nil, f.Refuse
	}
	// A command that has been sent is committed whether its sender waits or not.
	_ = clock.Pause(context.WithoutCancel(ctx), f.Delay)
	res, err := p.cluster.commit(p.id, cmd)
	if f.Kill {
		p.Kill()
	}
	if f.Lose {
		return unknown()
	}
	_ = clock.Pause(ctx, f.Late)
	if ctx.Err() != nil {
		return unknown()
	}
	return res, err
}

// ProposeAll is Propose for each.
func (p *Peer) ProposeAll(ctx context.Context, cmds []*api.Command) []cluster.Outcome {
	out := make([]cluster.Outcome, len(cmds))
	for i, cmd := range cmds {
		out[i].Result, out[i].Err = p.Propose(ctx, cmd)
	}
	return out
}

// ID is the member id.
func (p *Peer) ID() string { return p.id }

// ClusterID is the cluster's id.
func (p *Peer) ClusterID() string { return p.cluster.ca.Cluster() }

// Store is the replicated state.
func (p *Peer) Store() *fsm.Store { return p.cluster.Store }

// ReadIndex answers while the peer is not cut off.
func (p *Peer) ReadIndex(context.Context) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut || p.dead {
		return 0, errs.New(errs.NoQuorum, "there is no leader")
	}
	return p.cluster.Store.Index(), nil
}

// LeaderContact is long ago for a peer that is cut off.
func (p *Peer) LeaderContact() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		return time.Minute
	}
	return 0
}

// Lag sets what Behind says.
func (p *Peer) Lag(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lag = d
}

// Behind is what Lag was told.
func (p *Peer) Behind() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lag
}

// Alive says whether a member was not killed.
func (p *Peer) Alive(id string) bool {
	other := p.cluster.peers[id]
	if other == nil {
		return false
	}
	other.mu.Lock()
	defer other.mu.Unlock()
	return !other.dead
}

// PeerConn is Conn.
func (p *Peer) PeerConn(id string) (*grpc.ClientConn, error) {
	if p.Conn == nil {
		return nil, errs.New(errs.Unreachable, "peer %s cannot be reached", id)
	}
	return p.Conn(id)
}

// CA is the cluster's CA.
func (p *Peer) CA() *pki.CA { return p.cluster.ca }

// Keyring is the cluster's keyring.
func (p *Peer) Keyring() *seal.Keyring { return p.cluster.keyring }

// CreateJoinToken gives a token that nobody can use.
func (p *Peer) CreateJoinToken(_ context.Context, ttl time.Duration) (string, time.Time, error) {
	return "ir1.test", p.cluster.Clock.Now().Add(ttl), nil
}

// Leave is OnLeave.
func (p *Peer) Leave(context.Context) error {
	if p.OnLeave == nil {
		return nil
	}
	return p.OnLeave()
}

// Remove removes a member.
func (p *Peer) Remove(_ context.Context, id string) error {
	_, err := p.cluster.Apply(&api.Op{Op: &api.Op_MemberRemove{MemberRemove: &api.MemberRemove{Id: id}}})
	return err
}

// Status knows little.
func (p *Peer) Status(context.Context) *api.ClusterStatusReply {
	return &api.ClusterStatusReply{ClusterId: p.ClusterID(), Leader: p.id}
}

// As is a context of a gRPC handler whose caller has a certificate for an
// identity of this cluster.
func (c *Cluster) As(ctx context.Context, t testing.TB, id pki.Identity) context.Context {
	t.Helper()
	csr, _, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	id.Cluster = c.ca.Cluster()
	der, err := c.ca.Issue(csr, id, 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return peer.NewContext(ctx, &peer.Peer{
		Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4711},
		AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{
			VerifiedChains: [][]*x509.Certificate{{cert, c.ca.Certificate()}},
		}},
	})
}

// OverSocket is a context of a gRPC handler that was called over the unix
// socket.
func OverSocket(ctx context.Context) context.Context {
	return peer.NewContext(ctx, &peer.Peer{Addr: &net.UnixAddr{Name: "/run/api.sock", Net: "unix"}})
}
