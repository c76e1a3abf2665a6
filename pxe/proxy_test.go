package pxe

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/sim/ipxe"
)

// foreign adds networks to the test world that are not ours alone: 10.88.0.0/24
// has a DHCP server of its own, 10.99.0.0/24 is left alone, and machines of
// 10.66.0.0/24 reach p1 at 172.16.0.11 only.
func foreign(w *world) *world {
	for _, n := range []*api.Network{
		{Name: "foreign", Cidr: "10.88.0.0/24", Mode: api.DHCPMode_DHCP_PROXY, Relays: []string{"198.51.100.7"}},
		{Name: "alone", Cidr: "10.99.0.0/24", Mode: api.DHCPMode_DHCP_OFF},
		{
			Name: "far", Cidr: "10.66.0.0/24", RangeStart: "10.66.0.50", RangeEnd: "10.66.0.60",
			Peers: []*api.PeerAddress{{Peer: "p1", Address: "172.16.0.11"}, {Peer: "p2", Address: "172.16.0.12"}},
		},
	} {
		w.do(&api.Op{Op: &api.Op_NetworkSet{NetworkSet: &api.NetworkSet{Network: n}}})
	}
	w.do(&api.Op{Op: &api.Op_AddressAllocate{AddressAllocate: &api.AddressAllocate{Network: "far", Mac: macDeploying}}})
	return w
}

func guid() dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, append([]byte{0}, []byte("0123456789abcdef")...)))
}

func TestDecideProxy(t *testing.T) {
	view := foreign(newWorld(t)).store.View()
	peer := us{id: "p1", own: addrs("10.77.0.11", "10.88.0.11"), http: anyHTTP, tftp: anyTFTP}
	proxyPeer, offPeer, cutOff := peer, peer, peer
	proxyPeer.mode, offPeer.mode, cutOff.stale = api.DHCPMode_DHCP_PROXY, api.DHCPMode_DHCP_OFF, true
	direct := ask{from: netip.MustParseAddrPort("0.0.0.0:68"), to: broadcast, iface: addrs("10.88.0.11")}
	ours := ask{from: direct.from, to: broadcast, iface: addrs("10.77.0.11")}
	alone := ask{from: direct.from, to: broadcast, iface: addrs("10.99.0.11")}
	second := ask{from: netip.MustParseAddrPort("10.88.0.200:68"), to: netip.MustParseAddr("10.88.0.11"), second: true}
	spoofed := second
	spoofed.from = netip.MustParseAddrPort("10.88.0.66:68")
	elsewhere := second
	elsewhere.from = netip.MustParseAddrPort("203.0.113.9:68")
	atBroadcast := second
	atBroadcast.to = broadcast
	full := ask{from: netip.MustParseAddrPort("10.77.0.50:68"), to: netip.MustParseAddr("10.77.0.11"), second: true}
	relay := ask{from: netip.MustParseAddrPort("198.51.100.7:67"), to: netip.MustParseAddr("10.88.0.11")}
	farRelay := ask{from: netip.MustParseAddrPort("10.66.0.1:67"), to: netip.MustParseAddr("172.31.0.1")}
	from := func(ip string) mods { return request("", fromClient(ip)) }
	for _, c := range []struct {
		name string
		ask  ask
		mac  string
		mods mods
		us   us
	}{
		{"discover-bios", direct, macDeploying, with(biosModifiers, mods{guid()}), peer},
		{"discover-uefi", direct, macDeploying, uefiModifiers, peer},
		{"discover-http", direct, macDeploying, httpModifiers, peer},
		{"discover-ipxe", direct, macDeploying, ipxeModifiers, peer},
		{"discover-agent", direct, macDeploying, nil, peer},
		{"discover-local", direct, macActive, biosModifiers, peer},
		{"discover-nothing", direct, macOther, uefiModifiers, peer},
		{"discover-unknown", direct, macUnknown, uefiModifiers, peer},
		{"discover-cut-off", direct, macActive, uefiModifiers, cutOff},
		{"discover-relayed", relay, macDeploying, with(biosModifiers, relayed("198.51.100.7", circuit)), peer},
		{"discover-proxy-peer", ours, macDeploying, ipxeModifiers, proxyPeer},
		{"discover-off-peer", direct, macDeploying, ipxeModifiers, offPeer},
		{"discover-off-network", alone, macDeploying, ipxeModifiers, peer},
		{"request-broadcast", direct, macDeploying, with(ipxeModifiers, request("10.88.0.200", toServer("10.88.0.1"))), peer},
		{"request-broadcast-to-us", direct, macDeploying, with(ipxeModifiers, request("10.88.0.200")), peer},
		{"second-ipxe", second, macDeploying, with(ipxeModifiers, from("10.88.0.200")), peer},
		{"second-ipxe-no-ciaddr", second, macDeploying, with(ipxeModifiers, request("")), peer},
		{"second-ipxe-local", second, macActive, with(ipxeModifiers, from("10.88.0.200")), peer},
		{"second-uefi", second, macDeploying, with(uefiModifiers, from("10.88.0.200")), peer},
		{"second-other-server", second, macDeploying, with(ipxeModifiers, from("10.88.0.200"), mods{toServer("10.88.0.12")}), peer},
		{"second-spoofed", spoofed, macDeploying, with(ipxeModifiers, from("10.88.0.200")), peer},
		{"second-elsewhere", elsewhere, macDeploying, with(ipxeModifiers, from("203.0.113.9")), peer},
		{"second-broadcast", atBroadcast, macDeploying, with(ipxeModifiers, from("10.88.0.200")), peer},
		{"second-full-network", full, macDeploying, with(ipxeModifiers, from("10.77.0.50")), peer},
		{"second-cut-off", second, macActive, with(ipxeModifiers, from("10.88.0.200")), cutOff},
		{"second-discover", second, macDeploying, ipxeModifiers, peer},
		{"second-unknown", second, macUnknown, with(ipxeModifiers, from("10.88.0.200")), peer},
		{"second-plain", second, macDeploying, from("10.88.0.200"), peer},
		{"far-relayed", farRelay, macDeploying, with(ipxeModifiers, relayed("10.66.0.1", circuit)), peer},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := c.ask
			a.packet = discover(t, c.mac, c.mods...)
			d := decide(view, a, c.us)
			golden(t, "proxy/"+c.name+".txt", show(d))
			if d.reply != nil && d.network == "foreign" && !d.reply.YourIPAddr.IsUnspecified() {
				t.Error("an address was given on a foreign server's network")
			}
			if strings.Contains(d.text, keyParam+"=") {
				t.Errorf("the timeline shows the key: %s", d.text)
			}
		})
	}
}

