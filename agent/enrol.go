package agent

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
)

// loadKey is the key of this boot: made at the first start, kept beside the
// results so that a restarted agent is the same machine to the cluster.
func loadKey(dir string, line Line) (crypto.Signer, error) {
	var id savedIdentity
	// A file that cannot be read is like none: the cluster then sees a second
	// key and says so.
	if ok, err := loadJSON(dir, identityFile, &id); ok && err == nil && id.Node == line.Node && id.Nonce == line.Nonce {
		if k, err := x509.ParsePKCS8PrivateKey(id.Key); err == nil {
			if s, ok := k.(crypto.Signer); ok {
				return s, nil
			}
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the agent's key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the agent's key: %w", err)
	}
	return key, saveJSON(dir, identityFile, savedIdentity{Node: line.Node, Nonce: line.Nonce, Key: der})
}

// connect opens a client connection to one peer. Nothing is dialled yet.
func (a *agent) connect(addr string, cert *tls.Certificate) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(credentials.NewTLS(a.tlsConfig(cert))),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return a.cfg.Dial(ctx, addr) }),
		// A peer that vanished without a word is noticed in 15 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: 5 * time.Second}),
		grpc.WithDisableServiceConfig(),
	)
}

// needCert reports whether the certificate is missing or has less than a
// third of its life left.
func (a *agent) needCert() bool {
	if a.cert == nil {
		return true
	}
	now, ok := a.clock.now()
	leaf := a.cert.Leaf
	return !ok || now.After(leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore)/3))
}

// enrol asks peers in turn for a certificate until one gives it. It ends with
// an error only when ctx ends, or when all that could be reached have refused
// for RefusedLimit: silence may pass, a refusal of everybody does not.
func (a *agent) enrol(ctx context.Context) error {
	req, err := a.enrolRequest()
	if err != nil {
		return err
	}
	pause := pauses{min: a.cfg.RedialMin, max: a.cfg.RedialMax}
	var refusedSince time.Time
	for {
		var refused, other error
		for _, addr := range a.peerList() {
			err := a.enrolAt(ctx, addr, req)
			if err == nil {
				a.log.Info("enrolled", "peer", addr, "node", a.cfg.Line.Node)
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if isRefusal(err) {
				refused = err
			} else {
				other = err
			}
			a.log.Warn("cannot enrol", "peer", addr, "err", err)
		}
		switch {
		case refused == nil || other != nil:
			refusedSince = time.Time{}
		case refusedSince.IsZero():
			refusedSince = time.Now()
		case time.Since(refusedSince) > a.cfg.RefusedLimit:
			return errs.New(errs.Denied, "every peer refuses this machine: %w", refused)
		}
		if err := pause.wait(ctx, nil); err != nil {
			return err
		}
	}
}

// isRefusal tells an answer that will stay the same from one that may change.
func isRefusal(err error) bool {
	switch errs.KindOf(err) {
	case errs.Denied, errs.Invalid, errs.NotFound, errs.Exists, errs.WrongState, errs.Conflict:
		return true
	}
	return false
}

func (a *agent) enrolRequest() (*api.EnrolRequest, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: a.cfg.Line.Node},
	}, a.key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return &api.EnrolRequest{
		NodeId: a.cfg.Line.Node, Nonce: a.cfg.Line.Nonce, CsrDer: csr,
		Incarnation: a.book.incarnation(), Version: a.cfg.Version,
		SystemUuid: a.ident.SystemUUID, Serial: a.ident.Serial, Macs: a.ident.MACs,
	}, nil
}

// enrolAt enrols at one peer. The peer's chain is first judged without a
// time, then, with the time that the peer told, once more.
func (a *agent) enrolAt(ctx context.Context, addr string, req *api.EnrolRequest) error {
	conn, err := a.connect(addr, nil)
	if err != nil {
		return errs.New(errs.Internal, "connect to %s: %w", addr, err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var p peer.Peer
	rep, err := api.NewAgentClient(conn).Enrol(ctx, req, grpc.Peer(&p))
	if err != nil {
		return fromStatus(err)
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || rep.ServerMs <= 0 {
		return errs.New(errs.Internal, "peer %s answered without a time", addr)
	}
	now := time.UnixMilli(rep.ServerMs)
	if err := pki.VerifyByDigest(a.cfg.Line.CADigest, func() time.Time { return now })(info.State); err != nil {
		return err
	}
	leaf, err := x509.ParseCertificate(rep.CertDer)
	if err != nil {
		return errs.New(errs.Internal, "peer %s gave a certificate that cannot be read: %w", addr, err)
	}
	if pub, ok := a.key.Public().(*ecdsa.PublicKey); !ok || !pub.Equal(leaf.PublicKey) {
		return errs.New(errs.Internal, "peer %s gave a certificate for another key", addr)
	}
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return errs.New(errs.Internal, "peer %s gave a certificate that is not valid at its own time", addr)
	}
	a.clock.set(now)
	if err := a.hw.SetClock(now); err != nil {
		// Nothing of ours needs it: serverClock does.
		a.log.Warn("cannot set the machine's clock", "err", err)
	}
	a.cert = &tls.Certificate{Certificate: [][]byte{rep.CertDer}, PrivateKey: a.key, Leaf: leaf}
	a.learnPeers(append([]string{addr}, rep.Peers...))
	return nil
}

// fromStatus turns a gRPC status into an error of ours. A failed handshake
// counts as unreachable: the peer may be one that is gone.
func fromStatus(err error) error {
	s := status.Convert(err)
	for _, d := range s.Details() {
		if f, ok := d.(*api.Failure); ok {
			return errs.New(errs.ParseKind(f.Kind), "%s", s.Message())
		}
	}
	kind := errs.Internal
	switch s.Code() {
	case codes.InvalidArgument:
		kind = errs.Invalid
	case codes.NotFound:
		kind = errs.NotFound
	case codes.AlreadyExists:
		kind = errs.Exists
	case codes.FailedPrecondition:
		kind = errs.WrongState
	case codes.Aborted:
		kind = errs.Conflict
	case codes.PermissionDenied, codes.Unauthenticated:
		kind = errs.Denied
	case codes.Unimplemented:
		kind = errs.Unsupported
	case codes.ResourceExhausted:
		kind = errs.Busy
	case codes.DeadlineExceeded:
		kind = errs.Timeout
	case codes.Unavailable, codes.Canceled:
		kind = errs.Unreachable
	}
	return errs.New(kind, "%s", s.Message())
}
