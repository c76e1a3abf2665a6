package fsm

import (
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// hints are, per network, an address below which no address of its range is
// free. They spare a search and never change its outcome: a store without them
// (after Restore) finds the same address.
type hints map[string]netip.Addr

// merge takes over the hints of an accepted command; the zero address forgets.
func (h hints) merge(from hints) {
	for network, next := range from {
		if next.IsValid() {
			h[network] = next
		} else {
			delete(h, network)
		}
	}
}

func (w *work) hint(network string) netip.Addr {
	if next, ok := w.newHints[network]; ok {
		return next
	}
	return w.hints[network]
}

// span is a network's addresses, parsed.
type span struct {
	prefix      netip.Prefix
	first, last netip.Addr
	gateway     netip.Addr
}

// usable reports whether an address of the range may be given to a machine.
func (s span) usable(a netip.Addr) bool {
	return a != s.gateway && a != s.prefix.Masked().Addr() && a != broadcast(s.prefix)
}

func broadcast(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	return netip.AddrFrom4(b)
}

func parseAddr(what, s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return a, errs.About(errs.Invalid, what, "%s %q is not an IPv4 address", what, clip(s, maxID))
	}
	return a, nil
}

// Bounds of a network.
const (
	shortestPrefix = 8  // a wider one is a slip of the keyboard
	longestPrefix  = 30 // a narrower one has no room for a machine and a peer
	minLease       = 30
	maxLease       = 30 * 24 * 3600
	maxDNS         = 16
)

// parseSpan checks a network's addresses.
func parseSpan(n *api.Network) (s span, err error) {
	if s.prefix, err = parsePrefix(n.GetCidr()); err != nil {
		return s, err
	}
	if n.GetGateway() != "" {
		if s.gateway, err = parseHost("gateway", n.GetGateway()); err != nil {
			return s, err
		}
		if !s.prefix.Contains(s.gateway) {
			return s, errs.About(errs.Invalid, "gateway", "gateway %s is outside %s", s.gateway, s.prefix)
		}
		if s.gateway == s.prefix.Addr() || s.gateway == broadcast(s.prefix) {
			return s, errs.About(errs.Invalid, "gateway", "gateway %s is not an address of a host: it is the first or the last of %s", s.gateway, s.prefix)
		}
	}
	if n.GetMode() != api.DHCPMode_DHCP_FULL && n.GetRangeStart() == "" && n.GetRangeEnd() == "" {
		return s, nil // a foreign server has the range
	}
	if s.first, err = parseAddr("range_start", n.GetRangeStart()); err != nil {
		return s, err
	}
	if s.last, err = parseAddr("range_end", n.GetRangeEnd()); err != nil {
		return s, err
	}
	if !s.prefix.Contains(s.first) || !s.prefix.Contains(s.last) || s.last.Less(s.first) {
		return s, errs.About(errs.Invalid, "range_start", "the range %s to %s is not a range inside %s", s.first, s.last, s.prefix)
	}
	for _, p := range n.GetPeers() {
		if a, err := netip.ParseAddr(p.GetAddress()); err == nil && !a.Less(s.first) && !s.last.Less(a) {
			return s, errs.About(errs.Invalid, "peer", "the address %s of peer %s is inside the range %s to %s that machines get", a, p.GetPeer(), s.first, s.last)
		}
	}
	for ip := s.first; !s.usable(ip); ip = ip.Next() { // at most three are not
		if ip == s.last {
			return s, errs.About(errs.Invalid, "range_start", "the range %s to %s has no address for a machine: network address, broadcast address and gateway are never given out", s.first, s.last)
		}
	}
	return s, nil
}

func parsePrefix(cidr string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(cidr)
	switch {
	case err == nil && p.Addr().Is6():
		return p, errs.About(errs.Unsupported, "cidr", "cidr %s: DHCP is served for IPv4 networks only; machines may reach peers and BMCs by IPv6, but boot by IPv4", p)
	case err != nil:
		return p, errs.About(errs.Invalid, "cidr", "cidr %q is not an IPv4 network like 10.77.0.0/24", clip(cidr, maxID))
	case p != p.Masked():
		return p, errs.About(errs.Invalid, "cidr", "cidr %s has host bits set, use %s", p, p.Masked())
	case p.Bits() > longestPrefix:
		return p, errs.About(errs.Invalid, "cidr", "cidr %s is too small: there must be room for a machine and a peer, /%d at the longest", p, longestPrefix)
	case p.Bits() < shortestPrefix:
		return p, errs.About(errs.Invalid, "cidr", "cidr %s is too large: /%d at the shortest", p, shortestPrefix)
	case p.Addr().IsMulticast() || p.Addr().IsUnspecified() || p.Addr().As4()[0] >= 240:
		return p, errs.About(errs.Invalid, "cidr", "cidr %s has no addresses of hosts", p)
	}
	return p, nil
}

