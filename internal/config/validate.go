package config

import (
	"errors"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/kernelargs"
)

var (
	validID     = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)
	validGroup  = regexp.MustCompile(`^[a-z0-9._-]{0,255}$`)
	validDriver = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)
)

// maxSocketPath is what fits into sockaddr_un on Linux.
const maxSocketPath = 107

// validate reports every value that is wrong, each with its key.
func (c *Config) validate() error {
	var all []error
	check := func(ok bool, key string, value any, rule string) {
		if !ok {
			all = append(all, errs.About(errs.Invalid, key, "%s: %q %s", key, value, rule))
		}
	}
	check(validID.MatchString(c.ID), "id", c.ID, "must be letters a-z, digits, '.' and '-', at most 63, beginning and ending with a letter or digit")
	check(validGroup.MatchString(c.Group), "group", c.Group, "must be lower-case letters, digits, '.', '_' and '-'")
	check(len(c.Zone) <= 64 && !strings.ContainsAny(c.Zone, "\x00\n\r\t"), "zone", c.Zone, "must be at most 64 bytes on one line")
	check(c.Weight <= 100, "weight", strconv.Itoa(int(c.Weight)), "must be 1 to 100")
	check(oneOf(c.Profile, ProfileDefault, ProfileLAN), "profile", c.Profile, "must be default or lan")
	check(oneOf(c.Boot.DHCP, DHCPFull, DHCPProxy, DHCPOff), "boot.dhcp", c.Boot.DHCP, "must be full, proxy or off")
	check(c.Artifacts.DiskPercent >= 10 && c.Artifacts.DiskPercent <= 95, "artifacts.disk_percent", strconv.Itoa(c.Artifacts.DiskPercent), "must be 10 to 95")
	check(oneOf(c.Log.Level, "debug", "info", "warn", "error"), "log.level", c.Log.Level, "must be debug, info, warn or error")
	check(oneOf(c.Log.Format, FormatText, FormatJSON), "log.format", c.Log.Format, "must be text or json")
	check(filepath.IsAbs(c.Socket) && len(c.Socket) <= maxSocketPath, "socket", c.Socket, "must be an absolute path of at most 107 bytes; set socket to a shorter one")
	check(filepath.IsAbs(c.Boot.RamdiskDir), "boot.ramdisk_dir", c.Boot.RamdiskDir, "must be an absolute path")
	check(filepath.IsAbs(c.Boot.MediaShim) || c.Boot.MediaShim == NoShim, "boot.media_shim", c.Boot.MediaShim, "must be an absolute path, or none")
	check(filepath.IsAbs(c.Boot.MediaGRUB), "boot.media_grub", c.Boot.MediaGRUB, "must be an absolute path")
	check(filepath.IsAbs(c.Boot.IPXEDir), "boot.ipxe_dir", c.Boot.IPXEDir, "must be an absolute path")
	if _, err := kernelargs.Parse(c.Boot.KernelArgs); err != nil {
		check(false, "boot.kernel_args", c.Boot.KernelArgs, "cannot stand on a kernel line: "+err.Error())
	}
	check(len(c.Boot.Interface) <= 15 && !strings.ContainsAny(c.Boot.Interface, "/ \t\n\x00"), "boot.interface", c.Boot.Interface, "is not the name of a network interface")
	check(len(c.Drivers) > 0, "drivers", c.Drivers, "must name at least one driver")
	for i, d := range c.Drivers {
		check(validDriver.MatchString(d), "drivers", d, "is not the name of a driver")
		check(!slices.Contains(c.Drivers[:i], d), "drivers", d, "is listed twice")
	}
	// The longest step that asks a BMC has 90 s.
	check(c.BMC.ReadTimeout >= time.Second && c.BMC.ReadTimeout <= 80*time.Second, "bmc.read_timeout", c.BMC.ReadTimeout.String(), "must be 1s to 1m20s")
	all = append(all, c.validateRaft()...)
	all = append(all, c.validateAddresses()...)
	all = append(all, c.validateForm()...)
	return errors.Join(all...)
}

func (c *Config) validateRaft() []error {
	var all []error
	for _, t := range []struct {
		key   string
		value time.Duration
	}{{"raft.heartbeat", c.Raft.Heartbeat}, {"raft.election", c.Raft.Election}, {"raft.leader_lease", c.Raft.LeaderLease}} {
		if t.value < 20*time.Millisecond || t.value > time.Minute {
			all = append(all, errs.About(errs.Invalid, t.key, "%s: %q must be 20ms to 1m", t.key, t.value))
		}
	}
	if c.Raft.LeaderLease > c.Raft.Heartbeat {
		all = append(all, errs.About(errs.Invalid, "raft.leader_lease", "raft.leader_lease: %q must not be longer than raft.heartbeat, %q", c.Raft.LeaderLease, c.Raft.Heartbeat))
	}
	if c.Raft.Election < c.Raft.Heartbeat {
		all = append(all, errs.About(errs.Invalid, "raft.election", "raft.election: %q must not be shorter than raft.heartbeat, %q", c.Raft.Election, c.Raft.Heartbeat))
	}
	return all
}

// validateAddresses finds two listeners on one port, and advertised addresses
// that nobody can dial.
func (c *Config) validateAddresses() []error {
	var all []error
	type place struct{ proto, port string }
	taken := map[place][]listener{}
	for _, l := range c.listeners() {
		host, port, _ := net.SplitHostPort(*l.listen) // completeAddress made it
		if net.ParseIP(host) == nil && !validHost(host) {
			all = append(all, errs.About(errs.Invalid, "listen."+l.key, "listen.%s: %q has no valid host", l.key, *l.listen))
		}
		for _, proto := range protocols(l.key) {
			for _, other := range taken[place{proto, port}] {
				oh, _, _ := net.SplitHostPort(*other.listen)
				if oh == host || wildcard(oh) || wildcard(host) {
					all = append(all, errs.About(errs.Invalid, "listen."+l.key, "listen.%s: %q is taken by listen.%s, %q", l.key, *l.listen, other.key, *other.listen))
				}
			}
			taken[place{proto, port}] = append(taken[place{proto, port}], l)
		}
		if l.advertise == nil {
			continue
		}
		if host, _, _ := net.SplitHostPort(*l.advertise); wildcard(host) || net.ParseIP(host) == nil && !validHost(host) {
			all = append(all, errs.About(errs.Invalid, "advertise."+l.key, "advertise.%s: %q is no address that others can dial", l.key, *l.advertise))
		}
	}
	return all
}

func protocols(key string) []string {
	switch key {
	case "gossip":
		return []string{"tcp", "udp"}
	case "tftp", "dhcp":
		return []string{"udp"}
	}
	return []string{"tcp"}
}

var hostname = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?$`)

func validHost(h string) bool { return hostname.MatchString(h) }

func oneOf(s string, of ...string) bool { return slices.Contains(of, s) }