// TestObserved: a peer learns for its timelines what a foreign server gave.
func TestObserved(t *testing.T) {
	view := foreign(newWorld(t)).store.View()
	a := ask{
		packet: discover(t, macDeploying, with(ipxeModifiers, request("10.88.0.200"))...),
		to:     broadcast, iface: addrs("10.88.0.11"),
	}
	d := decide(view, a, us{id: "p1"})
	if d.reply != nil || d.observed != netip.MustParseAddr("10.88.0.200") {
		t.Fatalf("reply %v, observed %v", d.reply, d.observed)
	}
	s := &seen{at: map[netip.Addr]string{}}
	s.saw(d.observed, d.mac)
	if m := s.machine(view, d.observed); m.nodeID != nodeDeploying {
		t.Errorf("got %+v", m)
	}
	for i := range 3 * maxSeen {
		s.saw(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), macActive)
	}
	if len(s.at) > maxSeen {
		t.Errorf("%d addresses are remembered", len(s.at))
	}
}

// TestBootKey: the script is opened by the key of this boot, this MAC and this
// address, at any peer, and by nothing else.
func TestBootKey(t *testing.T) {
	w := foreign(newWorld(t))
	cfg := Config{Store: w.store, Self: "p1", CADigest: digest}
	h := (&httpService{cfg: cfg, log: slog.New(slog.DiscardHandler), line: &timeline{}, seen: &seen{at: map[netip.Addr]string{}}}).handler()
	at := netip.MustParseAddr("10.88.0.200")
	good := bootKey(nonce, macDeploying, at)
	for _, c := range []struct {
		name, query, from string
		want              int
	}{
		{"the key", "?key=" + good, "10.88.0.200", 200},
		{"the key and an index", "?key=" + good + "&index=1", "10.88.0.200", 200},
		{"no key", "", "10.88.0.200", 403},
		{"another address", "?key=" + good, "10.88.0.201", 403},
		{"another MAC's key", "?key=" + bootKey(nonce, macActive, at), "10.88.0.200", 403},
		{"an earlier boot's key", "?key=" + bootKey("ff112233445566778899aabbccddeeff", macDeploying, at), "10.88.0.200", 403},
		{"half a key", "?key=" + good[:8], "10.88.0.200", 403},
		{"the nonce itself", "?key=" + nonce, "10.88.0.200", 403},
		{"an address of ours", "", "10.77.0.50", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, pathBoot+macDeploying+c.query, nil)
			r.RemoteAddr = net.JoinHostPort(c.from, "1234")
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			if rec.Code != c.want || (c.want == 200) != strings.Contains(rec.Body.String(), nonce) {
				t.Errorf("%d, want %d:\n%s", rec.Code, c.want, rec.Body)
			}
		})
	}
}

