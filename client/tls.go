package client

import (
	"crypto/x509"
	"encoding/pem"

	"google.golang.org/grpc/credentials"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
)

// TLS is what a remote client proves itself with, as PEM. `ironring
// client-cert create` makes it.
type TLS struct {
	CA   []byte // the cluster's CA certificate
	Cert []byte // the client's certificate
	Key  []byte // its PKCS 8 key; never logged
}

// LoadTLS reads the three PEM files.
func LoadTLS(ca, cert, key string) (*TLS, error) {
	t := new(TLS)
	for _, f := range []struct {
		what, path string
		to         *[]byte
	}{{"CA certificate", ca, &t.CA}, {"client certificate", cert, &t.Cert}, {"client key", key, &t.Key}} {
		if f.path == "" {
			return nil, errs.New(errs.Invalid, "no file given for the %s", f.what)
		}
		data, err := readFile(f.what, f.path)
		if err != nil {
			return nil, err
		}
		*f.to = data
	}
	return t, nil
}

// credentials are nil without a TLS.
func (t *TLS) credentials() (credentials.TransportCredentials, error) {
	if t == nil {
		return nil, nil
	}
	ca, err := decodePEM("CA certificate", t.CA)
	if err != nil {
		return nil, err
	}
	cert, err := decodePEM("client certificate", t.Cert)
	if err != nil {
		return nil, err
	}
	if _, err := x509.ParseCertificate(cert); err != nil {
		return nil, errs.New(errs.Invalid, "client certificate: %w", err)
	}
	key, err := decodePEM("client key", t.Key)
	if err != nil {
		return nil, err
	}
	holder, err := pki.NewHolder(ca, cert, key)
	if err != nil {
		return nil, err
	}
	// Only a peer may answer: another client of the cluster has a certificate
	// of the same CA.
	return credentials.NewTLS(holder.PeerTLS("", "h2")), nil
}

func decodePEM(what string, data []byte) ([]byte, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errs.New(errs.Invalid, "%s: no PEM block found", what)
	}
	return block.Bytes, nil
}
