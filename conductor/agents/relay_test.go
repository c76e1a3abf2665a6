package agents_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/agents"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/conductor/watch"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
	"github.com/ironring/ironring/internal/rpc"
)

const (
	mac   = "52:54:00:00:00:01"
	limit = 20 * time.Second
)

// ring is two peers whose endpoints reach each other over pipes.
type ring struct {
	*testing.T
	c     *conductortest.Cluster
	hubs  map[string]*agents.Hub
	ends  map[string]*agents.Endpoint
	conns map[string]*grpc.ClientConn

	mu   sync.Mutex
	down map[string]bool // guarded by mu; peers that cannot be dialled
	asks func()          // guarded by mu; called when a peer asks for the leader's index
}

// conductorServer is the part of the service that relays.
type conductorServer struct {
	api.UnimplementedConductorServer
	*agents.Endpoint
}

func (c conductorServer) RelayAgent(s grpc.BidiStreamingServer[api.AgentUp, api.AgentDown]) error {
	return c.Endpoint.RelayAgent(s)
}

// Who the caller of a test server is stands in these headers, not in a
// certificate.
const (
	asRole, asName, asNonce = "as-role", "as-name", "as-nonce"
)

func caller(ctx context.Context, id pki.Identity) context.Context {
	return metadata.AppendToOutgoingContext(ctx, asRole, string(id.Role), asName, id.Name, asNonce, id.Nonce)
}

type asStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s asStream) Context() context.Context { return s.ctx }

func newRing(t *testing.T) *ring {
	t.Helper()
	r := &ring{T: t, c: conductortest.New(t, "p1", "p2"), hubs: map[string]*agents.Hub{}, ends: map[string]*agents.Endpoint{}, conns: map[string]*grpc.ClientConn{}, down: map[string]bool{}}
	b := watch.New(r.c.Store, 0)
	ctx, cancel := context.WithCancel(context.Background())
	watching := make(chan error, 1)
	go func() { watching <- b.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-watching })
	for _, id := range []string{"p1", "p2"} {
		p := r.c.Peer(id)
		j := newJournal(t)
		r.hubs[id] = agents.NewHub(j, func() []string { return nil }, r.c.Clock, slog.New(slog.DiscardHandler))
		r.ends[id] = agents.NewEndpoint(agents.Config{
			Self: id, Store: r.c.Store, Propose: p.Propose, ReadIndex: r.readIndex(p), PeerConn: r.dial(id), CA: p.CA(),
			Hub: r.hubs[id], Journal: j, Watch: b, Clock: r.c.Clock, Logger: slog.New(slog.DiscardHandler),
		})
		r.serve(id)
	}
	r.c.Must(
		&api.Op{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{Id: node, Driver: "fake", DriverInfo: []byte("{}"), Assigned: "p1"}}}},
		&api.Op{Op: &api.Op_PortCreate{PortCreate: &api.PortCreate{Port: &api.Port{Id: node, NodeId: node, Address: mac, PxeEnabled: true}}}},
	)
	return r
}

func (r *ring) serve(id string) {
	listener := bufconn.Listen(1 << 16)
	srv := grpc.NewServer(append(rpc.ServerOptions(nil), grpc.ChainStreamInterceptor(
		func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			md, _ := metadata.FromIncomingContext(ss.Context())
			ctx := ss.Context()
			if role := md.Get(asRole); len(role) > 0 {
				ctx = r.c.As(ctx, r, pki.Identity{Role: pki.Role(role[0]), Name: md.Get(asName)[0], Nonce: md.Get(asNonce)[0]})
			}
			return next(srv, asStream{ss, ctx})
		}))...)
	api.RegisterAgentServer(srv, r.ends[id])
	api.RegisterConductorServer(srv, conductorServer{Endpoint: r.ends[id]})
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///"+id, append(rpc.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))...)
	if err != nil {
		r.Fatal(err)
	}
	r.conns[id] = conn
	r.Cleanup(func() { conn.Close(); srv.Stop(); <-done })
}

// dial is PeerConn of a peer: its calls are those of a peer.
func (r *ring) dial(from string) func(string) (*grpc.ClientConn, error) {
	return func(to string) (*grpc.ClientConn, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.down[to] {
			return nil, errs.New(errs.Unreachable, "peer %s is down", to)
		}
		if r.conns[from+to] != nil {
			return r.conns[from+to], nil
		}
		// A connection of its own, that says who calls.
		target := r.conns[to]
		conn, err := grpc.NewClient("passthrough:///"+to, append(rpc.DialOptions(),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return nil, errors.New("unused") }),
			grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, _ *grpc.ClientConn, method string, _ grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
				return target.NewStream(caller(ctx, pki.Identity{Role: pki.RolePeer, Name: from}), desc, method, opts...)
			}))...)
		if err != nil {
			return nil, err
		}
		r.conns[from+to] = conn
		r.Cleanup(func() { conn.Close() })
		return conn, nil
	}
}

