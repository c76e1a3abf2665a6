package client

import (
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/ironring/ironring/client/clienttest"
	"github.com/ironring/ironring/internal/pki"
)

// identity makes a key and has the CA sign it.
func identity(t *testing.T, ca *pki.CA, role pki.Role, name string) (certDER, keyDER []byte) {
	t.Helper()
	csr, key, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(csr, pki.Identity{Cluster: ca.Cluster(), Role: role, Name: name}, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func newCA(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.Create("c1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// serveTLS starts a peer whose certificate has the role given.
func serveTLS(t *testing.T, ca *pki.CA, role pki.Role) string {
	t.Helper()
	cert, key := identity(t, ca, role, "p1")
	holder, err := pki.NewHolder(ca.CertDER(), cert, key)
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(clienttest.New().Peer("p1").Serve(lis, grpc.Creds(credentials.NewTLS(holder.ServerTLS(true)))))
	return lis.Addr().String()
}

// clientTLS writes the PEM files of a client and loads them.
func clientTLS(t *testing.T, ca *pki.CA) *TLS {
	t.Helper()
	dir := t.TempDir()
	cert, key := identity(t, ca, pki.RoleClient, "alice")
	write := func(name, kind string, der []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	out, err := LoadTLS(write("ca", "CERTIFICATE", ca.CertDER()), write("crt", "CERTIFICATE", cert), write("key", "PRIVATE KEY", key))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTLS(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	for _, c := range []struct {
		name    string
		address string
		tls     *TLS
		want    string
	}{
		{"good", serveTLS(t, ca, pki.RolePeer), clientTLS(t, ca), ""},
		{"server of another CA", serveTLS(t, other, pki.RolePeer), clientTLS(t, ca), "certificate"},
		{"client of another CA", serveTLS(t, ca, pki.RolePeer), clientTLS(t, other), "certificate"},
		{"another client pretends to be a peer", serveTLS(t, ca, pki.RoleClient), clientTLS(t, ca), "certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl, err := New(Config{Addresses: []string{c.address}, TLS: c.tls, Rounds: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			_, err = cl.Version(testContext(t), nil)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			case c.want != "" && !errors.Is(err, Unreachable):
				t.Errorf("kind of %v is %v", err, KindOf(err))
			}
		})
	}
}
