package pxe

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
)

// noProxyDHCP is iPXE's encapsulated option 176 set to 1: without it iPXE waits
// two seconds for a proxy DHCP server after it has a complete offer.
var noProxyDHCP = dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(175), []byte{176, 1, 1})

// answer writes an OFFER or ACK with the machine's address, and boot options
// when it should boot from the network.
func answer(d verdict, p *dhcpv4.DHCPv4, n *api.Network, rec BootRecord, u us, v *fsm.View, ip netip.Addr) verdict {
	t := dhcpv4.MessageTypeOffer
	if p.MessageType() == dhcpv4.MessageTypeRequest {
		t = dhcpv4.MessageTypeAck
	}
	prefix, err := netip.ParsePrefix(n.GetCidr())
	if err != nil {
		return d.silent("network %s has no valid range", n.GetName())
	}
	lease := defaultLease
	if s := n.GetLeaseSeconds(); s > 0 {
		lease = time.Duration(s) * time.Second
	}
	self := d.source
	reply, err := dhcpv4.NewReplyFromRequest(p,
		dhcpv4.WithMessageType(t),
		dhcpv4.WithYourIP(ip.AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(self.AsSlice())),
		dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(lease)),
		dhcpv4.WithOption(dhcpv4.OptSubnetMask(net.CIDRMask(prefix.Bits(), 32))),
	)
	if err != nil {
		return d.silent("cannot write an answer: %v", err)
	}
	if t == dhcpv4.MessageTypeAck {
		reply.ClientIPAddr = p.ClientIPAddr
	}
	if gw, err := netip.ParseAddr(n.GetGateway()); err == nil && gw.Is4() {
		reply.UpdateOption(dhcpv4.OptRouter(gw.AsSlice()))
	}
	if dns := dnsServers(n); len(dns) > 0 {
		reply.UpdateOption(dhcpv4.OptDNS(dns...))
	}
	c := classify(p)
	boot, _ := bootOptions(reply, c, rec, u, self, "")
	d.reply = reply
	if t == dhcpv4.MessageTypeOffer {
		d.delay = offerDelay(v, p, rec.MAC, u)
	}
	asked, said := "DISCOVER", "offered"
	if t == dhcpv4.MessageTypeAck {
		asked, said = "REQUEST", "gave"
	}
	d.text = fmt.Sprintf("%s from %s: %s %s, %s", asked, c, said, ip, boot)
	return d
}

// offerDelay is how long this peer waits with an offer: by its rank for the
// MAC, so that the peers do not all answer at once; a client that has waited
// long enough is answered by all.
func offerDelay(v *fsm.View, p *dhcpv4.DHCPv4, mac string, u us) time.Duration {
	if p.NumSeconds >= impatientSecs {
		return 0
	}
	return time.Duration(rankOf(ranked(v.Members(), mac), u.id)) * rankDelay
}

// bootOptions adds what a client boots, in the header and as options since
// clients look in either place, and says it in words; false when that is
// nothing. The query is added to the URL of a script.
//
// A machine that should boot from its disk gets iPXE all the same, and iPXE a
// script that leaves at once: UEFI firmware that is given an address without a
// file asks again for a minute before it goes on to its next boot entry.
// Firmware of a node without a boot target gets the address only.
func bootOptions(reply *dhcpv4.DHCPv4, c client, rec BootRecord, u us, self netip.Addr, query string) (string, bool) {
	if c.kind == plainClient {
		return "no boot file wanted", false
	}
	if c.kind != ipxeClient && rec.Target == api.BootTarget_BOOT_NOTHING {
		return "no boot file: " + cmp.Or(rec.Reason, "the node has no boot target"), false
	}
	server, file := reachable(u.http, self), ""
	base := "http://" + server.String()
	switch {
	case c.kind == ipxeClient && u.http.IsValid():
		file = base + pathBoot + rec.MAC + query
		reply.UpdateOption(noProxyDHCP)
	case c.kind == pxeClient && u.tftp.IsValid():
		server, file = reachable(u.tftp, self), firstStage(c)
	case c.kind == httpClient && u.http.IsValid():
		if f := firstStage(c); f != "" {
			file = base + pathIPXE + f
			reply.UpdateOption(dhcpv4.OptClassIdentifier(classHTTP))
		}
	default:
		return "no boot file: this peer does not serve the protocol", false
	}
	if file == "" {
		return "no boot file: there is no boot program for it", false
	}
	reply.ServerIPAddr = server.Addr().AsSlice()
	reply.BootFileName = file
	reply.UpdateOption(dhcpv4.OptTFTPServerName(server.Addr().String()))
	reply.UpdateOption(dhcpv4.OptBootFileName(file))
	file, _, _ = strings.Cut(file, "?") // a key is not for timelines
	if rec.Target != api.BootTarget_BOOT_RAMDISK {
		return "local boot by " + file, true
	}
	return "boot file " + file, true
}

func dnsServers(n *api.Network) []net.IP {
	var out []net.IP
	for _, s := range n.GetDns() {
		if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
			out = append(out, a.AsSlice())
		}
	}
	return out
}
