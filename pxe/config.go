package pxe

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/kernelargs"
	"github.com/ironring/ironring/pxe/media"
)

// StaleAfter is how long a peer may be without contact with a leader before it
// boots only nodes that were under work when it last knew.
const StaleAfter = 10 * time.Second

// DefaultIPXEDir is where Debian's package ipxe puts its files.
const DefaultIPXEDir = "/usr/lib/ipxe"

// Config is what a boot service needs. An empty listen address switches that
// protocol off.
type Config struct {
	Store *fsm.Store // required
	Self  string     // member id of this peer, required

	// Allocate commits an address for a known MAC and returns once this peer
	// has applied it. nil: only addresses that are there already are given.
	Allocate func(ctx context.Context, network, mac string) (netip.Addr, error)
	// LeaderSeen is the time since the last contact with a leader, 0 on the
	// leader itself. nil: always in contact.
	LeaderSeen func() time.Duration
	// Observe takes an event of a boot timeline. It must not block. nil: events
	// are dropped.
	Observe func(*api.JournalEvent)

	// PhoneHome records the call of a deployed system and returns nil once it is
	// on record. nil: nobody waits for such calls. How often it is called is
	// bounded for each source and in all.
	PhoneHome func(ctx context.Context, token string, from netip.Addr) error

	// Files serves artifacts. nil: there are none.
	Files Files
	// Media makes boot media for virtual CD drives. nil: there are none.
	Media *media.Maker

	CADigest   string   // lower-case hex SHA-256 of the cluster's CA certificate, required
	KernelArgs []string // added after BaseKernelArgs; must be the same on all peers
	RamdiskDir string   // holds vmlinuz and initramfs.img; "": the ramdisk is answered with 503
	IPXEDir    string   // "": DefaultIPXEDir

	DHCPListen string // "host:port", normally ":67"
	// DHCPMode is the most that this peer answers on any network; a network's
	// own mode may say less.
	DHCPMode api.DHCPMode
	// ProxyListen is where clients of proxy mode ask again, normally ":4011".
	ProxyListen string
	// DHCPInterfaces binds one socket to each of these devices, so that other
	// networks of the host are not heard. Empty: one socket for all.
	DHCPInterfaces []string
	// NoRouterAnswers switches off the answers to iPXE's IPv6 router
	// solicitations, see router.go.
	NoRouterAnswers bool
	TFTPListen      string // normally ":69"
	HTTPListen      string // normally ":7484"

	// Addresses are this peer's own addresses on provisioning networks. Empty:
	// those that it listens on where that is not all addresses, else those of
	// the host's interfaces, loopback ones included.
	Addresses []netip.Addr

	Logger *slog.Logger // nil: discards
	Clock  clock.Clock  // nil: the host's
}

// Validate names the field at fault.
func (c Config) Validate() error {
	switch {
	case c.Store == nil:
		return errs.About(errs.Invalid, "Store", "boot service: no store")
	case c.Self == "":
		return errs.About(errs.Invalid, "Self", "boot service: no member id")
	case !validDigest.MatchString(c.CADigest):
		return errs.About(errs.Invalid, "CADigest", "boot service: CA digest must be 64 lower-case hex digits")
	}
	for _, l := range []struct{ name, addr string }{
		{"DHCPListen", c.DHCPListen}, {"ProxyListen", c.ProxyListen}, {"TFTPListen", c.TFTPListen}, {"HTTPListen", c.HTTPListen},
	} {
		if l.addr == "" {
			continue
		}
		if _, err := listenAddr(l.addr); err != nil {
			return errs.About(errs.Invalid, l.name, "boot service: %s: %w", l.name, err)
		}
	}
	if _, err := kernelargs.Parse(strings.Join(c.KernelArgs, " ")); err != nil {
		return errs.About(errs.Invalid, "KernelArgs", "boot service: %w", err)
	}
	for _, a := range c.Addresses {
		if !a.Is4() || a.IsUnspecified() || a.IsMulticast() {
			return errs.About(errs.Invalid, "Addresses", "boot service: %s is no IPv4 address of a host", a)
		}
	}
	return nil
}

// line is what scripts hold of the configuration.
func (c Config) line() LineConfig {
	return LineConfig{CADigest: c.CADigest, KernelArgs: slices.Concat(BaseKernelArgs, c.KernelArgs)}
}

// stale says whether this peer may be cut off from the cluster.
func (c Config) stale() bool {
	return c.LeaderSeen != nil && c.LeaderSeen() > StaleAfter
}

// listenAddr reads an address to listen on: IPv4 or nothing before the colon.
func listenAddr(s string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if host == "" {
		host = "0.0.0.0"
	}
	ap, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
	if err != nil {
		return netip.AddrPort{}, err
	}
	if !ap.Addr().Is4() {
		return netip.AddrPort{}, fmt.Errorf("%s is not an IPv4 address", host)
	}
	return ap, nil
}
