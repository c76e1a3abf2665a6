package fsm

import (
	"net/netip"

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

// parseSpan checks a network's addresses.
func parseSpan(n *api.Network) (s span, err error) {
	if s.prefix, err = netip.ParsePrefix(n.GetCidr()); err != nil || !s.prefix.Addr().Is4() {
		return s, errs.About(errs.Invalid, "cidr", "cidr %q is not an IPv4 network like 10.77.0.0/24", clip(n.GetCidr(), maxID))
	}
	if s.prefix != s.prefix.Masked() {
		return s, errs.About(errs.Invalid, "cidr", "cidr %s has host bits set, use %s", s.prefix, s.prefix.Masked())
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
	if n.GetGateway() != "" {
		if s.gateway, err = parseAddr("gateway", n.GetGateway()); err != nil {
			return s, err
		}
		if !s.prefix.Contains(s.gateway) {
			return s, errs.About(errs.Invalid, "gateway", "gateway %s is outside %s", s.gateway, s.prefix)
		}
	}
	return s, nil
}

func (w *work) networkSet(op *api.NetworkSet, out *api.OpResult) error {
	n := op.GetNetwork()
	name := n.GetName()
	if err := checkID("network name", name); err != nil {
		return err
	}
	s, err := parseSpan(n)
	if err != nil {
		return err
	}
	if len(n.GetDns()) > 16 || len(n.GetRelays()) > maxList {
		return errs.About(errs.Invalid, name, "network %s has too many dns servers or relays", name)
	}
	for _, list := range [][]string{n.GetDns(), n.GetRelays()} {
		for _, a := range list {
			if _, err := parseAddr("dns or relay", a); err != nil {
				return err
			}
		}
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
	for _, a := range w.addressesOf(name) {
		if ip, err := netip.ParseAddr(a.GetIp()); err != nil || ip.Less(s.first) || s.last.Less(ip) || !s.usable(ip) {
			return errs.About(errs.Conflict, name, "network %s: %s is in use by %s of node %s and would not be in the new range",
				name, a.GetIp(), a.GetMac(), a.GetNodeId())
		}
	}
	n = proto.CloneOf(n)
	n.Rev++
	put(w, networks, n)
	w.newHints[name] = netip.Addr{}
	out.Id, out.Rev = name, n.GetRev()
	return nil
}

// checkApart refuses what would make NetworkFor ambiguous.
func (w *work) checkApart(n *api.Network, s span) error {
	relays := map[string]bool{}
	for _, r := range n.GetRelays() {
		relays[r] = true
	}
	count := 0
	for _, o := range all(w, networks) {
		if o.GetName() == n.GetName() {
			continue
		}
		count++
		if p, err := netip.ParsePrefix(o.GetCidr()); err == nil && p.Overlaps(s.prefix) {
			return errs.About(errs.Exists, n.GetName(), "network %s has %s, which overlaps %s", o.GetName(), p, s.prefix)
		}
		for _, r := range o.GetRelays() {
			if relays[r] {
				return errs.About(errs.Exists, n.GetName(), "network %s has the relay %s already", o.GetName(), r)
			}
		}
	}
	if count >= maxList {
		return errs.About(errs.Busy, n.GetName(), "there are %d networks, which is the most", count)
	}
	return nil
}

func (w *work) networkDelete(op *api.NetworkDelete) error {
	name := op.GetName()
	if get(w, networks, name) == nil {
		return noSuch("network", name)
	}
	given := w.addressesOf(name)
	for _, a := range given {
		if why := w.underWork(a.GetNodeId()); why != "" {
			return errs.About(errs.Locked, name, "network %s cannot be deleted: it has the address %s of %s, and %s", name, a.GetIp(), a.GetMac(), why)
		}
	}
	for _, a := range given {
		drop(w, addresses, addresses.key(a))
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
