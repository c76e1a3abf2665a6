package cluster

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/credentials"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
)

// Raft and gRPC share the cluster listener; the TLS handshake says which.
const (
	protoRaft  = "ironring-raft"
	protoGRPC  = "h2"
	protoKnock = "ironring-knock" // see knock.go

	handshakeTimeout = 5 * time.Second
	maxHandshakes    = 64
)

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// streams is the cluster listener: it shakes hands and hands each connection
// to Raft or gRPC. Run ends when its context does; then every connection is
// closed and nothing of it is left.
type streams struct {
	listener net.Listener
	holder   *pki.Holder
	admit    admitFunc
	knock    func(ctx context.Context, conn net.Conn, id pki.Identity, key []byte) // answers one caller
	knocks   chan struct{}                                                         // one for each that is answered
	dial     dialFunc
	log      *slog.Logger

	forming *formAnswers // nil: this peer takes in nobody by a shared key

	raft, grpc *connQueue
	clock      clockTrouble

	mu     sync.Mutex
	conns  map[*peerConn]struct{} // guarded by mu; open ones, accepted or dialed for Raft
	open   sync.WaitGroup         // one for each of conns
	closed bool                   // guarded by mu
}

// admitFunc decides about the other side by its identity and the digest of its
// key.
type admitFunc func(id pki.Identity, key []byte) error

func newStreams(l net.Listener, h *pki.Holder, admit admitFunc, dial dialFunc, log *slog.Logger) *streams {
	return &streams{
		listener: l, holder: h, admit: admit, dial: dial, log: log,
		raft: newConnQueue(l.Addr()), grpc: newConnQueue(l.Addr()),
		conns: map[*peerConn]struct{}{}, knocks: make(chan struct{}, maxKnocks),
	}
}

// run accepts until the context ends.
func (s *streams) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()
	defer s.shutdown()
	cfg := s.holder.PeerServerTLS(func(id pki.Identity, cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol == protoKnock {
			return nil // any certificate of a peer; the answer depends on whose
		}
		return s.admit(id, keyDigest(cs))
	}, protoRaft, protoGRPC, protoKnock)
	if s.forming != nil {
		cfg.GetConfigForClient = s.forming.configFor
	}
	failed := func(err error) { s.log.Warn("cannot accept connections of peers, will try again", "err", err) }
	err := accept(ctx, s.listener, maxHandshakes, failed, func(raw net.Conn) { s.shake(ctx, tls.Server(raw, cfg)) })
	if err != nil {
		return errs.New(errs.Internal, "accept connections of peers: %w", err)
	}
	return nil
}

func (s *streams) shake(ctx context.Context, conn *tls.Conn) {
	hctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(hctx); err != nil {
		s.log.Info("refused a connection to the cluster listener", "from", conn.RemoteAddr().String(), "err", pki.ExplainTime(err))
		conn.Close()
		return
	}
	if conn.ConnectionState().NegotiatedProtocol == protoForm {
		s.forming.serve(ctx, conn, s.log)
		return
	}
	id, err := pki.ParseIdentity(conn.ConnectionState().PeerCertificates[0])
	if err != nil { // cannot be: the handshake checked it
		conn.Close()
		return
	}
	if conn.ConnectionState().NegotiatedProtocol == protoKnock {
		s.answerKnock(ctx, conn, id)
		return
	}
	pc := s.track(conn, id)
	if pc == nil {
		return
	}
	// Who was removed since the handshake may have been missed by drop.
	if s.admit(id, pc.key) != nil {
		pc.Close()
		return
	}
	queue := s.grpc
	if conn.ConnectionState().NegotiatedProtocol == protoRaft {
		queue = s.raft
	}
	if !queue.put(ctx, pc) {
		pc.Close()
	}
}

// keyDigest names the key that the other side has proven to have.
func keyDigest(cs tls.ConnectionState) []byte {
	return pki.KeyDigest(cs.PeerCertificates[0].RawSubjectPublicKeyInfo)
}

