// Package netdata is the static network configuration of a machine whose site
// has no DHCP: the JSON of OpenStack's network_data.json (links, networks,
// services), read, checked and put in the order in which it has to be applied.
//
// The peers check it when a node gets it and put it into the node's boot
// medium; the agent reads it there and applies it. Both use this package, which
// touches no network itself.
//
// What it knows: links of type phy, vlan and bond; networks of type ipv4 and
// ipv6 with an address, routes and a gateway, and ipv4_dhcp; services of type
// dns and ntp. Other link types are errors, because a machine that is set up
// halfway is not found again. Unknown keys are ignored: the format has many.
package netdata

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ironring/ironring/internal/errs"
)

// Bounds of a document.
const (
	MaxBytes = 48 << 10
	maxItems = 64
)

// Path is where the agent finds the document in its ramdisk.
const Path = "/etc/ironring/network.json"

// Data is a checked configuration.
type Data struct {
	Links []Link // each after those that it stands on
	DNS   []netip.Addr
	NTP   []string // addresses or host names
}

// LinkType is what kind of interface a link is.
type LinkType int

// The types of links.
const (
	Physical LinkType = iota
	VLAN
	Bond
)

// Link is an interface with its addresses.
type Link struct {
	ID   string
	Type LinkType
	MAC  string // lower case with colons; of a bond or VLAN "" is allowed
	MTU  int    // 0: the driver's

	VLAN   int    // of a VLAN: 1 to 4094
	Parent string // of a VLAN: id of the link below
	// Members are the links of a bond, by id.
	Members  []string
	BondMode string            // name as the kernel has it
	BondOpts map[string]string // miimon, lacp_rate, xmit_hash_policy

	DHCP      bool // asks for an IPv4 address
	Addresses []netip.Prefix
	Routes    []Route
}

// Route is a way to a network; a gateway is a route to everything.
type Route struct {
	To      netip.Prefix
	Gateway netip.Addr
}

type document struct {
	Links    []docLink    `json:"links"`
	Networks []docNetwork `json:"networks"`
	Services []docService `json:"services"`
}

type docLink struct {
	ID       string          `json:"id"`
	Type     string          `json:"type"`
	MAC      string          `json:"ethernet_mac_address"`
	VLANMAC  string          `json:"vlan_mac_address"`
	MTU      json.RawMessage `json:"mtu"`
	VLANID   json.RawMessage `json:"vlan_id"`
	VLANLink string          `json:"vlan_link"`
	Bond     []string        `json:"bond_links"`
	Mode     json.RawMessage `json:"bond_mode"`
	Miimon   json.RawMessage `json:"bond_miimon"`
	LACP     json.RawMessage `json:"bond_lacp_rate"`
	Hash     string          `json:"bond_xmit_hash_policy"`
}

type docNetwork struct {
	ID       string       `json:"id"`
	Type     string       `json:"type"`
	Link     string       `json:"link"`
	Address  string       `json:"ip_address"`
	Netmask  string       `json:"netmask"`
	Gateway  string       `json:"gateway"`
	Routes   []docRoute   `json:"routes"`
	DNS      []string     `json:"dns_nameservers"`
	Services []docService `json:"services"`
}

type docRoute struct {
	Network string `json:"network"`
	Netmask string `json:"netmask"`
	Gateway string `json:"gateway"`
}

type docService struct {
	Type    string `json:"type"`
	Address string `json:"address"`
}

func invalid(format string, args ...any) error {
	return errs.About(errs.Invalid, "network_data", "network_data: "+format, args...)
}

// Parse reads and checks a document; errs.Invalid says what is wrong with it.
func Parse(doc []byte) (*Data, error) {
	if len(doc) > MaxBytes {
		return nil, invalid("%d bytes, at most %d", len(doc), MaxBytes)
	}
	var d document
	if err := json.Unmarshal(doc, &d); err != nil {
		return nil, invalid("%w", err)
	}
	if len(d.Links) == 0 {
		return nil, invalid("there is no link")
	}
	if len(d.Links) > maxItems || len(d.Networks) > maxItems || len(d.Services) > maxItems {
		return nil, invalid("more than %d links, networks or services", maxItems)
	}
	out := &Data{}
	if err := out.links(d.Links); err != nil {
		return nil, err
	}
	for _, n := range d.Networks {
		if err := out.network(n); err != nil {
			return nil, err
		}
	}
	if err := out.services(d.Services); err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(out.Links, func(l Link) bool { return l.DHCP || len(l.Addresses) > 0 }) {
		return nil, invalid("no link has an address")
	}
	return out, nil
}