func (r *ring) readIndex(p *conductortest.Peer) func(context.Context) (uint64, error) {
	return func(ctx context.Context) (uint64, error) {
		r.mu.Lock()
		asks := r.asks
		r.mu.Unlock()
		if asks != nil {
			asks()
		}
		return p.ReadIndex(ctx)
	}
}

func (r *ring) setDown(id string, down bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down[id] = down
}

// boot commits a boot with a nonce and an agent that enrolled for it.
func (r *ring) boot(nonce string) {
	r.Helper()
	v := r.c.Store.View()
	token := v.Lock(node).GetToken()
	r.c.Must(&api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: node, Token: token, Fields: []string{"boot"},
		Node: &api.Node{Boot: &api.Boot{Target: api.BootTarget_BOOT_RAMDISK, Nonce: nonce}}}}})
}

func (r *ring) enrolled(nonce string) {
	r.Helper()
	r.c.Must(&api.Op{Op: &api.Op_AgentEnrol{AgentEnrol: &api.AgentEnrol{NodeId: node, Session: &api.AgentSession{Nonce: nonce, KeyDigest: make([]byte, 32)}}}})
}

// hold gives the node's lock to a peer and gives the token.
func (r *ring) hold(peer string) uint64 {
	r.Helper()
	v := r.c.Store.View()
	if l := v.Lock(node); l != nil {
		r.c.Must(&api.Op{Op: &api.Op_LockRelease{LockRelease: &api.LockRelease{NodeId: node, Token: l.GetToken()}}})
	}
	lease := v.LiveLease(peer).GetId()
	if lease == "" {
		lease = "lease-" + peer
		r.c.Must(&api.Op{Op: &api.Op_LeaseRegister{LeaseRegister: &api.LeaseRegister{Lease: &api.Lease{Id: lease, Conductor: peer}}}})
	}
	if n := v.Node(node); n.GetAssigned() != peer {
		r.c.Must(&api.Op{Op: &api.Op_Assign{Assign: &api.Assign{Term: r.c.Term(), Nodes: []*api.Assignment{{NodeId: node, Conductor: peer, Epoch: n.GetAssignEpoch() + 1}}}}})
	}
	res := r.c.Must(&api.Op{Op: &api.Op_LockAcquire{LockAcquire: &api.LockAcquire{NodeId: node, LeaseId: lease}}})
	return res.GetOps()[0].GetToken()
}

// stream is an agent's stream to a peer.
type stream struct {
	api.Agent_ConverseClient
	down  chan *api.AgentDown
	ended chan error

	mu   sync.Mutex
	told []string // guarded by mu; cmdIDs that answers has seen
}

func (r *ring) stream(peer, nonce string, id pki.Identity) *stream {
	r.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	if id.Role != "" {
		ctx = caller(ctx, id)
	}
	c, err := api.NewAgentClient(r.conns[peer]).Converse(ctx)
	if err != nil {
		r.Fatal(err)
	}
	s := &stream{Agent_ConverseClient: c, down: make(chan *api.AgentDown, 100), ended: make(chan error, 1)}
	// EOF: the other side has refused already; Recv says why.
	if err := s.Send(&api.AgentUp{Msg: &api.AgentUp_Hello{Hello: &api.AgentHello{NodeId: node, Nonce: nonce}}}); err != nil && !errors.Is(err, io.EOF) {
		r.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			m, err := s.Recv()
			if err != nil {
				s.ended <- err
				return
			}
			s.down <- m
		}
	}()
	r.Cleanup(func() { cancel(); <-done })
	return s
}

func (s *stream) endsWith(t *testing.T, kind errs.Kind) {
	t.Helper()
	select {
	case err := <-s.ended:
		if !errors.Is(err, kind) {
			t.Errorf("the stream ended with %v, want %v", err, kind)
		}
	case <-time.After(limit):
		t.Errorf("the stream did not end; want %v", kind)
	}
}

var agentID = pki.Identity{Role: pki.RoleAgent, Name: node, Nonce: nonce}

