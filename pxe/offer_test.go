package pxe

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

type mods = []dhcpv4.Modifier

var (
	uefiModifiers = mods{
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003016")),
		dhcpv4.WithOption(dhcpv4.OptClientArch(iana.EFI_X86_64)),
	}
	biosModifiers = mods{
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")),
		dhcpv4.WithOption(dhcpv4.OptClientArch(iana.INTEL_X86PC)),
	}
	bcModifiers  = mods{dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00009:UNDI:003016"))}
	armModifiers = mods{
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00011:UNDI:003016")),
		dhcpv4.WithOption(dhcpv4.OptClientArch(iana.EFI_ARM64)),
	}
	httpModifiers = mods{
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("HTTPClient:Arch:00016:UNDI:003001")),
		dhcpv4.WithOption(dhcpv4.OptClientArch(iana.EFI_X86_64_HTTP)),
	}
	ipxeModifiers = mods{
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003010")),
		dhcpv4.WithOption(dhcpv4.OptClientArch(iana.EFI_X86_64)),
		dhcpv4.WithOption(dhcpv4.OptUserClass("iPXE")),
	}
	rfc3004Modifiers = mods{
		dhcpv4.WithOption(dhcpv4.OptClientArch(iana.INTEL_X86PC)),
		dhcpv4.WithOption(dhcpv4.OptRFC3004UserClass([]string{"lab", "iPXE"})),
	}
	anyHTTP = netip.MustParseAddrPort("0.0.0.0:7484")
	anyTFTP = netip.MustParseAddrPort("0.0.0.0:69")
	xid     = dhcpv4.TransactionID{1, 2, 3, 4}
)

// discover is a DISCOVER with more modifiers, or whatever they make of it.
func discover(t testing.TB, mac string, m ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	hw, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	p, err := dhcpv4.NewDiscovery(hw, append(mods{dhcpv4.WithTransactionID(xid)}, m...)...)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func with(lists ...mods) mods {
	var out mods
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

func request(ip string, m ...dhcpv4.Modifier) mods {
	out := mods{dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest)}
	if ip != "" {
		out = append(out, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.ParseIP(ip))))
	}
	return append(out, m...)
}

func toServer(ip string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(ip)))
}

func fromClient(ip string) dhcpv4.Modifier { return dhcpv4.WithClientIP(net.ParseIP(ip)) }

func secs(n uint16) dhcpv4.Modifier { return func(p *dhcpv4.DHCPv4) { p.NumSeconds = n } }

func relayed(gi string, sub ...dhcpv4.Option) mods {
	m := mods{dhcpv4.WithGatewayIP(net.ParseIP(gi))}
	if len(sub) > 0 {
		m = append(m, dhcpv4.WithOption(dhcpv4.OptRelayAgentInfo(sub...)))
	}
	return m
}

var (
	circuit    = dhcpv4.OptGeneric(dhcpv4.AgentCircuitIDSubOption, []byte("port7"))
	sourcePort = dhcpv4.OptGeneric(dhcpv4.RelaySourcePortSubOption, nil)
	linkSelect = dhcpv4.OptGeneric(dhcpv4.LinkSelectionSubOption, []byte{10, 77, 0, 0})
)

// show writes a verdict for a golden file: the packet in words and in bytes.
func show(d verdict) string {
	var b strings.Builder
	if d.reply == nil {
		fmt.Fprintf(&b, "silent: %s\n", d.reason)
		return b.String()
	}
	fmt.Fprintf(&b, "to %s from %s after %s\n%s\n%s\n%s", d.to, d.source, d.delay, d.text, d.reply.Summary(), hex.Dump(d.reply.ToBytes()))
	return b.String()
}