// TestPeerAddresses: machines of a network are told the addresses by which they
// reach the peers, in the script and on the kernel line.
func TestPeerAddresses(t *testing.T) {
	v := foreign(newWorld(t)).store.View()
	rec := RecordOn(v, macDeploying, v.Network("far"))
	script := string(rec.Script(testLine))
	for _, want := range []string{"172.16.0.11:7483", "172.16.0.12:7483", "10.77.0.13:7483", "http://172.16.0.11:7484", "http://10.77.0.13:7484"} {
		if !strings.Contains(script, want) {
			t.Errorf("the script lacks %s:\n%s", want, script)
		}
	}
	if strings.Contains(script, "10.77.0.11") {
		t.Errorf("the script names an address that the machine cannot reach:\n%s", script)
	}
}

// TestKernelArgs: a node's arguments stand after the site's, and a line that
// would be too long loses peers rather than its end.
func TestKernelArgs(t *testing.T) {
	rec := BootRecord{NodeID: nodeDeploying, Nonce: nonce, MAC: macDeploying, KernelArgs: []string{"nomodeset", "console=ttyS1"}}
	for i := range maxLinePeers {
		rec.AgentPeers = append(rec.AgentPeers, fmt.Sprintf("%s%d.example.net:7483", strings.Repeat("a", 150), i))
	}
	line := rec.KernelLine(LineConfig{CADigest: digest, KernelArgs: []string{"site=1"}})
	if len(line) > maxLine || !strings.HasSuffix(line, " site=1 nomodeset console=ttyS1") || !strings.Contains(line, rec.AgentPeers[0]) {
		t.Errorf("%d characters: %s", len(line), line)
	}
	w := emptyWorld(t, &api.Network{Name: provisioning, Cidr: "10.77.0.0/24", RangeStart: "10.77.0.50", RangeEnd: "10.77.0.99"}, "10.77.0.11:7484")
	w.machine(nodeDeploying, macDeploying, api.State_ENROLL, api.BootTarget_BOOT_RAMDISK, true)
	for doc, target := range map[string]api.BootTarget{
		`{"kernel_args":"nomodeset"}`:        api.BootTarget_BOOT_RAMDISK,
		`{"kernel_args":"a=${net0/mac}"}`:    api.BootTarget_BOOT_NOTHING,
		`{"console":"ttyS0\nchain http://"}`: api.BootTarget_BOOT_NOTHING,
	} {
		w.do(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{
			NodeId: nodeDeploying, Fields: []string{"properties"}, Node: &api.Node{Properties: []byte(doc)},
		}}})
		if got := Record(w.store.View(), macDeploying); got.Target != target {
			t.Errorf("%s: %v, %s", doc, got.Target, got.Reason)
		}
	}
}

