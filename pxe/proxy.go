package pxe

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
)

// Proxy mode: a foreign DHCP server gives the addresses, we say what to boot.
//
// The offer holds no address and, for iPXE and UEFI firmware, no file either.
// Such a client asks a second time, at port 4011, by unicast and from the
// address that it has got by then. That is how a peer learns the address of a
// MAC without having given it: the answer goes to that address alone, and a
// script's URL in it carries a key that opens the script to this MAC at this
// address, at any peer (see bootKey).

// noDiscovery is PXE's encapsulated option 6 with bit 3: boot the file of this
// offer, without a menu and without looking for further boot servers.
var noDiscovery = dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, []byte{6, 1, 8, 255})

const (
	classPXE  = "PXEClient"
	classHTTP = "HTTPClient"
)

// proxyAnswer answers a client in proxy mode.
func proxyAnswer(d verdict, a ask, n *api.Network, rec BootRecord, u us, v *fsm.View) verdict {
	p, c := a.packet, classify(a.packet)
	t := dhcpv4.MessageTypeOffer
	switch {
	case a.second && p.MessageType() == dhcpv4.MessageTypeRequest:
		t = dhcpv4.MessageTypeAck
	case !a.second && p.MessageType() == dhcpv4.MessageTypeDiscover:
	case !a.second && p.MessageType() == dhcpv4.MessageTypeRequest:
		if ip, ok := addrOf(p.RequestedIPAddress()); ok && inside(n, ip) {
			d.observed = ip
		}
		return d.silent("addresses come from another server")
	default:
		return d.silent("%s is not answered in proxy mode", typeName(p.MessageType()))
	}
	if c.kind == plainClient {
		return d.silent("no boot file wanted, and addresses come from another server")
	}
	if rec.Target == api.BootTarget_BOOT_NOTHING {
		return d.silent("no boot file: %s", cmp.Or(rec.Reason, "the node has no boot target"))
	}
	reply, err := dhcpv4.NewReplyFromRequest(p,
		dhcpv4.WithMessageType(t),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(d.source.AsSlice())),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier(classPXE)))
	if err != nil {
		return d.silent("cannot write an answer: %v", err)
	}
	if id := p.GetOneOption(dhcpv4.OptionClientMachineIdentifier); len(id) == machineIDLen {
		reply.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, id))
	}
	d.reply = reply
	if a.second {
		d.to = a.from
		reply.ClientIPAddr = a.from.Addr().AsSlice()
		d.observed = a.from.Addr()
		said, ok := bootOptions(reply, c, rec, u, d.source, bootQuery(rec, a.from.Addr()))
		if !ok {
			return d.silent("%s", said)
		}
		d.text = fmt.Sprintf("REQUEST from %s at %s, which another server addressed: %s", c, a.from.Addr(), said)
		return d
	}
	d.delay = offerDelay(v, p, rec.MAC, u)
	said := "asked to come back at port 4011"
	if !asksAgain(c) {
		var ok bool
		if said, ok = bootOptions(reply, c, rec, u, d.source, ""); !ok {
			return d.silent("%s", said)
		}
		if c.kind == pxeClient {
			reply.UpdateOption(noDiscovery)
		}
	}
	d.text = fmt.Sprintf("DISCOVER from %s: offered no address, %s", c, said)
	return d
}

// machineIDLen is the length of option 97: a type and a UUID.
const machineIDLen = 17

// asksAgain says whether a client comes to port 4011 for its boot file. BIOS
// ROMs boot from the offer, and HTTP firmware knows nothing else. Some UEFI
// firmware ignores a file in a proxy offer; all asks again when there is none.
func asksAgain(c client) bool {
	switch c.kind {
	case ipxeClient:
		return true
	case pxeClient:
		return !c.archKnown || c.arch != iana.INTEL_X86PC
	}
	return false
}

// Keys of boot scripts.
const (
	keyParam = "key"
	keyBytes = 16
)

// bootKey opens the boot script of a MAC to one address for one boot. It is
// made of the boot nonce, which only peers know before the machine has the
// script, so that any peer can check it and none has to remember it. It says
// nothing about the nonce, and nothing to a host with another address.
func bootKey(nonce, mac string, ip netip.Addr) string {
	h := hmac.New(sha256.New, []byte(nonce))
	h.Write([]byte("ironring boot script\x00" + mac + "\x00" + ip.String()))
	return hex.EncodeToString(h.Sum(nil)[:keyBytes])
}

// bootQuery is the query of a script's URL for a machine at an address that we
// have not given; "" when the script is no secret.
func bootQuery(rec BootRecord, ip netip.Addr) string {
	if rec.Target != api.BootTarget_BOOT_RAMDISK {
		return ""
	}
	return "?" + keyParam + "=" + bootKey(rec.Nonce, rec.MAC, ip)
}

// opens says whether a key is that of a record at an address.
func opens(key string, rec BootRecord, from netip.Addr) bool {
	return rec.Nonce != "" && from.IsValid() && hmac.Equal([]byte(key), []byte(bootKey(rec.Nonce, rec.MAC, from)))
}
