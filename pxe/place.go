package pxe

import (
	"fmt"
	"net/netip"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// place finds the network of a packet and the address by which the machine
// that sent it reaches this peer.
func place(v *fsm.View, a ask, u us) (*api.Network, netip.Addr, string) {
	p := a.packet
	if a.second {
		return placeSecond(v, a, u)
	}
	gi, relayed := addrOf(p.GatewayIPAddr)
	if relayed {
		link := gi
		if sel := p.RelayAgentInfo(); sel != nil { // RFC 3527
			if l, ok := addrOf(sel.Get(dhcpv4.LinkSelectionSubOption)); ok {
				link = l
			}
		}
		n := v.NetworkFor(link)
		if n == nil {
			return nil, netip.Addr{}, fmt.Sprintf("no network for the relay %s", link)
		}
		if self, ok := ownAddress(n, u); ok {
			return n, self, ""
		}
		// The peer is not on that network: it is known to the relay by the
		// address that the relay sent to.
		if a.unicast() {
			return n, a.to, ""
		}
		return nil, netip.Addr{}, fmt.Sprintf("this peer has no address for network %s", n.GetName())
	}
	for _, own := range a.iface {
		if n := v.NetworkFor(own); n != nil {
			if self, ok := peerAddress(n, u.id); ok {
				return n, self, ""
			}
			return n, own, ""
		}
	}
	// A renewal by unicast may come in by any interface.
	if ci, ok := addrOf(p.ClientIPAddr); ok && a.unicast() {
		if n := v.NetworkFor(ci); n != nil {
			if self, ok := ownAddress(n, u); ok {
				return n, self, ""
			}
			return n, a.to, ""
		}
	}
	return nil, netip.Addr{}, "no network that the request came from"
}

// placeSecond is place for the second question of a proxy exchange, which a
// machine sends by unicast from the address that a foreign server gave it.
func placeSecond(v *fsm.View, a ask, u us) (*api.Network, netip.Addr, string) {
	from := a.from.Addr()
	if ci, ok := addrOf(a.packet.ClientIPAddr); ok && ci != from {
		return nil, netip.Addr{}, fmt.Sprintf("the request of %s was sent from %s", ci, from)
	}
	if !a.unicast() || !from.IsValid() || from.IsUnspecified() {
		return nil, netip.Addr{}, "the request was not sent by unicast from the machine's address"
	}
	n := v.NetworkFor(from)
	if n == nil || !inside(n, from) {
		return nil, netip.Addr{}, fmt.Sprintf("no network has %s", from)
	}
	if self, ok := peerAddress(n, u.id); ok {
		return n, self, ""
	}
	return n, a.to, ""
}

// unicast says whether a packet was sent to one address, which is ours.
func (a ask) unicast() bool {
	return a.to.IsValid() && a.to != broadcast && !a.to.IsMulticast()
}

// peerAddress is the address that a network's record gives a peer.
func peerAddress(n *api.Network, id string) (netip.Addr, bool) {
	for _, p := range n.GetPeers() {
		if p.GetPeer() == id {
			a, err := netip.ParseAddr(p.GetAddress())
			return a, err == nil
		}
	}
	return netip.Addr{}, false
}

// ownAddress is this peer's address for a network: that of the network's
// record, or the first of its addresses that belongs to it.
func ownAddress(n *api.Network, u us) (netip.Addr, bool) {
	if a, ok := peerAddress(n, u.id); ok {
		return a, true
	}
	for _, a := range u.own {
		if inside(n, a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// inside says whether an address is one of a network's own.
func inside(n *api.Network, a netip.Addr) bool {
	prefix, err := netip.ParsePrefix(n.GetCidr())
	return err == nil && prefix.Contains(a)
}
