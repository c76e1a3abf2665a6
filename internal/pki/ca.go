package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"

	"github.com/ironring/ironring/internal/errs"
)

// ServerName is the DNS name in every peer's certificate and the TLS server
// name that every dialer asks for.
const ServerName = "ironring-peer"

// How long certificates live.
const (
	PeerLife      = 365 * 24 * time.Hour
	ClientLife    = 90 * 24 * time.Hour // default
	AgentLife     = 24 * time.Hour
	caLife        = 30 * 365 * 24 * time.Hour
	backdate      = 24 * time.Hour
	maxClientLife = 2 * PeerLife
)

// CA signs the certificates of one cluster. Every peer has it.
type CA struct {
	cluster string
	cert    *x509.Certificate
	key     crypto.Signer
	keyDER  []byte
}

// Create makes a new CA for a cluster at the given time.
func Create(cluster string, now time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	root := &url.URL{Scheme: scheme, Host: cluster, Path: "/ca"}
	tmpl := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: []string{"Ironring"}, CommonName: "Ironring CA " + cluster},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		URIs:                  []*url.URL{root},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign CA certificate: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode CA key: %w", err)
	}
	return Load(der, keyDER)
}

// Load reads a CA from its certificate and PKCS 8 key.
func Load(certDER, keyDER []byte) (*CA, error) {
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, errs.New(errs.Invalid, "read CA certificate: %w", err)
	}
	cluster, err := clusterOfCA(cert)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(keyDER)
	if err != nil {
		return nil, errs.New(errs.Invalid, "read CA key: %w", err)
	}
	pub, ok := key.Public().(*ecdsa.PublicKey)
	if !ok || !pub.Equal(cert.PublicKey) {
		return nil, errs.New(errs.Invalid, "the CA key does not belong to the CA certificate")
	}
	return &CA{cluster: cluster, cert: cert, key: key, keyDER: keyDER}, nil
}

func clusterOfCA(cert *x509.Certificate) (string, error) {
	if !cert.IsCA || len(cert.URIs) != 1 || cert.URIs[0].Scheme != scheme || cert.URIs[0].Path != "/ca" {
		return "", errs.New(errs.Invalid, "not the certificate of an Ironring CA")
	}
	return cert.URIs[0].Host, nil
}

func parseKey(der []byte) (crypto.Signer, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, errs.New(errs.Invalid, "key cannot sign")
	}
	return s, nil
}

// Cluster is the id of the cluster that the CA is for.
func (ca *CA) Cluster() string { return ca.cluster }

// Certificate is the CA's own certificate.
func (ca *CA) Certificate() *x509.Certificate { return ca.cert }

// CertDER is the CA's own certificate, DER.
func (ca *CA) CertDER() []byte { return ca.cert.Raw }

// KeyDER is the CA's private key, PKCS 8. It is a secret.
func (ca *CA) KeyDER() []byte { return ca.keyDER }

// Digest is the hex SHA-256 of the CA's certificate: what tokens and kernel
// lines carry.
func (ca *CA) Digest() string { return Digest(ca.cert.Raw) }

// Digest is the hex SHA-256 of a DER certificate.
func Digest(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// Issue signs the key of a certificate request for an identity. Nothing else
// of the request is used. ttl 0 is the role's default; agents always get
// AgentLife.
func (ca *CA) Issue(csrDER []byte, id Identity, ttl time.Duration, now time.Time) (certDER []byte, err error) {
	csr, err := ParseRequest(csrDER)
	if err != nil {
		return nil, err
	}
	id.Cluster = ca.cluster
	if err := id.validate(); err != nil {
		return nil, err
	}
	if ttl < 0 || ttl > maxClientLife {
		return nil, errs.New(errs.Invalid, "a certificate may live at most %d days", int(maxClientLife.Hours()/24))
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: []string{"Ironring"}, CommonName: id.Name},
		NotBefore:             now.Add(-backdate),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:                  []*url.URL{id.url()},
	}
	life := ttl
	switch id.Role {
	case RolePeer:
		tmpl.DNSNames = []string{ServerName}
		tmpl.ExtKeyUsage = append(tmpl.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		if life == 0 {
			life = PeerLife
		}
	case RoleClient:
		if life == 0 {
			life = ClientLife
		}
	case RoleAgent:
		life = AgentLife
	}
	tmpl.NotAfter = now.Add(life)
	return x509.CreateCertificate(rand.Reader, tmpl, ca.cert, csr.PublicKey, ca.key)
}

// NewRequest makes a key and a certificate request for it.
func NewRequest() (csrDER, keyDER []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	if keyDER, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	csrDER, err = RequestFor(keyDER)
	return csrDER, keyDER, err
}

// RequestFor makes a certificate request for a PKCS 8 key that is there
// already.
func RequestFor(keyDER []byte) ([]byte, error) {
	key, err := parseKey(keyDER)
	if err != nil {
		return nil, errs.New(errs.Invalid, "read key: %w", err)
	}
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "ironring"}}, key)
}

// ParseRequest reads a certificate request and checks that its sender has the
// key.
func ParseRequest(csrDER []byte) (*x509.CertificateRequest, error) {
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, errs.New(errs.Invalid, "read certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, errs.New(errs.Invalid, "certificate request: %w", err)
	}
	if pub, ok := csr.PublicKey.(*ecdsa.PublicKey); !ok || pub.Curve != elliptic.P256() {
		return nil, errs.New(errs.Invalid, "certificate request: the key must be ECDSA P-256")
	}
	return csr, nil
}

// KeyDigest is the SHA-256 of a request's or certificate's public key
// (RawSubjectPublicKeyInfo of either).
func KeyDigest(rawSubjectPublicKeyInfo []byte) []byte {
	sum := sha256.Sum256(rawSubjectPublicKeyInfo)
	return sum[:]
}

func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b) // never fails since Go 1.24
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

// validHost is what may stand for the cluster in the URI: ids of ours are
// UUIDs, so this only catches mistakes.
func validHost(s string) bool {
	return s != "" && net.ParseIP(s) == nil && len(s) <= 64 && validName(s)
}
