package redfish

import (
	"crypto/tls"
	"fmt"
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
	keyPin      = "redfish_tls_pin"
	keyTrust    = "redfish_tls_trust"
)

var fields = []drivers.Field{
	{Name: keyAddress, Required: true, Help: "https://HOST[:PORT] or HOST[:PORT] of the BMC"},
	{Name: keySystem, Help: "path of the system, such as /redfish/v1/Systems/1; needed when the BMC has several"},
	{Name: keyUsername, Required: true, Help: "user name"},
	{Name: keyPassword, Required: true, Secret: true, Help: "password"},
	{Name: keyVerify, Help: "true (default): the host's CAs; PEM text: these CAs or this very certificate; false: do not verify"},
	{Name: keyPin, Help: "sha256:HEX of the BMC's certificate: this one is trusted and no other"},
	{Name: keyTrust, Help: "first-use: the certificate that the BMC shows first is remembered, and no other trusted until it is accepted"},
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
	// One of these may stand in place of redfish_verify_ca.
	pin      string // "sha256:HEX"
	firstUse bool
	tlsText  string // all that decides on trust, for comparing
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
	for _, key := range []string{keyAddress, keySystem, keyUsername, keyPassword, keyAuth, keyPin, keyTrust} {
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
	if err := s.verify(info[keyVerify]); err != nil {
		return nil, err
	}
	if err := s.pins(text[keyPin], text[keyTrust], info[keyVerify] != nil); err != nil {
		return nil, err
	}
	s.tlsText = fmt.Sprintf("%v %s %s", info[keyVerify], s.pin, text[keyTrust])
	return s, nil
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