// answers has the agent at the other end do what it is told until its stream
// ends.
func (s *stream) answers() {
	for {
		select {
		case m := <-s.down:
			if c := m.GetCommand(); c != nil {
				s.mu.Lock()
				s.told = append(s.told, c.GetCmdId())
				s.mu.Unlock()
				_ = s.Send(&api.AgentUp{Msg: &api.AgentUp_Status{Status: done(c.GetCmdId())}})
			}
		case <-s.Context().Done():
			return
		}
	}
}

// order has a hub run a command.
func (r *ring) order(peer string, token uint64, id string) error {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), limit)
	defer cancel()
	_, err := r.hubs[peer].Run(ctx, agents.Call{Node: node, Nonce: nonce, Token: token, CmdID: id, Name: "inventory"})
	return err
}

// The stream may end at any peer; it is carried to the holder, and turns when
// the holder changes.
func TestRelayFollowsHolder(t *testing.T) {
	for _, at := range []string{"p1", "p2"} {
		t.Run("at "+at, func(t *testing.T) {
			r := newRing(t)
			token := r.hold("p1")
			r.boot(nonce)
			r.enrolled(nonce)
			s := r.stream(at, nonce, agentID)
			go s.answers()
			if err := r.order("p1", token, "c1"); err != nil {
				t.Fatalf("first holder: %v", err)
			}
			token = r.hold("p2")
			if err := r.order("p2", token, "c2"); err != nil {
				t.Fatalf("second holder: %v", err)
			}
			token = r.hold("p1")
			if err := r.order("p1", token, "c3"); err != nil {
				t.Fatalf("first holder again: %v", err)
			}
			if err := s.CloseSend(); err != nil {
				t.Error(err)
			}
			select {
			case <-s.ended:
			case <-time.After(limit):
				t.Error("the stream does not end when the agent leaves")
			}
		})
	}
}

// A holder that cannot be reached is tried again; the agent's stream lives on.
func TestRelayToHolderThatComesBack(t *testing.T) {
	r := newRing(t)
	token := r.hold("p1")
	r.boot(nonce)
	r.enrolled(nonce)
	r.setDown("p1", true)
	s := r.stream("p2", nonce, agentID)
	go s.answers()
	time.AfterFunc(300*time.Millisecond, func() { r.setDown("p1", false) })
	if err := r.order("p1", token, "c1"); err != nil {
		t.Error(err)
	}
}