// TestProxyOverLoopback is the second question over sockets, and the script
// behind its answer, from the answering address only.
func TestProxyOverLoopback(t *testing.T) {
	r := newRig(t, func(c *Config) { c.DHCPMode, c.ProxyListen = api.DHCPMode_DHCP_PROXY, loopPeer+":0" })
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP("127.77.0.201")})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p := discover(t, macDeploying, with(ipxeModifiers, request("", fromClient("127.77.0.201")))...)
	if _, err := conn.WriteToUDPAddrPort(p.ToBytes(), r.addrs.Proxy); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2000)
	n, from, err := conn.ReadFromUDPAddrPort(buf)
	if err != nil || from != r.addrs.Proxy {
		t.Fatalf("from %s: %v\n%s", from, err, r.logged())
	}
	ack, err := dhcpv4.FromBytes(buf[:n])
	if err != nil || ack.MessageType() != dhcpv4.MessageTypeAck {
		t.Fatalf("%v, %v", ack, err)
	}
	if code, body := r.http(t, http.MethodGet, ack.BootFileName, "127.77.0.201", nil); code != 200 || !strings.Contains(string(body), nonce) {
		t.Errorf("%s: %d\n%s", ack.BootFileName, code, body)
	}
	if code, _ := r.http(t, http.MethodGet, ack.BootFileName, "127.77.0.202", nil); code != 403 {
		t.Errorf("another address: %d", code)
	}
	// The ramdisk that it fetches next is on its timeline.
	if code, _ := r.http(t, http.MethodGet, "http://"+r.addrs.HTTP.String()+pathInitramfs, "127.77.0.201", nil); code != 200 {
		t.Errorf("initramfs: %d", code)
	}
	r.find(kindHTTP, stageInitramfs, "from 127.77.0.201")
}

// TestScriptBesideForeign: iPXE keeps what the proxy said apart from what the
// foreign server said, and the script asks the proxy's peer.
func TestScriptBesideForeign(t *testing.T) {
	rec := Record(newWorld(t).store.View(), macDeploying)
	m := &vm{up: map[string]bool{}}
	m.dhcp = func() (ipxe.Settings, error) { return ipxe.Settings{}, nil }
	m.script = func(url string) (string, error) {
		if url != "http://10.77.0.12:7484/boot/x?key=y" {
			t.Errorf("chains to %s", url)
		}
		return "#!ipxe\nexit 1\n", nil
	}
	if _, err := ipxe.Run(t.Context(), m, string(rec.Script(testLine)), ipxe.Settings{
		"next-server": "10.77.0.1", "filename": "pxelinux.0",
		"proxydhcp/next-server": "10.77.0.12", "proxydhcp/filename": "http://10.77.0.12:7484/boot/x?key=y",
	}); err != nil {
		t.Fatal(err)
	}
	if len(m.tried) != 3 || !strings.HasPrefix(m.tried[0], "http://10.77.0.12:7484/") {
		t.Errorf("tried %v", m.tried)
	}
}

// TestDescribe: what an operator is shown holds no nonce, and the digests of
// the files as they are now.
func TestDescribe(t *testing.T) {
	r := newRig(t, nil)
	r.address(macDeploying)
	rep, err := r.srv.Describe(nodeDeploying)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(rep.String(), nonce) {
		t.Errorf("the nonce is shown: %v", rep)
	}
	port := rep.GetPorts()[0]
	if port.GetTarget() != api.BootTarget_BOOT_RAMDISK || !port.GetNonce() || !strings.Contains(port.GetScript(), "set line "+port.GetKernelLine()) ||
		port.GetAddresses()[0].GetAddress() != loopMachine || rep.GetDhcp() != "full" || rep.GetPeer() != "p1" {
		t.Errorf("got %v", rep)
	}
	files := map[string]*api.BootFile{}
	for _, f := range rep.GetFiles() {
		files[f.GetName()] = f
	}
	sum := sha256.Sum256(content("snponly.efi", 170001))
	if f := files["snponly.efi"]; f.GetSize() != 170001 || f.GetSha256() != hex.EncodeToString(sum[:]) || !strings.Contains(f.GetUsedBy(), "UEFI x86-64 PXE") {
		t.Errorf("snponly.efi: %v", f)
	}
	if f := files["snponly-arm64.efi"]; f.GetProblem() != "is missing" {
		t.Errorf("snponly-arm64.efi: %v", f)
	}
	if err := os.WriteFile(filepath.Join(r.srv.cfg.IPXEDir, "snponly.efi"), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if rep, err = r.srv.Describe(nodeDeploying); err != nil {
		t.Fatal(err)
	}
	for _, f := range rep.GetFiles() {
		if f.GetName() == "snponly.efi" && f.GetSize() != 5 {
			t.Errorf("after a change: %v", f)
		}
	}
	if _, err := r.srv.Describe("nobody"); !errors.Is(err, errs.NotFound) {
		t.Errorf("nobody: %v", err)
	}
}
