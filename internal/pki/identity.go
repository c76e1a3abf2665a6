package pki

import (
	"context"
	"crypto/x509"
	"net/url"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/ironring/ironring/internal/errs"
)

const scheme = "ironring"

// Role is what a certificate's holder is to the cluster.
type Role string

// The roles.
const (
	RolePeer   Role = "peer"
	RoleClient Role = "client"
	RoleAgent  Role = "agent"
)

// Identity is who a certificate speaks for.
type Identity struct {
	Cluster string
	Role    Role
	Name    string // member id, client name, or node id
	Nonce   string // boot nonce, agents only
}

// Principal is how an identity is written in a command's Meta: "peer:p1".
func (id Identity) Principal() string { return string(id.Role) + ":" + id.Name }

func (id Identity) url() *url.URL {
	path := "/" + string(id.Role) + "/" + id.Name
	if id.Role == RoleAgent {
		path += "/" + id.Nonce
	}
	return &url.URL{Scheme: scheme, Host: id.Cluster, Path: path}
}

func (id Identity) validate() error {
	switch id.Role {
	case RolePeer, RoleClient:
		if id.Nonce != "" {
			return errs.New(errs.Invalid, "only an agent's identity has a nonce")
		}
	case RoleAgent:
		if !validName(id.Nonce) {
			return errs.New(errs.Invalid, "an agent's identity needs a nonce of letters, digits, '.', '_' and '-'")
		}
	default:
		return errs.New(errs.Invalid, "unknown role %q", id.Role)
	}
	if !validName(id.Name) {
		return errs.New(errs.Invalid, "name %q: 1 to 128 letters, digits, '.', '_' and '-' are allowed", id.Name)
	}
	if !validHost(id.Cluster) {
		return errs.New(errs.Invalid, "cluster id %q cannot stand in a certificate", id.Cluster)
	}
	return nil
}

func validName(s string) bool {
	if s == "" || len(s) > 128 || s == "." || s == ".." {
		return false
	}
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
		default:
			return false
		}
	}
	return true
}

// ParseIdentity reads the identity of a certificate. It does not verify the
// certificate.
func ParseIdentity(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 || cert.URIs[0].Scheme != scheme {
		return Identity{}, errs.New(errs.Denied, "the certificate has no Ironring identity")
	}
	u := cert.URIs[0]
	parts := strings.Split(strings.TrimPrefix(u.Path, "/"), "/")
	id := Identity{Cluster: u.Host, Role: Role(parts[0])}
	switch {
	case len(parts) == 2:
		id.Name = parts[1]
	case len(parts) == 3:
		id.Name, id.Nonce = parts[1], parts[2]
	}
	if err := id.validate(); err != nil {
		return Identity{}, errs.New(errs.Denied, "the certificate's identity %q is not valid", u)
	}
	return id, nil
}

// IdentityFromContext is the verified identity of the caller of a gRPC
// handler; errs.Denied when the caller proved none.
func IdentityFromContext(ctx context.Context) (Identity, error) {
	cert, err := CertificateFromContext(ctx)
	if err != nil {
		return Identity{}, err
	}
	return ParseIdentity(cert)
}

// CertificateFromContext is the verified certificate of the caller of a gRPC
// handler; errs.Denied when the caller proved none.
func CertificateFromContext(ctx context.Context) (*x509.Certificate, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, errs.New(errs.Denied, "the caller is not known")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return nil, errs.New(errs.Denied, "a certificate of this cluster is needed")
	}
	return info.State.VerifiedChains[0][0], nil
}