func TestDecide(t *testing.T) {
	view := newWorld(t).store.View()
	direct := ask{from: netip.MustParseAddrPort("0.0.0.0:68"), to: broadcast, iface: addrs("192.168.9.9", "10.77.0.11")}
	relay := ask{from: netip.MustParseAddrPort("10.77.0.1:5000"), to: netip.MustParseAddr("203.0.113.5")}
	unicast := ask{from: netip.MustParseAddrPort("10.77.0.50:68"), to: netip.MustParseAddr("10.77.0.11"), iface: addrs("10.77.0.11")}
	peer := us{id: "p1", own: addrs("192.168.9.9", "10.77.0.11"), http: anyHTTP, tftp: anyTFTP}
	elsewhere := us{id: "p1", own: addrs("203.0.113.5"), http: anyHTTP, tftp: anyTFTP}
	cutOff := peer
	cutOff.stale = true
	noHTTP := us{id: "p1", own: peer.own, tftp: anyTFTP}
	noTFTP := us{id: "p1", own: peer.own, http: anyHTTP}
	bound := us{id: "p1", own: peer.own, http: netip.MustParseAddrPort("10.77.0.9:80"), tftp: netip.MustParseAddrPort("10.77.0.8:69")}
	for _, c := range []struct {
		name string
		ask  ask
		mac  string
		mods mods
		us   us
	}{
		{"discover-uefi", direct, macDeploying, uefiModifiers, peer},
		{"discover-bios", direct, macDeploying, biosModifiers, peer},
		{"discover-arch9-from-class", direct, macDeploying, bcModifiers, peer},
		{"discover-arm64", direct, macDeploying, armModifiers, peer},
		{"discover-uefi-http", direct, macDeploying, httpModifiers, peer},
		{"discover-ipxe", direct, macDeploying, ipxeModifiers, peer},
		{"discover-ipxe-rfc3004", direct, macDeploying, rfc3004Modifiers, peer},
		{"discover-agent", direct, macDeploying, nil, peer},
		{"discover-broadcast-flag", direct, macDeploying, mods{dhcpv4.WithBroadcast(true)}, peer},
		{"discover-impatient", direct, macDeploying, mods{secs(2)}, us{id: "stranger", own: peer.own}},
		{"discover-last-rank", direct, macDeploying, nil, us{id: "stranger", own: peer.own}},
		{"discover-no-http", direct, macDeploying, ipxeModifiers, noHTTP},
		{"discover-no-tftp", direct, macDeploying, uefiModifiers, noTFTP},
		{"discover-bound", direct, macDeploying, ipxeModifiers, bound},
		{"discover-bound-tftp", direct, macDeploying, uefiModifiers, bound},
		{"local-uefi", direct, macActive, uefiModifiers, peer},
		{"local-http", direct, macActive, httpModifiers, peer},
		{"nothing-uefi", direct, macOther, uefiModifiers, peer},
		{"nothing-ipxe", direct, macOther, ipxeModifiers, peer},
		{"local-ipxe", direct, macActive, ipxeModifiers, peer},
		{"no-pxe-port-uefi", direct, macNoPXE, uefiModifiers, peer},
		{"no-address-yet", direct, macNothing, uefiModifiers, peer},
		{"unknown", direct, macUnknown, uefiModifiers, peer},
		{"no-network", ask{to: broadcast, iface: addrs("192.168.9.9")}, macDeploying, nil, peer},

		{"cut-off-inspecting", direct, macDeploying, uefiModifiers, cutOff},
		{"cut-off-verifying", direct, macVerifying, uefiModifiers, cutOff},
		{"cut-off-active", direct, macActive, ipxeModifiers, cutOff},
		{"cut-off-renewal", unicast, macActive, request("", fromClient("10.77.0.51")), cutOff},

		{"request-ours", direct, macDeploying, with(ipxeModifiers, request("10.77.0.50", toServer("10.77.0.11"))), peer},
		{"request-other-server", direct, macDeploying, request("10.77.0.50", toServer("10.77.0.12")), peer},
		{"request-ours-wrong", direct, macDeploying, request("10.77.0.77", toServer("10.77.0.11")), peer},
		{"request-init-reboot", direct, macDeploying, request("10.77.0.50"), peer},
		{"request-init-reboot-wrong", direct, macDeploying, request("10.77.0.77"), peer},
		{"request-renew", unicast, macDeploying, request("", fromClient("10.77.0.50")), peer},
		{"request-renew-wrong", unicast, macDeploying, request("", fromClient("10.77.0.77")), peer},
		{"request-rebind-wrong", direct, macDeploying, request("", fromClient("10.77.0.77")), peer},
		{"request-empty", direct, macDeploying, request(""), peer},

		{"relayed", relay, macDeploying, with(uefiModifiers, relayed("10.77.0.1", circuit)), peer},
		{"relayed-rfc8357", relay, macDeploying, with(uefiModifiers, relayed("10.77.0.1", circuit, sourcePort)), peer},
		{"relayed-listed-relay", relay, macDeploying, with(ipxeModifiers, relayed("192.0.2.1")), elsewhere},
		{"relayed-link-selection", relay, macDeploying, with(ipxeModifiers, relayed("198.51.100.1", linkSelect)), elsewhere},
		{"relayed-unknown-relay", relay, macDeploying, with(uefiModifiers, relayed("198.51.100.1")), peer},
		{"relayed-wrong-address", relay, macDeploying, with(relayed("10.77.0.1", circuit), request("10.77.0.77", toServer("10.77.0.11"))), peer},

		{"decline", direct, macDeploying, mods{dhcpv4.WithMessageType(dhcpv4.MessageTypeDecline), dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 77, 0, 50)))}, peer},
		{"inform", direct, macDeploying, mods{dhcpv4.WithMessageType(dhcpv4.MessageTypeInform)}, peer},
		{"bootp", direct, macDeploying, mods{func(p *dhcpv4.DHCPv4) { p.Options = dhcpv4.Options{} }}, peer},
		{"token-ring", direct, macDeploying, mods{dhcpv4.WithHWType(6)}, peer},
		{"client-id", direct, macDeploying, mods{dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte{1, 2, 3}))}, peer},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := c.ask
			a.packet = discover(t, c.mac, c.mods...)
			golden(t, "dhcp/"+c.name+".txt", show(decide(view, a, c.us)))
		})
	}
}