// What a holder that has lost its lock still sends does not reach the agent.
func TestRelayRefusesOldTokens(t *testing.T) {
	for _, at := range []string{"p1", "p2"} {
		t.Run("at "+at, func(t *testing.T) {
			r := newRing(t)
			old := r.hold("p1")
			token := r.hold("p1")
			r.boot(nonce)
			r.enrolled(nonce)
			s := r.stream(at, nonce, agentID)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := r.hubs["p1"].Run(ctx, agents.Call{Node: node, Nonce: nonce, Token: old, CmdID: "old", Name: "write_image"})
			if err == nil {
				t.Error("it ran")
			}
			go s.answers()
			if err := r.order("p1", token, "new"); err != nil {
				t.Error(err)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if slices.Contains(s.told, "old") {
				t.Errorf("the agent got %v", s.told)
			}
		})
	}
}

// One agent opens a second stream while the first seems to live: the first
// ends and does not come back.
func TestRelayNewerStream(t *testing.T) {
	for _, first := range []string{"p1", "p2"} {
		t.Run("first at "+first, func(t *testing.T) {
			r := newRing(t)
			token := r.hold("p1")
			r.boot(nonce)
			r.enrolled(nonce)
			old := r.stream(first, nonce, agentID)
			go old.answers()
			if err := r.order("p1", token, "c1"); err != nil {
				t.Fatal(err)
			}
			s := r.stream("p1", nonce, agentID)
			go s.answers()
			old.endsWith(t, errs.Conflict)
			if err := r.order("p1", token, "c2"); err != nil {
				t.Error(err)
			}
			select {
			case err := <-s.ended:
				t.Errorf("the newer stream ended: %v", err)
			default:
			}
		})
	}
}

// The stream of an earlier boot ends when a later one begins.
func TestRelayOfEarlierBoot(t *testing.T) {
	for _, at := range []string{"p1", "p2"} {
		r := newRing(t)
		token := r.hold("p1")
		r.boot(nonce)
		r.enrolled(nonce)
		s := r.stream(at, nonce, agentID)
		go s.answers()
		if err := r.order("p1", token, "c1"); err != nil {
			t.Fatal(err)
		}
		r.boot("ffffffffffffffffffffffffffffffff")
		s.endsWith(t, errs.Denied)
	}
}

func TestConverseAdmits(t *testing.T) {
	r := newRing(t)
	r.hold("p1")
	r.boot(nonce)
	other := "ffffffffffffffffffffffffffffffff"
	s := r.stream("p1", nonce, agentID)
	s.endsWith(t, errs.Denied) // nobody has enrolled
	r.enrolled(nonce)
	for name, test := range map[string]struct {
		nonce string
		id    pki.Identity
	}{
		"no certificate":    {nonce, pki.Identity{}},
		"a peer":            {nonce, pki.Identity{Role: pki.RolePeer, Name: "p1"}},
		"a client":          {nonce, pki.Identity{Role: pki.RoleClient, Name: "c"}},
		"another node":      {nonce, pki.Identity{Role: pki.RoleAgent, Name: "n2", Nonce: nonce}},
		"hello of another":  {other, agentID},
		"certificate older": {other, pki.Identity{Role: pki.RoleAgent, Name: node, Nonce: other}},
	} {
		t.Run(name, func(t *testing.T) {
			s := r.stream("p1", test.nonce, test.id)
			s.endsWith(t, errs.Denied)
		})
	}
}

// A peer that has not heard yet of an agent's enrolment at another peer asks
// before it refuses.
func TestConverseAtPeerThatLags(t *testing.T) {
	r := newRing(t)
	token := r.hold("p1")
	r.boot(nonce)
	r.mu.Lock()
	r.asks = func() { r.enrolled(nonce) } // what was committed arrives
	r.mu.Unlock()
	s := r.stream("p2", nonce, agentID)
	go s.answers()
	if err := r.order("p1", token, "c1"); err != nil {
		t.Error(err)
	}
}

func TestRelayAdmitsPeersOnly(t *testing.T) {
	r := newRing(t)
	for _, id := range []pki.Identity{{}, agentID, {Role: pki.RoleClient, Name: "c"}} {
		ctx := t.Context()
		if id.Role != "" {
			ctx = caller(ctx, id)
		}
		s, err := api.NewConductorClient(r.conns["p1"]).RelayAgent(ctx)
		if err == nil {
			_, err = s.Recv()
		}
		if !errors.Is(err, errs.Denied) {
			t.Errorf("%v: %v", id, err)
		}
	}
	// A peer must say whose stream it is.
	s, err := api.NewConductorClient(r.conns["p1"]).RelayAgent(caller(t.Context(), pki.Identity{Role: pki.RolePeer, Name: "p2"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*api.AgentUp{
		{Msg: &api.AgentUp_RelayFor{RelayFor: "other"}},
		{Msg: &api.AgentUp_Hello{Hello: &api.AgentHello{NodeId: node, Nonce: nonce}}},
	} {
		if err := s.Send(m); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	if _, err := s.Recv(); !errors.Is(err, errs.Invalid) {
		t.Error(err)
	}
}

// Enrolment.

func request(t *testing.T) *api.EnrolRequest {
	t.Helper()
	csr, _, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	return &api.EnrolRequest{NodeId: node, Nonce: nonce, CsrDer: csr, Incarnation: "i1", Macs: []string{"52-54-00-00-00-01"}}
}

func TestEnrol(t *testing.T) {
	r := newRing(t)
	r.hold("p1")
	r.boot(nonce)
	req := request(t)
	rep, err := r.ends["p2"].Enrol(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.GetCertDer()) == 0 || rep.GetServerMs() == 0 || !slices.Equal(rep.GetPeers(), []string{"p2:1", "p1:1"}) {
		t.Errorf("%v", rep)
	}
	a := r.c.Store.View().Node(node).GetAgent()
	if a.GetNonce() != nonce || a.GetIncarnation() != "i1" {
		t.Errorf("%v", a)
	}
	// The answer was lost: the same key asks again, at another peer.
	if _, err := r.ends["p1"].Enrol(t.Context(), req); err != nil {
		t.Error(err)
	}
}

func TestEnrolRefused(t *testing.T) {
	r := newRing(t)
	r.hold("p1")
	r.boot(nonce)
	for name, test := range map[string]struct {
		change func(*api.EnrolRequest)
		kind   errs.Kind
	}{
		"wrong nonce":       {func(q *api.EnrolRequest) { q.Nonce = "ffffffffffffffffffffffffffffffff" }, errs.Denied},
		"no nonce":          {func(q *api.EnrolRequest) { q.Nonce = "" }, errs.Denied},
		"another node":      {func(q *api.EnrolRequest) { q.NodeId = "n2" }, errs.Denied},
		"wrong MACs":        {func(q *api.EnrolRequest) { q.Macs = []string{"52:54:00:00:00:02", "rubbish", ""} }, errs.Denied},
		"no MACs":           {func(q *api.EnrolRequest) { q.Macs = nil }, errs.Denied},
		"rubbish key":       {func(q *api.EnrolRequest) { q.CsrDer = []byte("rubbish") }, errs.Invalid},
		"many MACs":         {func(q *api.EnrolRequest) { q.Macs = make([]string, 300) }, errs.Invalid},
		"a long word":       {func(q *api.EnrolRequest) { q.Incarnation = string(make([]byte, 65)) }, errs.Invalid},
		"empty UUIDs match": {func(q *api.EnrolRequest) { q.Macs, q.SystemUuid = nil, "" }, errs.Denied},
	} {
		t.Run(name, func(t *testing.T) {
			q := request(t)
			test.change(q)
			if _, err := r.ends["p1"].Enrol(t.Context(), q); !errors.Is(err, test.kind) {
				t.Errorf("%v", err)
			}
			if a := r.c.Store.View().Node(node).GetAgent(); a != nil {
				t.Errorf("enrolled: %v", a)
			}
		})
	}
	// A peer that may lag does not say no before it has asked.
	r.c.Peer("p1").Cut(true)
	q := request(t)
	q.Nonce = "ffffffffffffffffffffffffffffffff"
	if _, err := r.ends["p1"].Enrol(t.Context(), q); !errors.Is(err, errs.NoQuorum) {
		t.Errorf("cut off: %v", err)
	}
}

// The nonce is good for the boot of the ramdisk only.
func TestEnrolWhenBootIsOver(t *testing.T) {
	r := newRing(t)
	token := r.hold("p1")
	r.boot(nonce)
	r.c.Must(&api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: node, Token: token, Fields: []string{"boot"},
		Node: &api.Node{Boot: &api.Boot{Target: api.BootTarget_BOOT_LOCAL, Nonce: nonce}}}}})
	if _, err := r.ends["p1"].Enrol(t.Context(), request(t)); !errors.Is(err, errs.Denied) {
		t.Error(err)
	}
}

// A machine without a known MAC is known by the UUID that its BMC gave.
func TestEnrolByUUID(t *testing.T) {
	r := newRing(t)
	token := r.hold("p1")
	r.boot(nonce)
	const uuid = "4c4c4544-0044-4710-8051-b4c04f4d3132"
	r.c.Must(&api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: node, Token: token, Fields: []string{"bmc"}, Node: &api.Node{Bmc: &api.BmcFacts{SystemUuid: uuid}}}}})
	q := request(t)
	q.Macs, q.SystemUuid = nil, "4C4C4544-0044-4710-8051-B4C04F4D3132"
	if _, err := r.ends["p1"].Enrol(t.Context(), q); err != nil {
		t.Error(err)
	}
}

