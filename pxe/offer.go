package pxe

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
)

// Times and ports of DHCP.
const (
	rankDelay     = 50 * time.Millisecond // between the offers of two peers
	impatientSecs = 2                     // a client that has waited so long is answered at once
	defaultLease  = 600 * time.Second
	serverPort    = 67
	clientPort    = 68
)

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// ask is one DHCP packet and how it came.
type ask struct {
	packet *dhcpv4.DHCPv4
	from   netip.AddrPort
	to     netip.Addr   // destination of the datagram; invalid when unknown
	iface  []netip.Addr // own addresses of the interface that it came in by
	second bool         // at the port for second questions of proxy mode
}

// us is what an answer says about this peer.
type us struct {
	id    string
	own   []netip.Addr   // all addresses of this peer
	http  netip.AddrPort // where HTTP boot listens; invalid when it is off
	tftp  netip.AddrPort // where TFTP listens; invalid when it is off
	stale bool           // no contact with a leader
	mode  api.DHCPMode   // the most that this peer answers
}

// reachable is where clients reach a listener of this peer: at the address
// that it is bound to, or else at the peer's address on their network.
func reachable(listens netip.AddrPort, self netip.Addr) netip.AddrPort {
	if listens.Addr().IsUnspecified() {
		return netip.AddrPortFrom(self, listens.Port())
	}
	return listens
}

// verdict is the answer to one ask: a packet, or silence with a reason.
type verdict struct {
	reply   *dhcpv4.DHCPv4 // nil: say nothing
	to      netip.AddrPort
	source  netip.Addr // own address to send from
	delay   time.Duration
	mac     string
	nodeID  string // set for machines that are known
	nonce   string
	network string
	// allocate: the MAC has no address on network yet; ask again with one.
	allocate bool
	observed netip.Addr // the machine's address by another server's word; invalid when unknown
	text     string     // for the timeline
	reason   string     // of silence
}

func (d verdict) silent(format string, args ...any) verdict {
	d.reply, d.reason = nil, fmt.Sprintf(format, args...)
	return d
}

// decide answers a DHCP packet from the replicated state. It is pure: the same
// packet, view and peer give the same answer.
func decide(v *fsm.View, a ask, u us) verdict {
	var d verdict
	p := a.packet
	if p.OpCode != dhcpv4.OpcodeBootRequest || len(p.ClientHWAddr) != 6 || p.HWType != 1 {
		return d.silent("not a request of an Ethernet client")
	}
	mac, ok := ParseMAC(p.ClientHWAddr.String())
	if !ok {
		return d.silent("not the address of a machine")
	}
	d.mac = mac
	rec := Record(v, mac)
	if !rec.Known {
		return d.silent("unknown machine")
	}
	d.nodeID, d.nonce = rec.NodeID, rec.Nonce
	t := p.MessageType()
	switch t {
	case dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest:
	case dhcpv4.MessageTypeDecline:
		return d.silent("the machine declined %s: another host uses it", p.RequestedIPAddress())
	default:
		return d.silent("%s is not answered", typeName(t))
	}
	n, self, why := place(v, a, u)
	if n == nil {
		return d.silent("%s", why)
	}
	d.network, d.source = n.GetName(), self
	mode := max(u.mode, n.GetMode()) // the enumeration goes from all to nothing
	if mode == api.DHCPMode_DHCP_OFF {
		return d.silent("DHCP is off on network %s", n.GetName())
	}
	// Requests for other servers tell a peer in proxy mode where a machine is.
	if id, set := addrOf(p.ServerIdentifier()); t == dhcpv4.MessageTypeRequest && set && id != self && (a.second || mode == api.DHCPMode_DHCP_FULL) {
		return d.silent("the request is for server %s", id)
	}
	renewal := t == dhcpv4.MessageTypeRequest && !a.second && !p.ClientIPAddr.IsUnspecified()
	if u.stale && !renewal && !underWork(rec.State) {
		return d.silent("no contact with a leader, and the node was not deploying, cleaning or inspecting")
	}
	d.to = destination(a, p)
	if mode == api.DHCPMode_DHCP_PROXY {
		return proxyAnswer(d, a, n, rec, u, v)
	}
	if a.second {
		return d.silent("network %s is not in proxy mode", n.GetName())
	}
	ip, err := netip.ParseAddr(v.Address(n.GetName(), mac).GetIp())
	if err != nil {
		d.allocate = true
		return d.silent("no address on network %s", n.GetName())
	}
	if t == dhcpv4.MessageTypeRequest {
		wanted, set := wantedAddr(p)
		if !set {
			return d.silent("the request names no address")
		}
		if wanted != ip {
			return refuse(d, a, p, self, wanted, ip)
		}
	}
	return answer(d, p, n, rec, u, v, ip)
}

// wantedAddr is the address that a request is about.
func wantedAddr(p *dhcpv4.DHCPv4) (netip.Addr, bool) {
	if ip, ok := addrOf(p.RequestedIPAddress()); ok {
		return ip, true
	}
	return addrOf(p.ClientIPAddr)
}

// refuse sends a NAK when the request was addressed to this peer, and says
// nothing when it may be about another server's lease.
func refuse(d verdict, a ask, p *dhcpv4.DHCPv4, self, wanted, has netip.Addr) verdict {
	_, named := addrOf(p.ServerIdentifier()) // then it is ours: decide has compared it
	_, renews := addrOf(p.ClientIPAddr)
	if !named && !(renews && a.to == self) {
		return d.silent("the request for %s may be for another server: the machine's address here is %s", wanted, has)
	}
	nak, err := dhcpv4.NewReplyFromRequest(p,
		dhcpv4.WithMessageType(dhcpv4.MessageTypeNak),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(self.AsSlice())),
		dhcpv4.WithOption(dhcpv4.OptMessage("the address of this machine is "+has.String())))
	if err != nil {
		return d.silent("cannot write an answer: %v", err)
	}
	nak.ClientIPAddr = net.IPv4zero
	if !d.relayed(p) {
		d.to = netip.AddrPortFrom(broadcast, clientPort)
	} else {
		nak.SetBroadcast() // the relay cannot reach the client by a wrong address
	}
	d.reply = nak
	d.text = fmt.Sprintf("REQUEST for %s refused: the machine's address is %s", wanted, has)
	return d
}

func (verdict) relayed(p *dhcpv4.DHCPv4) bool {
	_, ok := addrOf(p.GatewayIPAddr)
	return ok
}

// destination says where an answer goes: RFC 2131 §4.1, RFC 8357. A client
// without an address is answered by broadcast even when it does not ask for
// that: unicast to an address that it does not have yet needs a raw socket.
func destination(a ask, p *dhcpv4.DHCPv4) netip.AddrPort {
	if gi, ok := addrOf(p.GatewayIPAddr); ok {
		port := uint16(serverPort)
		if rai := p.RelayAgentInfo(); rai != nil && rai.Has(dhcpv4.RelaySourcePortSubOption) {
			port = a.from.Port()
		}
		return netip.AddrPortFrom(gi, port)
	}
	if ci, ok := addrOf(p.ClientIPAddr); ok {
		return netip.AddrPortFrom(ci, clientPort)
	}
	return netip.AddrPortFrom(broadcast, clientPort)
}

// addrOf turns the library's address into ours; false when it is not set.
func addrOf(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip.To4())
	return a, ok && !a.IsUnspecified()
}

func typeName(t dhcpv4.MessageType) string {
	if t == dhcpv4.MessageTypeNone {
		return "a BOOTP request"
	}
	return t.String()
}
