package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Networks that are not ours alone: one behind a relay, one with a foreign
// DHCP server.

// The far network: machines there reach the others through a router, which is
// also the DHCP relay.
const (
	BridgeFar = "brfar"
	FarCIDR   = "10.78.0.0/24"
	FarRouter = "10.78.0.1"
	relayProv = "10.77.0.6" // the router on the provisioning network
	foreign   = "10.77.0.7" // the foreign DHCP server on the provisioning network
)

// PlugFar makes the far network with its router, and starts a DHCP relay of
// another project on it that adds option 82. They stay until the lab closes.
func (l *Lab) PlugFar(ctx context.Context) error {
	if err := l.ip(ctx, "", "netns add "+l.NS("relay")); err != nil {
		return err
	}
	if err := l.ip(ctx, "net",
		"link add "+BridgeFar+" type bridge stp_state 0 forward_delay 0",
		"link set "+BridgeFar+" type bridge mcast_snooping 0",
		"link set "+BridgeFar+" up"); err != nil {
		return err
	}
	for _, c := range []cable{{"relay", "prov", BridgeProv, relayProv}, {"relay", "far", BridgeFar, FarRouter}} {
		if err := l.plug(ctx, c); err != nil {
			return err
		}
	}
	if err := l.ip(ctx, "relay", "link set lo up"); err != nil {
		return err
	}
	if _, err := l.Output(ctx, Cmd{Name: "ip_forward", NS: l.NS("relay"), Args: []string{"sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"}}); err != nil {
		return err
	}
	hosts := []string{"www"}
	for i := 1; i <= Peers; i++ {
		hosts = append(hosts, "p"+strconv.Itoa(i))
	}
	for _, h := range hosts {
		if err := l.ip(ctx, h, "route add "+FarCIDR+" via "+relayProv); err != nil {
			return err
		}
	}
	dir, err := l.unpacked(ctx, "isc-dhcp-relay", nil) // its package would start it on this host
	if err != nil {
		return err
	}
	args := []string{
		filepath.Join(dir, "usr/sbin/dhcrelay"), "-4", "-d", "--no-pid", "-a",
		"-id", "far", "-iu", "prov",
	}
	for i := 1; i <= Peers; i++ {
		args = append(args, ProvAddr(i))
	}
	_, err = l.Start(Cmd{Name: "dhcrelay", NS: l.NS("relay"), Args: args, Log: filepath.Join(l.Dir, "dhcrelay.log")})
	return err
}

// PlugForeign makes the host of a foreign DHCP server on the provisioning
// network.
func (l *Lab) PlugForeign(ctx context.Context) error {
	if err := l.ip(ctx, "", "netns add "+l.NS("dhcp")); err != nil {
		return err
	}
	if err := l.ip(ctx, "dhcp", "link set lo up"); err != nil {
		return err
	}
	return l.plug(ctx, cable{"dhcp", "prov", BridgeProv, foreign})
}

// ForeignDHCP starts dnsmasq there: a DHCP server that knows nothing of
// booting. The caller kills it.
func (l *Lab) ForeignDHCP(ctx context.Context, first, last string) (*Proc, error) {
	leases := filepath.Join(l.Dir, "dnsmasq.leases")
	log := filepath.Join(l.Dir, "dnsmasq.log")
	p, err := l.Start(Cmd{Name: "dnsmasq", NS: l.NS("dhcp"), Log: log, Args: []string{
		"dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=prov", "--bind-interfaces", "--log-dhcp",
		"--user=root", "--pid-file=", "--dhcp-leasefile=" + leases,
		fmt.Sprintf("--dhcp-range=%s,%s,255.255.255.0,1h", first, last),
	}})
	if err != nil {
		return nil, err
	}
	return p, Poll(ctx, "dnsmasq's start", l.Limit(10*time.Second), func() (bool, error) {
		b, err := os.ReadFile(log)
		return err == nil && len(b) > 0, err
	})
}

// The image server at a site without DHCP: an IPv6 address, and a name that
// only the DNS server on the VLAN knows.
const (
	ImageHost6 = "fd79::5"
	ImageName  = "images.site.test"
)

// PlugStatic makes the servers of a site without DHCP: the image server's IPv6
// address, and DNS and NTP on a VLAN. They stay until the lab closes.
func (l *Lab) PlugStatic(ctx context.Context) (*DNS, error) {
	if err := l.ip(ctx, "www", "addr add "+ImageHost6+"/64 dev prov nodad"); err != nil {
		return nil, err
	}
	if err := l.PlugTagged(ctx); err != nil {
		return nil, err
	}
	if err := l.ServeTime(); err != nil {
		return nil, err
	}
	return l.ServeNames(ctx, ImageName, ImageHost6)
}

// StaticNetwork is the network data of a machine there: IPv4 and IPv6 on a bond
// of its two NICs, a VLAN on the bond, and DNS and NTP that are reached by the
// VLAN only. host is the end of its addresses.
func StaticNetwork(vm *VM, host int) string {
	return fmt.Sprintf(`{
 "links": [
  {"id": "tagged", "type": "vlan", "vlan_link": "both", "vlan_id": %[4]d},
  {"id": "both", "type": "bond", "bond_links": ["one", "two"], "bond_mode": "active-backup", "bond_miimon": 100},
  {"id": "one", "type": "phy", "ethernet_mac_address": %[1]q},
  {"id": "two", "type": "phy", "ethernet_mac_address": %[2]q}
 ],
 "networks": [
  {"id": "v4", "type": "ipv4", "link": "both", "ip_address": "10.77.0.%[3]d/24"},
  {"id": "v6", "type": "ipv6", "link": "both", "ip_address": "fd79::%[3]d/64"},
  {"id": "v7", "type": "ipv4", "link": "tagged", "ip_address": "10.79.0.%[3]d/24"}
 ],
 "services": [{"type": "dns", "address": %[5]q}, {"type": "ntp", "address": %[5]q}]
}`, vm.MAC, vm.MAC2, host, taggedID, TaggedHost)
}
