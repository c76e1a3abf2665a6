package redfish

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/url"
	"path"
	"strings"

	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// The keys of driver_info.
const (
	keyAddress  = "redfish_address"
	keySystem   = "redfish_system_id"
	keyUsername = "redfish_username"
	keyPassword = "redfish_password"
	keyVerify   = "redfish_verify_ca"
	keyAuth     = "redfish_auth_type"
)

var fields = []drivers.Field{
	{Name: keyAddress, Required: true, Help: "https://HOST[:PORT] or HOST[:PORT] of the BMC"},
	{Name: keySystem, Help: "path of the system, such as /redfish/v1/Systems/1; needed when the BMC has several"},
	{Name: keyUsername, Required: true, Help: "user name"},
	{Name: keyPassword, Required: true, Secret: true, Help: "password"},
	{Name: keyVerify, Help: "true (default): the host's CAs; PEM text: these CAs or this very certificate; false: do not verify"},
	{Name: keyAuth, Help: "session (default) or auto; basic is not supported"},
}

// settings is driver_info, checked.
type settings struct {
	host   string // without port or brackets
	port   string
	system string // path of the system, "" for the only one
	user   string
	pass   string
	tls    *tls.Config
}

func (s *settings) hostport() string { return net.JoinHostPort(s.host, s.port) }

// bracketed is the host as it stands in a URL.
func (s *settings) bracketed() string {
	if strings.Contains(s.host, ":") {
		return "[" + s.host + "]"
	}
	return s.host
}

func parse(info drivers.Info) (*settings, error) {
	if err := info.CheckFields("redfish_", fields); err != nil {
		return nil, err
	}
	s := &settings{}
	text := map[string]string{}
	for _, key := range []string{keyAddress, keySystem, keyUsername, keyPassword, keyAuth} {
		v, err := info.Text(key)
		if err != nil {
			return nil, err
		}
		text[key] = v
	}
	s.user, s.pass = text[keyUsername], text[keyPassword]
	if s.pass == "" || s.user == "" {
		return nil, errs.About(errs.Invalid, keyPassword, "driver_info needs %s and %s", keyUsername, keyPassword)
	}
	switch strings.ToLower(text[keyAuth]) {
	case "", "auto", "session":
	default:
		return nil, errs.About(errs.Invalid, keyAuth, "driver_info %s must be session or auto: a password in every request is not supported", keyAuth)
	}
	if err := s.address(text[keyAddress]); err != nil {
		return nil, err
	}
	if err := s.systemPath(text[keySystem]); err != nil {
		return nil, err
	}
	return s, s.verify(info[keyVerify])
}

func (s *settings) address(addr string) error {
	bad := func(why string) error {
		return errs.About(errs.Invalid, keyAddress, "driver_info %s %s", keyAddress, why)
	}
	if !strings.Contains(addr, "://") {
		if ip := net.ParseIP(addr); ip != nil && ip.To4() == nil {
			addr = "[" + addr + "]"
		}
		addr = "https://" + addr
	}
	u, err := url.Parse(addr)
	switch {
	case err != nil || u.Hostname() == "":
		return bad("is not an address")
	case u.Scheme != "https":
		return bad("must be https")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return bad("must be scheme, host and port only")
	}
	s.host, s.port = u.Hostname(), u.Port()
	if s.port == "" {
		s.port = "443"
	}
	return nil
}

// systemPath takes a path, or only its last element as a convenience.
func (s *settings) systemPath(id string) error {
	switch {
	case id == "":
		return nil
	case strings.ContainsAny(id, "?#% \t\r\n") || id != strings.TrimRight(path.Clean(id), "/"):
		return errs.About(errs.Invalid, keySystem, "driver_info %s must be a path such as /redfish/v1/Systems/1", keySystem)
	case !strings.Contains(id, "/"):
		id = "/redfish/v1/Systems/" + id
	case !strings.HasPrefix(id, "/redfish/"):
		return errs.About(errs.Invalid, keySystem, "driver_info %s must be a path such as /redfish/v1/Systems/1", keySystem)
	}
	s.system = id
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
		return s.pin([]byte(v))
	}
	return errs.About(errs.Invalid, keyVerify, "driver_info %s must be true, false or PEM text", keyVerify)
}

// pin trusts what the certificates of the PEM text have signed for this host,
// and the certificates themselves whatever their names and dates: a BMC's own
// self-signed certificate seldom has its address in it.
func (s *settings) pin(text []byte) error {
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
