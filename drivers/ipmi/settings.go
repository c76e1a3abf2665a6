package ipmi

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// The keys of driver_info.
const (
	keyAddress  = "ipmi_address"
	keyPort     = "ipmi_port"
	keyUsername = "ipmi_username"
	keyPassword = "ipmi_password"
	keyCipher   = "ipmi_cipher_suite"
	keyLevel    = "ipmi_priv_level"
	keyVersion  = "ipmi_protocol_version"
)

var fields = []drivers.Field{
	{Name: keyAddress, Required: true, Help: "address or host name of the BMC"},
	{Name: keyPort, Help: "UDP port, default 623"},
	{Name: keyUsername, Help: "user name, at most 16 bytes; default: the anonymous user"},
	{Name: keyPassword, Secret: true, Help: "password, at most 20 bytes"},
	{Name: keyCipher, Help: "cipher suite: 17 (default) or 3, for BMCs without 17"},
	{Name: keyLevel, Help: "privilege level: ADMINISTRATOR (default), OPERATOR or USER"},
	{Name: keyVersion, Help: "2.0 (default), nothing else is supported"},
}

// settings is driver_info, checked.
type settings struct {
	address string // host:port
	user    string
	pass    string
	cipher  string
	level   string
}

func parse(info drivers.Info) (*settings, error) {
	if err := info.CheckFields("ipmi_", fields); err != nil {
		return nil, err
	}
	text := map[string]string{}
	for _, key := range []string{keyAddress, keyUsername, keyPassword, keyLevel, keyVersion} {
		v, err := info.Text(key)
		if err != nil {
			return nil, err
		}
		text[key] = v
	}
	port, err := info.Int(keyPort, 623, 1, 65535)
	if err != nil {
		return nil, err
	}
	cipher, err := info.Int(keyCipher, 17, 0, 255)
	if err != nil {
		return nil, err
	}
	host := strings.Trim(text[keyAddress], "[]")
	level := strings.ToUpper(text[keyLevel])
	switch {
	case strings.ContainsAny(host, " /@?#[]") || (strings.Contains(host, ":") && net.ParseIP(host) == nil):
		return nil, errs.About(errs.Invalid, keyAddress, "driver_info %s must be an address or a host name; the port goes into %s", keyAddress, keyPort)
	case cipher != 3 && cipher != 17:
		return nil, errs.About(errs.Invalid, keyCipher, "driver_info %s must be 17 or 3: the others lack authentication or encryption, or ipmitool does not know them", keyCipher)
	case len(text[keyUsername]) > 16 || !printable(text[keyUsername]):
		return nil, errs.About(errs.Invalid, keyUsername, "driver_info %s must have at most 16 printable bytes", keyUsername)
	case len(text[keyPassword]) > 20 || strings.ContainsAny(text[keyPassword], "\x00\r\n"):
		return nil, errs.About(errs.Invalid, keyPassword, "driver_info %s must have at most 20 bytes, on one line", keyPassword)
	case level != "" && level != "ADMINISTRATOR" && level != "OPERATOR" && level != "USER":
		return nil, errs.About(errs.Invalid, keyLevel, "driver_info %s must be ADMINISTRATOR, OPERATOR or USER", keyLevel)
	case text[keyVersion] != "" && text[keyVersion] != "2.0" && text[keyVersion] != "2":
		return nil, errs.About(errs.Invalid, keyVersion, "driver_info %s must be 2.0: older versions do not encrypt", keyVersion)
	}
	if level == "" {
		level = "ADMINISTRATOR"
	}
	return &settings{
		address: net.JoinHostPort(host, strconv.Itoa(port)),
		user:    text[keyUsername], pass: text[keyPassword],
		cipher: strconv.Itoa(cipher), level: level,
	}, nil
}

// key names the BMC, however driver_info spells its address.
func (s *settings) key() string {
	host, port, _ := net.SplitHostPort(s.address) // joined by parse
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	return host + " " + port
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