// A second key for one nonce: two machines claim the boot, so the flow fails
// before anything is written to either.
func TestEnrolSecondKey(t *testing.T) {
	r := newRing(t)
	flow := &api.Flow{Id: "f1", NodeId: node, Kind: api.FlowKind_FLOW_POWER, Steps: []*api.Step{{Interface: "power", Name: "on", Policy: api.ResumePolicy_RESUME_OBSERVE}}}
	r.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: node, Flow: flow}}})
	r.hold("p1")
	r.boot(nonce)
	if _, err := r.ends["p1"].Enrol(t.Context(), request(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ends["p2"].Enrol(t.Context(), request(t)); !errors.Is(err, errs.Conflict) {
		t.Errorf("second key: %v", err)
	}
	if f := r.c.Store.View().Flow(node); f.GetRequest() != api.Event_EV_FAIL {
		t.Errorf("the flow was not stopped: %v", f)
	}
}

// Who asks too often is told to wait, and nothing is proposed for it; others
// are served.
func TestEnrolTooOften(t *testing.T) {
	r := newRing(t)
	r.hold("p1")
	r.boot(nonce)
	from := func(ip string) context.Context {
		return peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP(ip), Port: 4711}})
	}
	var busy error
	for range 1000 {
		q := request(t)
		q.Nonce = "ffffffffffffffffffffffffffffffff"
		if _, err := r.ends["p1"].Enrol(from("192.0.2.66"), q); !errors.Is(err, errs.Denied) {
			busy = err
			break
		}
	}
	if !errors.Is(busy, errs.Busy) {
		t.Errorf("1000 guesses were answered, at last with %v", busy)
	}
	if _, err := r.ends["p1"].Enrol(from("192.0.2.7"), request(t)); err != nil {
		t.Errorf("another machine: %v", err)
	}
}
