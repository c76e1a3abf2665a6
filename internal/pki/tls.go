package pki

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"sync/atomic"
	"time"

	"github.com/ironring/ironring/internal/errs"
)

// Holder is what a process proves itself with: its current certificate and
// key, and the CA that others are verified against. Renewing replaces the
// certificate in place; new connections use it.
type Holder struct {
	ca   *x509.Certificate
	pool *x509.CertPool
	cert atomic.Pointer[tls.Certificate]
}

// NewHolder makes a Holder from a CA certificate and, unless it is nil, a
// certificate and its PKCS 8 key.
func NewHolder(caDER, certDER, keyDER []byte) (*Holder, error) {
	ca, err := x509.ParseCertificate(caDER)
	if err != nil {
		return nil, errs.New(errs.Invalid, "read CA certificate: %w", err)
	}
	if _, err := clusterOfCA(ca); err != nil {
		return nil, err
	}
	h := &Holder{ca: ca, pool: x509.NewCertPool()}
	h.pool.AddCert(ca)
	if certDER == nil {
		return h, nil
	}
	return h, h.Replace(certDER, keyDER)
}

// Replace puts a new certificate of the same CA in place.
func (h *Holder) Replace(certDER, keyDER []byte) error {
	leaf, err := x509.ParseCertificate(certDER)
	if err != nil {
		return errs.New(errs.Invalid, "read certificate: %w", err)
	}
	key, err := parseKey(keyDER)
	if err != nil {
		return errs.New(errs.Invalid, "read key: %w", err)
	}
	if err := leaf.CheckSignatureFrom(h.ca); err != nil {
		return errs.New(errs.Invalid, "the certificate is not signed by this cluster's CA: %w", err)
	}
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil || !bytes.Equal(pub, leaf.RawSubjectPublicKeyInfo) {
		return errs.New(errs.Invalid, "the key does not belong to the certificate")
	}
	h.cert.Store(&tls.Certificate{
		Certificate: [][]byte{leaf.Raw, h.ca.Raw}, // with the CA: see VerifyByDigest
		PrivateKey:  key,
		Leaf:        leaf,
	})
	return nil
}

// Leaf is the current certificate; nil when there is none.
func (h *Holder) Leaf() *x509.Certificate {
	if c := h.cert.Load(); c != nil {
		return c.Leaf
	}
	return nil
}

// NeedsRenewal reports whether more than half of the certificate's life has
// passed.
func (h *Holder) NeedsRenewal(now time.Time) bool {
	leaf := h.Leaf()
	return leaf != nil && now.After(leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore)/2))
}

// ServerTLS is for the listeners that clients and agents dial. With required
// false a caller may come without a certificate (to join, to enrol); one that
// brings a certificate must bring a valid one either way.
func (h *Holder) ServerTLS(required bool) *tls.Config {
	auth := tls.VerifyClientCertIfGiven
	if required {
		auth = tls.RequireAndVerifyClientCert
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: auth,
		ClientCAs:  h.pool,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return h.current()
		},
		NextProtos: []string{"h2"},
		// A resumed session would skip the checks of VerifyConnection's callers.
		SessionTicketsDisabled: true,
	}
}

// PeerServerTLS is for the listener between peers: both sides prove
// themselves, and admit decides about the caller's identity.
func (h *Holder) PeerServerTLS(admit func(Identity, tls.ConnectionState) error, protos ...string) *tls.Config {
	cfg := h.ServerTLS(true)
	cfg.NextProtos = protos
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		id, err := ParseIdentity(cs.PeerCertificates[0])
		if err != nil {
			return err
		}
		return admit(id, cs)
	}
	return cfg
}

// PeerTLS is for dialing the peer with member id want; "" is any peer.
func (h *Holder) PeerTLS(want string, protos ...string) *tls.Config {
	cfg := h.ClientTLS()
	cfg.NextProtos = protos
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		id, err := ParseIdentity(cs.PeerCertificates[0])
		switch {
		case err != nil:
			return err
		case id.Role != RolePeer:
			return errs.New(errs.Denied, "the other side is not a peer but %s", id.Principal())
		case want != "" && id.Name != want:
			return errs.New(errs.Denied, "dialed peer %s, but %s answered", want, id.Name)
		}
		return nil
	}
	return cfg
}

// ClientTLS is for dialing any peer; the own certificate is shown if there is
// one and the server asks for it.
func (h *Holder) ClientTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: ServerName,
		RootCAs:    h.pool,
		NextProtos: []string{"h2"},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if c := h.cert.Load(); c != nil {
				return c, nil
			}
			return &tls.Certificate{}, nil
		},
	}
}

func (h *Holder) current() (*tls.Certificate, error) {
	if c := h.cert.Load(); c != nil {
		return c, nil
	}
	return nil, errs.New(errs.Internal, "no certificate yet")
}

// DigestTLS is for dialing a peer when only the digest of its CA is known.
// now may be nil: then the certificates' validity in time is not judged, for
// machines whose clock cannot be trusted yet. cert, when not nil, is shown if
// the server asks for one.
func DigestTLS(digest string, now func() time.Time, cert func() *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         ServerName,
		NextProtos:         []string{"h2"},
		InsecureSkipVerify: true, // VerifyConnection does it, against the digest
		VerifyConnection:   VerifyByDigest(digest, now),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if cert != nil {
				if c := cert(); c != nil {
					return c, nil
				}
			}
			return &tls.Certificate{}, nil
		},
	}
}

// VerifyByDigest checks that the server is a peer of the cluster whose CA
// certificate has this digest. It replaces the verification of crypto/tls:
// see DigestTLS, also for now.
func VerifyByDigest(digest string, now func() time.Time) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		var ca *x509.Certificate
		for _, c := range cs.PeerCertificates {
			if Digest(c.Raw) == digest {
				ca = c
			}
		}
		if ca == nil {
			return errs.New(errs.Denied, "the server belongs to another cluster: none of its certificates is the CA with digest %s", digest)
		}
		if _, err := clusterOfCA(ca); err != nil {
			return err
		}
		leaf := cs.PeerCertificates[0]
		at := leaf.NotBefore
		if ca.NotBefore.After(at) {
			at = ca.NotBefore
		}
		if now != nil {
			at = now()
		}
		pool := x509.NewCertPool()
		pool.AddCert(ca)
		if _, err := leaf.Verify(x509.VerifyOptions{
			DNSName: ServerName, Roots: pool, CurrentTime: at,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}); err != nil {
			return errs.New(errs.Denied, "the server's certificate: %w", ExplainTime(err))
		}
		id, err := ParseIdentity(leaf)
		if err != nil {
			return err
		}
		if id.Role != RolePeer {
			return errs.New(errs.Denied, "the server is not a peer but %s", id.Principal())
		}
		return nil
	}
}