// links reads the links and puts each after those that it stands on.
func (d *Data) links(in []docLink) error {
	byID := map[string]Link{}
	for _, l := range in {
		link, err := readLink(l)
		if err != nil {
			return err
		}
		if _, twice := byID[link.ID]; twice {
			return invalid("link %q is there twice", link.ID)
		}
		byID[link.ID] = link
	}
	owner := map[string]string{} // of the members of bonds
	const under, done = 1, 2
	state := map[string]int{}
	var visit func(id, of string) error
	visit = func(id, of string) error {
		l, ok := byID[id]
		switch {
		case !ok:
			return invalid("link %q stands on %q, which is not there", of, id)
		case state[id] == under:
			return invalid("link %q stands on itself", id)
		case state[id] == done:
			return nil
		}
		state[id] = under
		for _, m := range l.Members {
			if other := owner[m]; other != "" {
				return invalid("link %q is in the bonds %q and %q", m, other, id)
			}
			owner[m] = id
			if byID[m].Type != Physical {
				return invalid("bond %q has the member %q, which is no physical link", id, m)
			}
			if err := visit(m, id); err != nil {
				return err
			}
		}
		if l.Type == VLAN {
			if byID[l.Parent].Type == VLAN {
				return invalid("VLAN %q stands on another VLAN", id)
			}
			if err := visit(l.Parent, id); err != nil {
				return err
			}
		}
		state[id] = done
		d.Links = append(d.Links, l)
		return nil
	}
	for _, l := range in {
		if err := visit(l.ID, ""); err != nil {
			return err
		}
	}
	return nil
}

// bondModes are the kernel's modes by number.
var bondModes = []string{"balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"}

// physical are the types that mean a NIC.
var physical = []string{"phy", "physical", "ethernet", "ovs", "vif", "tap", "bridge", "hw_veb", "hyperv", "vhostuser", "other"}

func readLink(in docLink) (Link, error) {
	l := Link{ID: in.ID}
	if in.ID == "" || len(in.ID) > 64 {
		return l, invalid("a link without an id, or with one of more than 64 bytes")
	}
	var err error
	if l.MTU, err = number(in.MTU, 0, 1280, 65535); err != nil {
		return l, invalid("mtu of link %q: %w", in.ID, err)
	}
	mac := in.MAC
	switch {
	case in.Type == "vlan":
		l.Type, l.Parent = VLAN, in.VLANLink
		if mac = in.VLANMAC; mac == "" {
			mac = in.MAC
		}
		if l.VLAN, err = number(in.VLANID, -1, 1, 4094); err != nil || l.VLAN < 0 {
			return l, invalid("vlan_id of link %q must be 1 to 4094", in.ID)
		}
	case in.Type == "bond":
		l.Type, l.Members = Bond, in.Bond
		if len(l.Members) == 0 || len(l.Members) > 16 {
			return l, invalid("bond %q has %d members", in.ID, len(l.Members))
		}
		if err := l.bond(in); err != nil {
			return l, err
		}
	case slices.Contains(physical, in.Type):
		if mac == "" {
			return l, invalid("link %q has no ethernet_mac_address", in.ID)
		}
	default:
		return l, invalid("link %q is of type %q: phy, vlan and bond are known", in.ID, in.Type)
	}
	if mac != "" {
		hw, err := net.ParseMAC(mac)
		if err != nil || len(hw) != 6 || hw[0]&1 != 0 {
			return l, invalid("link %q has the bad MAC address %q", in.ID, mac)
		}
		l.MAC = hw.String()
	}
	return l, nil
}

func (l *Link) bond(in docLink) error {
	mode := strings.Trim(string(in.Mode), `"`)
	if n, err := strconv.Atoi(mode); err == nil && n >= 0 && n < len(bondModes) {
		mode = bondModes[n]
	}
	if mode == "" || mode == "null" {
		mode = bondModes[1]
	}
	if !slices.Contains(bondModes, mode) {
		return invalid("bond %q has the unknown mode %q", l.ID, mode)
	}
	l.BondMode, l.BondOpts = mode, map[string]string{"miimon": "100"}
	miimon, err := number(in.Miimon, 100, 1, 10_000)
	if err != nil {
		return invalid("bond_miimon of %q: %w", l.ID, err)
	}
	l.BondOpts["miimon"] = strconv.Itoa(miimon)
	switch lacp := strings.Trim(string(in.LACP), `"`); lacp {
	case "", "null":
	case "slow", "fast", "0", "1":
		l.BondOpts["lacp_rate"] = lacp
	default:
		return invalid("bond_lacp_rate of %q is slow or fast, not %q", l.ID, lacp)
	}
	switch in.Hash {
	case "":
	case "layer2", "layer2+3", "layer3+4", "encap2+3", "encap3+4", "vlan+srcmac":
		l.BondOpts["xmit_hash_policy"] = in.Hash
	default:
		return invalid("bond_xmit_hash_policy %q of %q is not known", in.Hash, l.ID)
	}
	return nil
}

// number reads a number or a text with one.
func number(raw json.RawMessage, zero, least, most int) (int, error) {
	s := strings.Trim(string(raw), `"`)
	if s == "" || s == "null" {
		return zero, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%.20q is not a number from %d to %d", s, least, most)
	}
	return n, nil
}