// track remembers a connection, so that it ends with the other side's
// membership; nil when everything is being closed.
func (s *streams) track(conn *tls.Conn, id pki.Identity) *peerConn {
	pc := &peerConn{Conn: conn, id: id, key: keyDigest(conn.ConnectionState()), owner: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		conn.NetConn().Close()
		return nil
	}
	s.conns[pc] = struct{}{}
	s.open.Add(1)
	return pc
}

// drop closes the connections with those who are no longer admitted.
func (s *streams) drop() {
	for _, pc := range s.all() {
		if s.admit(pc.id, pc.key) != nil {
			pc.Close()
		}
	}
}

func (s *streams) all() []*peerConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*peerConn, 0, len(s.conns))
	for pc := range s.conns {
		out = append(out, pc)
	}
	return out
}

// shutdown closes everything. Raft's handlers only end when their connection
// does.
func (s *streams) shutdown() {
	s.raft.Close()
	s.grpc.Close()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	for _, pc := range s.all() {
		pc.Close()
	}
	s.open.Wait()
}

// dialPeer opens a connection to a member and makes sure that it is that
// member.
func (s *streams) dialPeer(ctx context.Context, id, address, proto string) (net.Conn, error) {
	raw, err := s.dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, s.clientTLS(id, proto))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, s.clock.explain(s.log, id, err)
	}
	who, err := pki.ParseIdentity(conn.ConnectionState().PeerCertificates[0])
	if err != nil { // cannot be: the handshake checked it
		raw.Close()
		return nil, err
	}
	pc := s.track(conn, who)
	if pc == nil {
		return nil, net.ErrClosed
	}
	return pc, nil
}

// clientTLS is for dialing the member with this id, "" for any: one that was
// removed must not be taken for it.
func (s *streams) clientTLS(id, proto string) *tls.Config {
	cfg := s.holder.PeerTLS(id, proto)
	verify := cfg.VerifyConnection
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := verify(cs); err != nil {
			return err
		}
		who, err := pki.ParseIdentity(cs.PeerCertificates[0])
		if err != nil {
			return err
		}
		return s.admit(who, keyDigest(cs))
	}
	return cfg
}

// peerConn is a connection with a known peer.
type peerConn struct {
	*tls.Conn
	id    pki.Identity
	key   []byte // digest
	owner *streams
	once  sync.Once
}

// Close implements net.Conn.
func (c *peerConn) Close() error {
	err := c.Conn.NetConn().Close() // no TLS goodbye: it could block
	c.once.Do(func() {
		c.owner.mu.Lock()
		defer c.owner.mu.Unlock()
		delete(c.owner.conns, c)
		c.owner.open.Done()
	})
	return err
}

// connQueue is a net.Listener fed by hand.
type connQueue struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newConnQueue(addr net.Addr) *connQueue {
	return &connQueue{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (q *connQueue) put(ctx context.Context, c net.Conn) bool {
	select {
	case q.conns <- c:
		return true
	case <-q.done:
	case <-ctx.Done():
	}
	return false
}

// Accept implements net.Listener.
func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (q *connQueue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

// Addr implements net.Listener.
func (q *connQueue) Addr() net.Addr { return q.addr }

// raftLayer is Raft's view of streams. Addresses that Raft dials are
// "ID|host:port" (see addressBook), so that the peer behind them is known.
type raftLayer struct {
	*connQueue
	s *streams
}

var _ raft.StreamLayer = raftLayer{}

// Dial implements raft.StreamLayer.
func (l raftLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, host, ok := strings.Cut(string(address), "|")
	if !ok { // from the Raft configuration: any peer may answer
		id, host = "", string(address)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return l.s.dialPeer(ctx, id, host, protoRaft)
}

// shaken are gRPC credentials for connections whose handshake is done.
type shaken struct {
	credentials.TransportCredentials
}

// ServerHandshake implements credentials.TransportCredentials.
func (shaken) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := raw.(*peerConn)
	if !ok {
		return nil, nil, errs.New(errs.Internal, "a connection without a handshake")
	}
	return c, credentials.TLSInfo{
		State:          c.ConnectionState(),
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

// Info implements credentials.TransportCredentials.
func (shaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials.
func (s shaken) Clone() credentials.TransportCredentials { return s }
