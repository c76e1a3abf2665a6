package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/ironring/ironring/internal/errs"
)

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func newCA(t *testing.T, cluster string) *CA {
	t.Helper()
	ca, err := Create(cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func holder(t *testing.T, ca *CA, id Identity, at time.Time) *Holder {
	t.Helper()
	csr, key, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.Issue(csr, id, 0, at)
	if err != nil {
		t.Fatal(err)
	}
	h, err := NewHolder(ca.CertDER(), der, key)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestIssueAndIdentity(t *testing.T) {
	ca, err := Create("c1", now)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(ca.CertDER(), ca.KeyDER())
	if err != nil || again.Cluster() != "c1" || again.Digest() != ca.Digest() || len(ca.Digest()) != 64 {
		t.Fatalf("load: %v", err)
	}
	for _, id := range []Identity{
		{Role: RolePeer, Name: "p1"}, {Role: RoleClient, Name: "alice"}, {Role: RoleAgent, Name: "n-1", Nonce: "abc"},
	} {
		csr, _, _ := NewRequest()
		der, err := again.Issue(csr, id, 0, now)
		if err != nil {
			t.Fatal(err)
		}
		cert, _ := x509.ParseCertificate(der)
		got, err := ParseIdentity(cert)
		id.Cluster = "c1"
		if err != nil || got != id {
			t.Errorf("%v came back as %v, %v", id, got, err)
		}
		if !cert.NotBefore.Equal(now.Add(-24 * time.Hour)) {
			t.Errorf("%v is valid from %v", id, cert.NotBefore)
		}
		if hasName := len(cert.DNSNames) == 1; hasName != (id.Role == RolePeer) {
			t.Errorf("%v has DNS names %v", id, cert.DNSNames)
		}
	}
	csr, _, _ := NewRequest()
	for _, id := range []Identity{
		{Role: "root", Name: "x"}, {Role: RolePeer}, {Role: RolePeer, Name: "a/b"}, {Role: RolePeer, Name: ".."},
		{Role: RolePeer, Name: "a", Nonce: "b"}, {Role: RoleAgent, Name: "n"},
	} {
		if _, err := ca.Issue(csr, id, 0, now); !errors.Is(err, errs.Invalid) {
			t.Errorf("%+v: %v", id, err)
		}
	}
	if _, err := ca.Issue([]byte("rubbish"), Identity{Role: RolePeer, Name: "p"}, 0, now); !errors.Is(err, errs.Invalid) {
		t.Errorf("rubbish request: %v", err)
	}
	if _, err := Load(ca.CertDER(), newCA(t, "c1").KeyDER()); !errors.Is(err, errs.Invalid) {
		t.Errorf("foreign key: %v", err)
	}
	if h := holder(t, ca, Identity{Role: RolePeer, Name: "p1"}, now); h.NeedsRenewal(now) || !h.NeedsRenewal(now.Add(200*24*time.Hour)) {
		t.Error("renewal is due at half of the life")
	}
}

// shake makes a TLS connection in memory and returns both sides' errors.
func shake(t *testing.T, server, client *tls.Config) (cs tls.ConnectionState, serr, cerr error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	srv, cl := tls.Server(a, server), tls.Client(b, client)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if serr = srv.Handshake(); serr == nil {
			cs = srv.ConnectionState()
			srv.Write([]byte{1})
		}
		a.Close()
	}()
	if cerr = cl.Handshake(); cerr == nil {
		_, cerr = cl.Read(make([]byte, 1)) // in TLS 1.3 the server's refusal comes after the handshake
	}
	b.Close()
	<-done
	return cs, serr, cerr
}

func TestTLS(t *testing.T) {
	ca, other := newCA(t, "c1"), newCA(t, "c2")
	p1 := holder(t, ca, Identity{Role: RolePeer, Name: "p1"}, time.Now())
	p2 := holder(t, ca, Identity{Role: RolePeer, Name: "p2"}, time.Now())
	alice := holder(t, ca, Identity{Role: RoleClient, Name: "alice"}, time.Now())
	alien := holder(t, other, Identity{Role: RolePeer, Name: "p1"}, time.Now())
	nobody, _ := NewHolder(ca.CertDER(), nil, nil)
	past := time.Now().Add(-10 * PeerLife)
	oldCA, err := Create("c1", past)
	if err != nil {
		t.Fatal(err)
	}
	old := holder(t, oldCA, Identity{Role: RolePeer, Name: "p1"}, past)
	peersOnly := p1.PeerServerTLS(func(id Identity, _ tls.ConnectionState) error {
		if id.Role != RolePeer {
			return errs.New(errs.Denied, "peers only")
		}
		return nil
	}, "x")
	for _, c := range []struct {
		name           string
		server, client *tls.Config
		ok             bool
		text           string
	}{
		{"peer to peer", peersOnly, p2.PeerTLS("p1", "x"), true, ""},
		{"other peer answers", peersOnly, p2.PeerTLS("p3", "x"), false, "dialed peer p3, but p1 answered"},
		{"client among peers", peersOnly, alice.PeerTLS("", "x"), false, ""},
		{"no certificate among peers", peersOnly, nobody.PeerTLS("", "x"), false, ""},
		{"other cluster's peer", peersOnly, alien.PeerTLS("", "x"), false, ""},
		{"client", p1.ServerTLS(true), alice.ClientTLS(), true, ""},
		{"no client certificate", p1.ServerTLS(true), nobody.ClientTLS(), false, ""},
		{"joiner", p1.ServerTLS(false), DigestTLS(ca.Digest(), time.Now, nil), true, ""},
		{"joiner at the wrong cluster", alien.ServerTLS(false), DigestTLS(ca.Digest(), time.Now, nil), false, "another cluster"},
		{"a client's certificate does not make a server", alice.ServerTLS(false), DigestTLS(ca.Digest(), time.Now, nil), false, ""},
		{"expired", old.ServerTLS(false), DigestTLS(oldCA.Digest(), time.Now, nil), false, "expired"},
		{"expired for a machine without a clock", old.ServerTLS(false), DigestTLS(oldCA.Digest(), nil, nil), true, ""},
	} {
		_, serr, cerr := shake(t, c.server, c.client)
		if ok := serr == nil && cerr == nil; ok != c.ok {
			t.Errorf("%s: server %v, client %v", c.name, serr, cerr)
		}
		if c.text != "" && (cerr == nil || !strings.Contains(cerr.Error(), c.text)) {
			t.Errorf("%s: client says %v", c.name, cerr)
		}
	}
}

func TestIdentityFromContext(t *testing.T) {
	ca := newCA(t, "c1")
	p1 := holder(t, ca, Identity{Role: RolePeer, Name: "p1"}, time.Now())
	cs, serr, cerr := shake(t, p1.ServerTLS(false), p1.ClientTLS())
	if serr != nil || cerr != nil {
		t.Fatal(serr, cerr)
	}
	ctx := peer.NewContext(context.Background(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: cs}})
	if id, err := IdentityFromContext(ctx); err != nil || id.Principal() != "peer:p1" {
		t.Errorf("%v, %v", id, err)
	}
	cs.VerifiedChains = nil
	ctx = peer.NewContext(context.Background(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: cs}})
	for _, c := range []context.Context{ctx, context.Background()} {
		if _, err := IdentityFromContext(c); !errors.Is(err, errs.Denied) {
			t.Errorf("unverified caller: %v", err)
		}
	}
}
