package cluster

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/ironring/ironring/internal/errs"
)

// Form says how equal peers make their cluster.
type Form struct {
	ClusterID string
	Join      []string // cluster addresses, host:port, of every peer that may take part, this one included
	Expect    int      // so many must agree: more than half of Join
	// Key reads the shared secret, 32 bytes or more, as it is now: it is asked
	// for each connection, so that a replaced key counts at once. Safe for
	// concurrent use.
	Key func() ([]byte, error)
}

// validate names the field at fault.
func (f *Form) validate() error {
	switch {
	case !validID.MatchString(f.ClusterID):
		return errs.About(errs.Invalid, "cluster_id", "cluster_id %q: 1 to 63 lower case letters, digits, '.' and '-' are allowed", f.ClusterID)
	case net.ParseIP(f.ClusterID) != nil:
		return errs.About(errs.Invalid, "cluster_id", "cluster_id %q must not be an IP address", f.ClusterID)
	case f.Expect < 1 || f.Expect > len(f.Join):
		return errs.About(errs.Invalid, "expect", "expect is %d: it must be 1 to the %d peers of join", f.Expect, len(f.Join))
	case 2*f.Expect <= len(f.Join):
		return errs.About(errs.Invalid, "expect", "expect is %d of %d: it must be more than half, or two clusters could form", f.Expect, len(f.Join))
	}
	for i, a := range f.Join {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return errs.About(errs.Invalid, "join", "join: %q is not host:port", a)
		}
		if slices.Contains(f.Join[:i], a) {
			return errs.About(errs.Invalid, "join", "join: %q is listed twice", a)
		}
	}
	_, err := f.keys()
	return err
}

// checkJoin refuses entries that would lead every host to itself: with a small
// expect each would found a cluster of its own. Peers that are on one host have
// such addresses themselves.
func (f *Form) checkJoin(self string) error {
	own, _, err := net.SplitHostPort(self)
	if err != nil {
		return errs.About(errs.Invalid, "advertise", "cluster address %q: %v", self, err)
	}
	for _, a := range f.Join {
		host, _, _ := net.SplitHostPort(a) // validate has checked it
		ip, _ := netip.ParseAddr(host)
		switch {
		case host == "" || ip.IsUnspecified():
			return errs.About(errs.Invalid, "join", "join: %q names no host", a)
		case isLoopback(host) && !isLoopback(own):
			return errs.About(errs.Invalid, "join", "join: %q is each host itself, others reach this peer at %s: write addresses that are one host everywhere", a, self)
		}
	}
	return nil
}

// isLoopback tells hosts that are the caller's own everywhere. Other names are
// not resolved: a host's own name may well lead to 127.0.1.1 there and to its
// address elsewhere.
func isLoopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	name := strings.TrimSuffix(strings.ToLower(host), ".")
	return strings.HasSuffix("."+name, ".localhost") ||
		slices.Contains([]string{"localhost.localdomain", "localhost6", "localhost6.localdomain6", "ip6-localhost", "ip6-loopback"}, name)
}

func (f *Form) params() formParams {
	join := slices.Sorted(slices.Values(f.Join))
	return formParams{ClusterID: f.ClusterID, Expect: f.Expect, Join: join}
}
