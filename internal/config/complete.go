package config

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/ports"
)

// Host is what defaults depend on.
type Host struct {
	Name      func() (string, error)
	Addresses func() ([]netip.Addr, error) // in the order of the interfaces
}

// System is the host that this process runs on.
func System() Host {
	return Host{Name: os.Hostname, Addresses: systemAddresses}
}

func systemAddresses() ([]netip.Addr, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr())
		}
	}
	return out, nil
}

// complete fills in every default. Values that cannot be completed because
// they are wrong are left to validate.
func (c *Config) complete(host Host) error {
	if c.DataDir == "" {
		return errs.About(errs.Invalid, "data_dir", "data_dir is not set; it is the only key without a default, e.g. data_dir: /var/lib/ironring")
	}
	dir, err := filepath.Abs(c.DataDir)
	if err != nil {
		return errs.About(errs.Invalid, "data_dir", "data_dir %q: %w", c.DataDir, err)
	}
	c.DataDir = dir
	if c.idGiven = c.ID != ""; !c.idGiven {
		name, err := host.Name()
		if err != nil {
			return errs.About(errs.Invalid, "id", "id is not set and the host's name cannot be read: %w", err)
		}
		c.ID = idOf(name)
	}
	def(&c.Socket, filepath.Join(c.DataDir, "ironring.sock"))
	def(&c.Boot.RamdiskDir, filepath.Join(c.DataDir, "ramdisk"))
	def(&c.Boot.IPXEDir, "/usr/lib/ipxe")
	def(&c.Boot.MediaShim, "/usr/lib/shim/shimx64.efi.signed")
	def(&c.Boot.MediaGRUB, "/usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed")
	def(&c.Boot.DHCP, DHCPFull)
	def(&c.Profile, ProfileDefault)
	def(&c.Artifacts.DiskPercent, 80)
	def(&c.Log.Level, "info")
	def(&c.Log.Format, FormatText)
	def(&c.Weight, 1)
	def(&c.BMC.ReadTimeout, 45*time.Second)
	def(&c.Raft.Heartbeat, 500*time.Millisecond)
	def(&c.Raft.Election, 500*time.Millisecond)
	def(&c.Raft.LeaderLease, 250*time.Millisecond)
	if c.Drivers == nil {
		// fake is left out: a machine that only pretends must be asked for.
		c.Drivers = []string{"ipmi", "redfish"}
	}
	everywhere := c.everywhere(host)
	for _, l := range c.listeners() {
		host := everywhere
		switch l.key {
		case "dhcp", "tftp": // firmware that asks them speaks IPv4
			host = "0.0.0.0"
		case "pxe": // it belongs to DHCP
			if host, _, err = net.SplitHostPort(c.Listen.DHCP); err != nil {
				return errs.About(errs.Invalid, "listen.dhcp", "listen.dhcp: %w", err)
			}
		}
		if *l.listen, err = completeAddress(*l.listen, host, l.port); err != nil {
			return errs.About(errs.Invalid, "listen."+l.key, "listen.%s: %w", l.key, err)
		}
	}
	if err := c.completeForm(); err != nil {
		return err
	}
	return c.completeAdvertise(host)
}

// everywhere is the wildcard that listeners have by default: that of IPv6,
// which takes IPv4 too, where others are told an IPv6 address.
func (c *Config) everywhere(host Host) string {
	advertised := c.Advertise.Host
	if advertised == "" && host.Addresses != nil {
		advertised, _ = firstGlobal(host) // an error is told where the address is needed
	}
	if a, err := netip.ParseAddr(advertised); err == nil && a.Unmap().Is6() {
		return "::"
	}
	return "0.0.0.0"
}

// idOf makes a member id of the first label of a host name.
func idOf(host string) string {
	label, _, _ := strings.Cut(strings.ToLower(host), ".")
	id := strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, label), "-")
	if id == "" {
		return "peer"
	}
	return id[:min(len(id), 63)]
}