// TestOfferDelays: the ranks of the peers are 0, 1, 2 in some order.
func TestOfferDelays(t *testing.T) {
	view := newWorld(t).store.View()
	seen := map[time.Duration]bool{}
	for _, id := range []string{"p1", "p2", "p3"} {
		a := ask{packet: discover(t, macDeploying), to: broadcast, iface: addrs("10.77.0.11")}
		d := decide(view, a, us{id: id, own: a.iface})
		seen[d.delay] = true
		a.packet = discover(t, macDeploying, request("10.77.0.50", toServer("10.77.0.11"))...)
		if d := decide(view, a, us{id: id, own: a.iface}); d.reply == nil || d.delay != 0 {
			t.Errorf("an ACK waits %s: %s", d.delay, d.reason)
		}
	}
	for _, want := range []time.Duration{0, rankDelay, 2 * rankDelay} {
		if !seen[want] {
			t.Errorf("no peer offers after %s: %v", want, seen)
		}
	}
}

// FuzzDecide: no bytes from the network may panic, and only known machines
// are answered.
func FuzzDecide(f *testing.F) {
	for _, m := range []mods{uefiModifiers, ipxeModifiers, relayed("10.77.0.1", circuit, sourcePort), request("10.77.0.50")} {
		f.Add(discover(f, macDeploying, m...).ToBytes())
	}
	f.Add([]byte("garbage"))
	view := foreign(newWorld(f)).store.View()
	peer := us{id: "p1", own: addrs("10.77.0.11"), http: anyHTTP, tftp: anyTFTP}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := parseAsk(b, netip.MustParseAddrPort("10.77.0.1:67"))
		if !ok {
			return
		}
		second := a
		a.to, a.iface = broadcast, peer.own
		second.to, second.from, second.second = netip.MustParseAddr("10.88.0.11"), netip.MustParseAddrPort("10.88.0.200:68"), true
		beside := a
		beside.iface = addrs("10.88.0.11")
		for _, a := range []ask{a, second, beside} {
			d := decide(view, a, peer)
			if d.reply == nil {
				continue
			}
			if !Record(view, d.mac).Known {
				t.Fatalf("an unknown machine was answered: %s", d.reply.Summary())
			}
			if _, err := dhcpv4.FromBytes(d.reply.ToBytes()); err != nil {
				t.Fatalf("an answer that cannot be read: %v", err)
			}
			if d.network == "foreign" && !d.reply.YourIPAddr.IsUnspecified() {
				t.Fatalf("an address was given beside a foreign server: %s", d.reply.Summary())
			}
		}
	})
}
