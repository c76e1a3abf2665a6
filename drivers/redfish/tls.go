package redfish

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"strings"

	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// Whom we send a password to. There are four ways to trust a BMC, and one of
// them is in force: the host's CAs, CAs or certificates given as PEM, the
// fingerprint of its certificate, or the certificate that it showed first. All
// are decided within the handshake, before anything of ours is sent.

// fingerprint is how a certificate is named: the digest of all of it.
func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (s *settings) pins(pin, trust string, verify bool) error {
	if pin != "" {
		norm, ok := drivers.Fingerprint(pin)
		if !ok {
			return errs.About(errs.Invalid, keyPin, "driver_info %s must be sha256: and the 64 hexadecimal digits of a certificate's digest", keyPin)
		}
		s.pin = norm
	}
	switch strings.ToLower(trust) {
	case "":
	case "first-use":
		s.firstUse = true
	default:
		return errs.About(errs.Invalid, keyTrust, "driver_info %s must be first-use or nothing", keyTrust)
	}
	ways := 0
	for _, w := range []bool{verify, s.pin != "", s.firstUse} {
		if w {
			ways++
		}
	}
	if ways > 1 {
		return errs.About(errs.Invalid, keyTrust, "driver_info: only one of %s, %s and %s may be set", keyVerify, keyPin, keyTrust)
	}
	return nil
}

// tlsConfig is the settings' own, or one that asks for the fingerprint.
func (c *call) tlsConfig() *tls.Config {
	if c.set.pin == "" && !c.set.firstUse {
		return c.set.tls
	}
	cfg := c.set.tls.Clone()
	// The usual check is replaced, not left out, by the one below.
	cfg.InsecureSkipVerify = true
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		return c.check(c.bound(), fingerprint(state.PeerCertificates[0]))
	}
	return cfg
}

// check compares the certificate with the one that is trusted.
func (c *call) check(ctx context.Context, seen string) error {
	addr := c.set.hostport()
	changed := &drivers.CertificateError{Address: addr, Want: c.set.pin, Seen: seen}
	switch {
	case c.set.pin == seen:
		return nil
	case c.set.pin != "":
		changed.How = "accept it with `ironring node set " + c.node + " --driver-info " + keyPin + "=" + seen + "`"
		return changed
	case c.trust == nil:
		return errs.About(errs.Unsupported, keyTrust, "nothing here remembers certificates")
	}
	switch known := c.trust.Known(addr); known {
	case "":
		if err := c.trust.First(ctx, addr, seen); err != nil {
			return errs.New(errs.Unreachable, "the BMC's certificate could not be recorded, nothing was sent to it: %w", err)
		}
		return nil
	case seen:
		return nil
	default:
		changed.Want = known
		changed.How = "accept it with `ironring node bmc accept-certificate " + c.node + " --fingerprint " + seen + "`"
		return changed
	}
}

// certificateError is the outcome of a handshake that ended on the BMC's
// certificate, nil when it ended otherwise.
func certificateError(err error) error {
	var changed *drivers.CertificateError
	var untrusted *tls.CertificateVerificationError
	var own *errs.Error
	switch {
	case errors.As(err, &changed):
		return errs.New(errs.Denied, "%w", changed)
	case errors.As(err, &untrusted) && len(untrusted.UnverifiedCertificates) > 0:
		seen := fingerprint(untrusted.UnverifiedCertificates[0])
		return errs.About(errs.Invalid, keyVerify, "the BMC's certificate is not trusted, nothing was sent: %s. Give its CA in %s, or if %s is its fingerprint, set %s=%s",
			clean(untrusted.Err.Error()), keyVerify, seen, keyPin, seen)
	case errors.As(err, &own):
		return own
	}
	return nil
}

func (s *settings) verify(v any) error {
	s.tls = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.host}
	switch v := v.(type) {
	case nil:
		return nil
	case bool:
		s.tls.InsecureSkipVerify = !v
		return nil
	case string:
		switch strings.ToLower(strings.TrimSpace(v)) {
		case "", "true":
			return nil
		case "false":
			s.tls.InsecureSkipVerify = true
			return nil
		}
		return s.authorities([]byte(v))
	}
	return errs.About(errs.Invalid, keyVerify, "driver_info %s must be true, false or PEM text", keyVerify)
}

// authorities trusts what the certificates of the PEM text have signed for this host,
// and the certificates themselves whatever their names and dates: a BMC's own
// self-signed certificate seldom has its address in it.
func (s *settings) authorities(text []byte) error {
	roots := x509.NewCertPool()
	known := map[string]bool{}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return errs.About(errs.Invalid, keyVerify, "driver_info %s holds a damaged certificate", keyVerify)
		}
		roots.AddCert(cert)
		known[string(cert.Raw)] = true
	}
	if len(known) == 0 {
		return errs.About(errs.Invalid, keyVerify, "driver_info %s must be true, false or PEM text with a certificate", keyVerify)
	}
	// The usual check is replaced, not left out, by the one below.
	s.tls.InsecureSkipVerify = true
	s.tls.VerifyConnection = func(state tls.ConnectionState) error {
		leaf := state.PeerCertificates[0]
		if known[string(leaf.Raw)] {
			return nil
		}
		opts := x509.VerifyOptions{Roots: roots, DNSName: s.host, Intermediates: x509.NewCertPool()}
		for _, c := range state.PeerCertificates[1:] {
			opts.Intermediates.AddCert(c)
		}
		if _, err := leaf.Verify(opts); err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
		}
		return nil
	}
	return nil
}