// parseHost reads an address that a host can have.
func parseHost(what, s string) (netip.Addr, error) {
	a, err := parseAddr(what, s)
	if err == nil && (a.IsUnspecified() || a.IsMulticast() || a.As4()[0] >= 240) {
		err = errs.About(errs.Invalid, what, "%s %s is not an address of a host", what, a)
	}
	return a, err
}

// checkNetwork checks what a network has beside its span.
func checkNetwork(n *api.Network) error {
	name := n.GetName()
	if err := checkID("network name", name); err != nil {
		return err
	}
	if l := n.GetLeaseSeconds(); l != 0 && (l < minLease || l > maxLease) {
		return errs.About(errs.Invalid, "lease_seconds", "network %s: a lease of %d s is out of range: %d s to 30 days", name, l, minLease)
	}
	if len(n.GetDns()) > maxDNS || len(n.GetRelays()) > maxList || len(n.GetPeers()) > maxList {
		return errs.About(errs.Invalid, name, "network %s has too many dns servers, relays or peers", name)
	}
	for _, a := range n.GetDns() {
		if _, err := parseHost("dns", a); err != nil {
			return err
		}
	}
	relays := map[string]bool{}
	for _, r := range n.GetRelays() {
		if _, err := parseHost("relay", r); err != nil {
			return err
		}
		if relays[r] {
			return errs.About(errs.Invalid, "relay", "network %s names the relay %s twice", name, r)
		}
		relays[r] = true
	}
	ids, addrs := map[string]bool{}, map[string]bool{}
	for _, p := range n.GetPeers() {
		if err := checkID("peer", p.GetPeer()); err != nil {
			return err
		}
		if _, err := parseHost("address of peer "+p.GetPeer(), p.GetAddress()); err != nil {
			return err
		}
		if ids[p.GetPeer()] || addrs[p.GetAddress()] {
			return errs.About(errs.Invalid, "peer", "network %s names the peer %s or the address %s twice", name, p.GetPeer(), p.GetAddress())
		}
		ids[p.GetPeer()], addrs[p.GetAddress()] = true, true
	}
	return nil
}

func (w *work) networkSet(op *api.NetworkSet, out *api.OpResult) error {
	n := op.GetNetwork()
	name := n.GetName()
	if err := checkNetwork(n); err != nil {
		return err
	}
	s, err := parseSpan(n)
	if err != nil {
		return err
	}
	was := get(w, networks, name)
	switch {
	case n.GetRev() == 0 && was != nil:
		return errs.About(errs.Exists, name, "network %s exists already", name)
	case n.GetRev() != 0 && was == nil:
		return noSuch("network", name)
	case n.GetRev() != was.GetRev():
		return errs.About(errs.Conflict, name, "network %s was changed: its rev is %d, not %d", name, was.GetRev(), n.GetRev())
	}
	if err := w.checkApart(n, s); err != nil {
		return err
	}
	if err := w.keepAddresses(n, s); err != nil {
		return err
	}
	n = proto.CloneOf(n)
	n.Rev++
	put(w, networks, n)
	w.newHints[name] = netip.Addr{}
	out.Id, out.Rev = name, n.GetRev()
	return nil
}

// keepAddresses refuses a change that would take a machine's address away. A
// network whose addresses are no longer ours forgets them.
func (w *work) keepAddresses(n *api.Network, s span) error {
	name := n.GetName()
	given := w.addressesOf(name)
	if n.GetMode() == api.DHCPMode_DHCP_FULL {
		for _, a := range given {
			if ip, err := netip.ParseAddr(a.GetIp()); err != nil || ip.Less(s.first) || s.last.Less(ip) || !s.usable(ip) {
				return errs.About(errs.Conflict, name, "network %s: %s is in use by %s of node %s and would not be in the new range",
					name, a.GetIp(), a.GetMac(), a.GetNodeId())
			}
		}
		return nil
	}
	return w.forgetAddresses(name, "cannot stop giving out addresses", given)
}

