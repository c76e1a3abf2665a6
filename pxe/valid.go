package pxe

import (
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// What may stand in a script. Anything else makes the record unbootable
// rather than a line that iPXE would read in another way.
var (
	validNodeID = regexp.MustCompile(`^[0-9a-f-]{1,64}$`)
	validNonce  = regexp.MustCompile(`^[0-9a-f]{32}$`)
	validDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)
	validHost   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?$`)
)

// ParseMAC reads an Ethernet address written as six pairs of hex digits with
// colons or hyphens, and nothing else, and gives it in the form in which ports
// store it: lower case with colons.
func ParseMAC(s string) (string, bool) {
	if len(s) != 17 {
		return "", false
	}
	var b [17]byte
	sep := s[2]
	if sep != ':' && sep != '-' {
		return "", false
	}
	for i := range len(s) {
		c := s[i]
		if i%3 == 2 {
			if c != sep {
				return "", false
			}
			b[i] = ':'
			continue
		}
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f':
		case c >= 'A' && c <= 'F':
			c += 'a' - 'A'
		default:
			return "", false
		}
		b[i] = c
	}
	mac := string(b[:])
	hw, err := net.ParseMAC(mac)
	if err != nil || hw[0]&1 != 0 || mac == "00:00:00:00:00:00" {
		return "", false // a group address is no machine's
	}
	return mac, true
}

// validAddress checks a host:port that machines are told, and gives its parts.
func validAddress(s string) (host string, port uint16, ok bool) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, false
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != p {
		return "", 0, false
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return host, uint16(n), ip.Zone() == "" && !ip.IsUnspecified() && !ip.IsMulticast()
	}
	return host, uint16(n), !strings.Contains(host, ":") && validHost.MatchString(host)
}