// def sets *p to value where it is still zero.
func def[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

// listener is one row of the listeners of a Config.
type listener struct {
	key       string
	listen    *string
	advertise *string // nil: nobody is told
	port      int
}

func (c *Config) listeners() []listener {
	all := []listener{
		{"cluster", &c.Listen.Cluster, &c.Advertise.Cluster, ports.Cluster},
		{"gossip", &c.Listen.Gossip, &c.Advertise.Gossip, ports.Gossip},
		{"api", &c.Listen.API, &c.Advertise.API, ports.API},
		{"agent", &c.Listen.Agent, &c.Advertise.Agent, ports.Agent},
		{"boot", &c.Listen.Boot, &c.Advertise.Boot, ports.Boot},
		{"tftp", &c.Listen.TFTP, nil, ports.TFTP},
		{"dhcp", &c.Listen.DHCP, nil, ports.DHCP},
		{"pxe", &c.Listen.PXE, nil, ports.PXE},
	}
	if c.Listen.Metrics != "" { // who does not ask for it has none
		all = append(all, listener{"metrics", &c.Listen.Metrics, nil, ports.Metrics})
	}
	return all
}

// completeAddress makes host:port of "", "host", ":port" and "host:port".
func completeAddress(s, host string, port int) (string, error) {
	h, p := host, strconv.Itoa(port)
	switch {
	case s == "":
	case !strings.Contains(s, ":"):
		h = s
	default:
		if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil { // IPv6 without a port
			h = a.String()
			break
		}
		sh, sp, err := net.SplitHostPort(s)
		if err != nil {
			return "", errs.New(errs.Invalid, "%q is not host:port", s)
		}
		if sh != "" {
			h = sh
		}
		p = sp
	}
	n, err := strconv.Atoi(p)
	if err != nil || n < 1 || n > 65535 {
		return "", errs.New(errs.Invalid, "%q: port must be 1 to 65535", s)
	}
	return net.JoinHostPort(h, p), nil
}

// completeAdvertise makes an address that others can dial of each listener.
func (c *Config) completeAdvertise(host Host) error {
	for _, l := range c.listeners() {
		if l.advertise == nil {
			continue
		}
		lh, lp, err := net.SplitHostPort(*l.listen)
		if err != nil {
			return errs.About(errs.Invalid, "listen."+l.key, "listen.%s: %q is not host:port", l.key, *l.listen)
		}
		if wildcard(lh) && *l.advertise == "" {
			if c.Advertise.Host == "" {
				if c.Advertise.Host, err = firstGlobal(host); err != nil {
					return err
				}
			}
			lh = c.Advertise.Host
		}
		n, err := strconv.Atoi(lp)
		if err != nil {
			return errs.About(errs.Invalid, "listen."+l.key, "listen.%s: %q: port must be 1 to 65535", l.key, *l.listen)
		}
		if *l.advertise, err = completeAddress(*l.advertise, lh, n); err != nil {
			return errs.About(errs.Invalid, "advertise."+l.key, "advertise.%s: %w", l.key, err)
		}
	}
	return nil
}

func wildcard(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "" || err == nil && a.IsUnspecified()
}

// firstGlobal is the address that others are told when we listen everywhere.
// IPv4 goes first: firmware speaks it.
func firstGlobal(host Host) (string, error) {
	addrs, err := host.Addresses()
	if err != nil {
		return "", errs.About(errs.Invalid, "advertise.host", "advertise.host is not set and the addresses of this host cannot be read: %w", err)
	}
	for _, four := range []bool{true, false} {
		for _, a := range addrs {
			if a = a.Unmap(); a.IsGlobalUnicast() && a.Is4() == four {
				return a.String(), nil
			}
		}
	}
	return "", errs.About(errs.Invalid, "advertise.host",
		"advertise.host is not set and this host has no global unicast address: set advertise.host, or listen on an address that others can reach")
}