// forgetAddresses drops the addresses of a network, unless a machine under
// work has one of them.
func (w *work) forgetAddresses(name, cannot string, given []*api.Address) error {
	for _, a := range given {
		if why := w.underWork(a.GetNodeId()); why != "" {
			return errs.About(errs.Locked, name, "network %s %s: it has the address %s of %s, and %s", name, cannot, a.GetIp(), a.GetMac(), why)
		}
	}
	for _, a := range given {
		drop(w, addresses, addresses.key(a))
	}
	return nil
}

// checkApart refuses what would make NetworkFor ambiguous.
func (w *work) checkApart(n *api.Network, s span) error {
	name := n.GetName()
	relays := relaysOf(n)
	count := 0
	for _, o := range all(w, networks) {
		if o.GetName() == name {
			continue
		}
		count++
		p, err := netip.ParsePrefix(o.GetCidr())
		if err != nil {
			continue // not by NetworkSet
		}
		if p.Overlaps(s.prefix) {
			return errs.About(errs.Exists, name, "network %s has %s, which overlaps %s", o.GetName(), p, s.prefix)
		}
		for _, r := range relays {
			if p.Contains(r) {
				return errs.About(errs.Exists, name, "the relay %s is inside %s of network %s", r, p, o.GetName())
			}
		}
		for _, r := range relaysOf(o) {
			if slices.Contains(relays, r) {
				return errs.About(errs.Exists, name, "network %s has the relay %s already", o.GetName(), r)
			}
			if s.prefix.Contains(r) {
				return errs.About(errs.Exists, name, "%s has the relay %s of network %s", s.prefix, r, o.GetName())
			}
		}
	}
	if count >= maxList {
		return errs.About(errs.Busy, name, "there are %d networks, which is the most", count)
	}
	return nil
}

func relaysOf(n *api.Network) []netip.Addr {
	var out []netip.Addr
	for _, r := range n.GetRelays() {
		if a, err := netip.ParseAddr(r); err == nil {
			out = append(out, a)
		}
	}
	return out
}

func (w *work) networkDelete(op *api.NetworkDelete) error {
	name := op.GetName()
	if get(w, networks, name) == nil {
		return noSuch("network", name)
	}
	if err := w.checkLast(name); err != nil {
		return err
	}
	if err := w.forgetAddresses(name, "cannot be deleted", w.addressesOf(name)); err != nil {
		return err
	}
	drop(w, networks, name)
	w.newHints[name] = netip.Addr{}
	return nil
}

func (w *work) addressesOf(network string) []*api.Address {
	return find(w, addresses, byNetwork, network, func(a *api.Address) bool { return a.GetNetwork() == network })
}

func (w *work) addressAllocate(op *api.AddressAllocate, out *api.OpResult) error {
	name, mac := op.GetNetwork(), op.GetMac()
	n := get(w, networks, name)
	if n == nil {
		return noSuch("network", name)
	}
	if n.GetMode() != api.DHCPMode_DHCP_FULL {
		return errs.About(errs.WrongState, name, "network %s gives out no addresses: its DHCP mode is not full", name)
	}
	p := w.portByMAC(mac)
	if p == nil {
		return noSuch("port with the MAC", mac)
	}
	if a := get(w, addresses, addressKey(name, mac)); a != nil {
		out.Id, out.Address = a.GetNodeId(), a.GetIp()
		return nil
	}
	s, err := parseSpan(n)
	if err != nil {
		return err
	}
	from := s.first
	if h := w.hint(name); h.IsValid() && from.Less(h) {
		from = h
	}
	ip := from
	for ; ip.IsValid() && !s.last.Less(ip); ip = ip.Next() {
		if s.usable(ip) && !w.taken(name, ip.String()) {
			break
		}
	}
	if !ip.IsValid() || s.last.Less(ip) {
		return errs.About(errs.Busy, name, "network %s has no free address from %s to %s", name, s.first, s.last)
	}
	w.newHints[name] = ip.Next()
	put(w, addresses, &api.Address{Network: name, Mac: mac, Ip: ip.String(), NodeId: p.GetNodeId()})
	out.Id, out.Address = p.GetNodeId(), ip.String()
	return nil
}

func (w *work) taken(network, ip string) bool {
	return len(find(w, addresses, byIP, addressKey(network, ip), func(a *api.Address) bool {
		return a.GetNetwork() == network && a.GetIp() == ip
	})) > 0
}

// dropAddress frees an address, which may now be the lowest free one.
func (w *work) dropAddress(a *api.Address) {
	ip, err := netip.ParseAddr(a.GetIp())
	if h := w.hint(a.GetNetwork()); err == nil && h.IsValid() && ip.Less(h) {
		w.newHints[a.GetNetwork()] = ip
	}
	drop(w, addresses, addresses.key(a))
}
