package pxe

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/pin/tftp/v3"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/sim/ipxe"
)

// Loopback addresses of the socket tests: all of 127/8 is local.
const (
	loopPeer    = "127.77.0.11"
	loopRelay   = "127.77.0.1"
	loopMachine = "127.77.0.50"
	deadline    = 10 * time.Second
)

// rig is a running server on loopback and what it reported.
type rig struct {
	*world
	srv   *Server
	addrs Addrs
	stop  func()

	mu     sync.Mutex
	events []*api.JournalEvent
	log    bytes.Buffer
}

func (r *rig) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

func (r *rig) observe(e *api.JournalEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// find waits for an event.
func (r *rig) find(kind, stage, text string) *api.JournalEvent {
	r.t.Helper()
	for end := time.Now().Add(deadline); ; {
		r.mu.Lock()
		for _, e := range r.events {
			if e.GetKind() == kind && e.GetStage() == stage && strings.Contains(e.GetText(), text) {
				r.mu.Unlock()
				return e
			}
		}
		seen := len(r.events)
		r.mu.Unlock()
		if time.Now().After(end) {
			r.t.Fatalf("no event %s/%s with %q among %d: %v", kind, stage, text, seen, r.events)
		}
		time.Sleep(time.Millisecond) // polls a condition
	}
}

func (r *rig) logged() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

// newRig starts a server with the machines of newWorld's kind on 127.77.0.0/24.
func newRig(t *testing.T, change func(*Config)) *rig {
	w := emptyWorld(t, &api.Network{
		Name: provisioning, Cidr: "127.77.0.0/24", RangeStart: loopMachine, RangeEnd: "127.77.0.99",
	}, loopPeer+":7484", "127.77.0.12:7484")
	w.machine(nodeDeploying, macDeploying, api.State_INSPECTING, api.BootTarget_BOOT_RAMDISK, true)
	w.machine(nodeActive, macActive, api.State_MANAGEABLE, api.BootTarget_BOOT_LOCAL, true)
	r := &rig{world: w}
	dir := t.TempDir()
	for name, size := range map[string]int{"vmlinuz": 3 << 20, "initramfs.img": 70000, "snponly.efi": 170001, "undionly.kpxe": 512 * 100, "secret": 10} {
		if err := os.WriteFile(filepath.Join(dir, name), content(name, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := Config{
		Store: w.store, Self: "p1", CADigest: digest, RamdiskDir: dir, IPXEDir: dir,
		Observe: r.observe, Logger: slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Allocate: func(_ context.Context, network, mac string) (netip.Addr, error) {
			if network != provisioning {
				return netip.Addr{}, errs.New(errs.NotFound, "no network %s", network)
			}
			return w.address(mac), nil
		},
		DHCPListen: loopPeer + ":0", TFTPListen: loopPeer + ":0", HTTPListen: loopPeer + ":0",
	}
	if change != nil {
		change(&cfg)
	}
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.srv, r.addrs = srv, srv.Addrs()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	t.Cleanup(r.stop)
	return r
}

func content(name string, size int) []byte {
	return bytes.Repeat([]byte(name+"\n"), size/len(name)+1)[:size]
}

// relay is a DHCP relay on a port of its own, as simulated machines are.
type relay struct {
	r    *rig
	conn *net.UDPConn
}

func newRelay(r *rig) *relay {
	r.t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(loopRelay)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return &relay{r: r, conn: conn}
}

func (l *relay) send(b []byte) {
	l.r.t.Helper()
	if _, err := l.conn.WriteToUDPAddrPort(b, l.r.addrs.DHCP); err != nil {
		l.r.t.Fatal(err)
	}
}

func (l *relay) receive() *dhcpv4.DHCPv4 {
	l.r.t.Helper()
	l.conn.SetReadDeadline(time.Now().Add(deadline))
	buf := make([]byte, 2000)
	n, from, err := l.conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		l.r.t.Fatal(err)
	}
	if from != l.r.addrs.DHCP {
		l.r.t.Errorf("the answer came from %s, not from %s", from, l.r.addrs.DHCP)
	}
	p, err := dhcpv4.FromBytes(buf[:n])
	if err != nil {
		l.r.t.Fatal(err)
	}
	return p
}

var viaRelay = relayed(loopRelay, circuit, sourcePort)

// TestBootOverLoopback is a whole boot: DHCP through a relay, the first stage
// over TFTP, the script and the ramdisk over HTTP.
func TestBootOverLoopback(t *testing.T) {
	r := newRig(t, nil)
	l := newRelay(r)

	// Firmware: no address is allocated yet.
	l.send(discover(t, macDeploying, with(uefiModifiers, viaRelay)...).ToBytes())
	offer := l.receive()
	if offer.MessageType() != dhcpv4.MessageTypeOffer || offer.YourIPAddr.String() != loopMachine || offer.BootFileName != "snponly.efi" {
		t.Fatalf("offer: %s", offer.Summary())
	}
	if got := offer.RelayAgentInfo(); got == nil || string(got.Get(dhcpv4.AgentCircuitIDSubOption)) != "port7" || !got.Has(dhcpv4.RelaySourcePortSubOption) {
		t.Errorf("option 82 was not echoed: %s", offer.Summary())
	}
	l.send(discover(t, macDeploying, with(uefiModifiers, viaRelay, request(loopMachine, toServer(offer.ServerIdentifier().String())))...).ToBytes())
	if ack := l.receive(); ack.MessageType() != dhcpv4.MessageTypeAck || !ack.ServerIPAddr.Equal(net.ParseIP(loopPeer)) {
		t.Fatalf("ack: %s", ack.Summary())
	}
	if got := r.get(t, offer.BootFileName, loopMachine); !bytes.Equal(got, content("snponly.efi", 170001)) {
		t.Fatalf("tftp gave %d bytes", len(got))
	}

	// iPXE.
	l.send(discover(t, macDeploying, with(ipxeModifiers, viaRelay)...).ToBytes())
	offer = l.receive()
	status, script := r.http(t, http.MethodGet, offer.BootFileName, loopMachine, nil)
	if status != http.StatusOK || !strings.Contains(string(script), nonce) {
		t.Fatalf("script: %d %s", status, script)
	}
	m := &vm{up: map[string]bool{loopPeer + ":7484": true}}
	out, err := ipxe.Run(t.Context(), m, string(script), ipxe.Settings{"next-server": offer.ServerIPAddr.String(), "filename": offer.BootFileName})
	if err != nil || !out.Booted {
		t.Fatalf("%+v, %v", out, err)
	}
	for _, path := range []string{pathKernel, pathInitramfs} {
		file := ramdiskFiles[path].file
		want, _ := os.ReadFile(filepath.Join(r.srv.cfg.RamdiskDir, file))
		if status, got := r.http(t, http.MethodGet, r.url(path), loopMachine, nil); status != http.StatusOK || !bytes.Equal(got, want) {
			t.Fatalf("%s: %d, %d bytes", path, status, len(got))
		}
	}
	for _, e := range []struct{ kind, stage, text string }{
		{kindDHCP, stageDHCP, "PXE firmware (UEFI x86-64): offered " + loopMachine + ", boot file snponly.efi"},
		{kindDHCP, stageDHCP, "REQUEST from PXE firmware"},
		{kindTFTP, stageTFTP, "asked for snponly.efi: 170001 bytes"},
		{kindDHCP, stageDHCP, "iPXE (UEFI x86-64): offered"},
		{kindHTTP, stageScript, "script for the ramdisk"},
		{kindHTTP, stageKernel, "3145728 bytes sent"},
		{kindHTTP, stageInitramfs, "70000 bytes sent"},
	} {
		ev := r.find(e.kind, e.stage, e.text)
		if ev.GetNodeId() != nodeDeploying || ev.GetMac() != macDeploying || ev.GetPeer() != "p1" || ev.GetAtMs() == 0 || ev.GetBootNonce() != nonce {
			t.Errorf("event %v", ev)
		}
	}
}

// TestDelayedOffer: an offer that waits for this peer's turn stands on the
// timeline with the moment at which it was asked for.
func TestDelayedOffer(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Self = ranked(c.Store.View().Members(), macDeploying)[1].GetId() })
	r.address(macDeploying)
	l := newRelay(r)
	l.send(discover(t, macDeploying, with(uefiModifiers, viaRelay)...).ToBytes())
	l.receive()
	received := time.Now()
	at := time.UnixMilli(r.find(kindDHCP, stageDHCP, "offered").GetAtMs())
	if ahead := received.Sub(at); ahead < rankDelay || ahead > deadline {
		t.Errorf("the event is %s before the offer, the delay is %s", ahead, rankDelay)
	}
}

func TestStrangersAndGarbage(t *testing.T) {
	r := newRig(t, nil)
	l := newRelay(r)
	l.send(nil)
	l.send([]byte("garbage"))
	l.send(bytes.Repeat([]byte{1}, 300))
	l.send(discover(t, macUnknown, with(uefiModifiers, viaRelay)...).ToBytes())
	big := discover(t, macDeploying, with(uefiModifiers, viaRelay)...).ToBytes()
	l.send(append(big, make([]byte, maxPacket)...)) // longer than any frame
	// Only what comes last is answered.
	p := discover(t, macDeploying, with(ipxeModifiers, viaRelay)...)
	p.TransactionID = dhcpv4.TransactionID{9, 9, 9, 9}
	l.send(p.ToBytes())
	if got := l.receive(); got.TransactionID != p.TransactionID {
		t.Fatalf("answered: %s", got.Summary())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.GetMac() != macDeploying {
			t.Errorf("an event of a stranger: %v", e)
		}
	}
}

func TestNoAddress(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Allocate = func(context.Context, string, string) (netip.Addr, error) {
			return netip.Addr{}, errs.New(errs.NoQuorum, "no leader")
		}
	})
	l := newRelay(r)
	l.send(discover(t, macDeploying, with(uefiModifiers, viaRelay)...).ToBytes())
	r.find(kindDHCP, stageDHCP, "DISCOVER not answered: no address on network prov: no leader")
}