// network gives a link its address and routes.
func (d *Data) network(n docNetwork) error {
	i := slices.IndexFunc(d.Links, func(l Link) bool { return l.ID == n.Link })
	if i < 0 {
		return invalid("network %q is on the link %q, which is not there", n.ID, n.Link)
	}
	l := &d.Links[i]
	switch n.Type {
	case "ipv4_dhcp":
		l.DHCP = true
		return d.services(n.Services)
	case "ipv4", "ipv6":
	default:
		return invalid("network %q is of type %q: ipv4, ipv6 and ipv4_dhcp are known", n.ID, n.Type)
	}
	p, err := prefix(n.Address, n.Netmask)
	if err != nil || p.Addr().Is4() != (n.Type == "ipv4") || !usable(p.Addr()) {
		return invalid("network %q: %q with netmask %q is no %s address of a host", n.ID, n.Address, n.Netmask, n.Type)
	}
	l.Addresses = append(l.Addresses, p)
	routes := n.Routes
	if n.Gateway != "" {
		routes = append(slices.Clone(routes), docRoute{Network: map[bool]string{true: "0.0.0.0/0", false: "::/0"}[p.Addr().Is4()], Gateway: n.Gateway})
	}
	if len(routes) > maxItems {
		return invalid("network %q has more than %d routes", n.ID, maxItems)
	}
	for _, r := range routes {
		to, err := prefix(r.Network, r.Netmask)
		if err != nil || to.Addr().Is4() != p.Addr().Is4() {
			return invalid("network %q: the route to %q with netmask %q is wrong", n.ID, r.Network, r.Netmask)
		}
		gw, err := netip.ParseAddr(r.Gateway)
		if err != nil || gw.Is4() != p.Addr().Is4() || gw.Zone() != "" || gw.IsUnspecified() || gw.IsMulticast() {
			return invalid("network %q: the gateway %q is wrong", n.ID, r.Gateway)
		}
		if !p.Masked().Contains(gw) && !gw.IsLinkLocalUnicast() {
			return invalid("network %q: the gateway %s is not inside %s", n.ID, gw, p.Masked())
		}
		l.Routes = append(l.Routes, Route{To: to.Masked(), Gateway: gw})
	}
	for _, a := range n.DNS {
		if err := d.services([]docService{{"dns", a}}); err != nil {
			return err
		}
	}
	return d.services(n.Services)
}

func usable(a netip.Addr) bool {
	return a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && !a.Is4In6()
}

// prefix reads "10.0.0.5/24", or an address and a netmask as either of
// "255.255.255.0", "ffff:ffff::" and "24".
func prefix(addr, mask string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(addr); err == nil {
		return p, nil
	}
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return netip.Prefix{}, err
	}
	if n, err := strconv.Atoi(mask); err == nil {
		return checkPrefix(a, n)
	}
	m, err := netip.ParseAddr(mask)
	if err != nil || m.Is4() != a.Is4() {
		return netip.Prefix{}, fmt.Errorf("netmask %q", mask)
	}
	ones, bits := net.IPMask(m.AsSlice()).Size()
	if bits == 0 {
		return netip.Prefix{}, fmt.Errorf("netmask %q has holes", mask)
	}
	return checkPrefix(a, ones)
}

func checkPrefix(a netip.Addr, n int) (netip.Prefix, error) {
	p := netip.PrefixFrom(a, n)
	if !p.IsValid() {
		return p, fmt.Errorf("%s/%d is no prefix", a, n)
	}
	return p, nil
}

func (d *Data) services(list []docService) error {
	for _, s := range list {
		switch s.Type {
		case "dns":
			a, err := netip.ParseAddr(s.Address)
			if err != nil || a.IsUnspecified() {
				return invalid("the DNS server %.80q is no address", s.Address)
			}
			if !slices.Contains(d.DNS, a) {
				d.DNS = append(d.DNS, a)
			}
		case "ntp":
			if !validHost(s.Address) {
				return invalid("the NTP server %.80q is neither an address nor a name", s.Address)
			}
			if !slices.Contains(d.NTP, s.Address) {
				d.NTP = append(d.NTP, s.Address)
			}
		default:
			return invalid("a service of type %.40q: dns and ntp are known", s.Type)
		}
		if len(d.DNS) > 8 || len(d.NTP) > 8 {
			return invalid("more than 8 DNS or NTP servers")
		}
	}
	return nil
}

func validHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	if s == "" || len(s) > 253 {
		return false
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// OfNode takes the document out of a node's properties (network_data); nil
// when it has none.
func OfNode(properties []byte) ([]byte, error) {
	var p struct {
		Data json.RawMessage `json:"network_data"`
	}
	if len(properties) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(properties, &p); err != nil {
		return nil, invalid("%w", err)
	}
	if len(p.Data) == 0 || string(p.Data) == "null" {
		return nil, nil
	}
	_, err := Parse(p.Data)
	return p.Data, err
}