// TestAllocateOnce: a client that repeats itself causes one proposal, and
// others are answered meanwhile.
func TestAllocateOnce(t *testing.T) {
	calls, release := make(chan string, 10), make(chan struct{})
	var r *rig
	r = newRig(t, func(c *Config) {
		c.Allocate = func(ctx context.Context, _, mac string) (netip.Addr, error) {
			calls <- mac
			select {
			case <-release:
			case <-ctx.Done():
				return netip.Addr{}, ctx.Err()
			}
			return r.address(mac), nil
		}
	})
	r.address(macActive)
	l := newRelay(r)
	ask := discover(t, macDeploying, with(uefiModifiers, viaRelay)...).ToBytes()
	l.send(ask)
	<-calls
	l.send(ask)
	r.find(kindDHCP, stageDHCP, "is being allocated")
	l.send(discover(t, macActive, viaRelay...).ToBytes())
	if got := l.receive(); got.ClientHWAddr.String() != macActive {
		t.Fatalf("answered: %s", got.Summary())
	}
	close(release)
	if got := l.receive(); got.ClientHWAddr.String() != macDeploying {
		t.Fatalf("answered: %s", got.Summary())
	}
	if len(calls) != 0 {
		t.Error("more than one proposal")
	}
}

func (r *rig) url(path string) string { return "http://" + r.addrs.HTTP.String() + path }

// get reads a file over TFTP from an address.
func (r *rig) get(t *testing.T, name, from string) []byte {
	t.Helper()
	b, err := r.tryGet(t, name, from)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (r *rig) tryGet(t *testing.T, name, from string) ([]byte, error) {
	t.Helper()
	c, err := tftp.NewClient(r.addrs.TFTP.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetLocalAddr(from); err != nil {
		t.Fatal(err)
	}
	c.SetBlockSize(1468)
	c.RequestTSize(true)
	wt, err := c.Receive(name, "octet")
	if err != nil {
		return nil, err
	}
	if size, ok := wt.(tftp.IncomingTransfer).Size(); !ok || size == 0 {
		t.Error("no size was sent")
	}
	var b bytes.Buffer
	_, err = wt.WriteTo(&b)
	return b.Bytes(), err
}

// http makes one request from an address; redirects are not followed.
func (r *rig) http(t *testing.T, method, url, from string, header http.Header) (int, []byte) {
	t.Helper()
	res, body := r.request(t, method, url, from, header)
	return res.StatusCode, body
}

func (r *rig) request(t *testing.T, method, url, from string, header http.Header) (*http.Response, []byte) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DisableCompression: true,
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, body
}
