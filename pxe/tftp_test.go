package pxe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pin/tftp/v3"
	"golang.org/x/net/ipv4"
	"golang.org/x/time/rate"

	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
)

// bareTFTP is a service without a socket.
func bareTFTP(t *testing.T) *tftpService {
	t.Helper()
	s, err := newTFTP(Config{Clock: clock.System{}}, &timeline{}, &programFiles{}, &seen{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTFTPNames(t *testing.T) {
	r := newRig(t, nil)
	r.address(macDeploying)
	for _, name := range []string{"/snponly.efi", "undionly.kpxe"} {
		if got := r.get(t, name, loopMachine); len(got) < 1000 {
			t.Errorf("%s: %d bytes", name, len(got))
		}
	}
	for _, name := range []string{"", "secret", "../secret", "/../snponly.efi", "./snponly.efi", "snponly.efi/", "//snponly.efi",
		"/etc/passwd", "ipxe.efi", "vmlinuz", strings.Repeat("a", 400), "boot/" + macDeploying} {
		if b, err := r.tryGet(t, name, loopMachine); err == nil {
			t.Errorf("%q gave %d bytes", name, len(b))
		}
	}
	r.find(kindTFTP, stageTFTP, `asked for "../secret": no such boot program`)
	r.find(kindTFTP, stageTFTP, `asked for "ipxe.efi": boot program ipxe.efi is not installed`)
	c, err := tftp.NewClient(r.addrs.TFTP.String())
	if err != nil {
		t.Fatal(err)
	}
	c.SetTimeout(time.Second)
	if rf, err := c.Send("snponly.efi", "octet"); err == nil {
		if _, err = rf.ReadFrom(strings.NewReader("x")); err == nil {
			t.Error("a write was accepted")
		}
	}
}

// TestStopDuringTransfer: a client that vanishes does not hold up a stop for
// longer than its timeouts, and a live one is cut at its next block.
func TestStopDuringTransfer(t *testing.T) {
	r := newRig(t, nil)
	r.address(macDeploying)
	c, err := tftp.NewClient(r.addrs.TFTP.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetLocalAddr(loopMachine); err != nil {
		t.Fatal(err)
	}
	wt, err := c.Receive("snponly.efi", "octet")
	if err != nil {
		t.Fatal(err)
	}
	_, err = wt.WriteTo(writerFunc(func(p []byte) (int, error) {
		go r.stop()
		return len(p), nil
	}))
	if err == nil {
		t.Error("the transfer was finished although the server stopped")
	}
	r.stop()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestPortInUse(t *testing.T) {
	r := newRig(t, nil)
	base := r.srv.cfg
	for name, set := range map[string]func(*Config){
		"dhcp": func(c *Config) { c.DHCPListen = r.addrs.DHCP.String() },
		"tftp": func(c *Config) { c.TFTPListen = r.addrs.TFTP.String() },
		"http": func(c *Config) { c.HTTPListen = r.addrs.HTTP.String() },
	} {
		cfg := base
		set(&cfg)
		if _, err := New(cfg); !errors.Is(err, errs.Exists) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValidate(t *testing.T) {
	good := Config{Store: newWorld(t).store, Self: "p1", CADigest: digest}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for field, bad := range map[string]func(*Config){
		"Store":      func(c *Config) { c.Store = nil },
		"Self":       func(c *Config) { c.Self = "" },
		"CADigest":   func(c *Config) { c.CADigest = "xyz" },
		"DHCPListen": func(c *Config) { c.DHCPListen = "[::1]:67" },
		"TFTPListen": func(c *Config) { c.TFTPListen = "host:69" },
		"HTTPListen": func(c *Config) { c.HTTPListen = "80" },
		"KernelArgs": func(c *Config) { c.KernelArgs = []string{"quiet", "a ${b}"} },
		"Addresses":  func(c *Config) { c.Addresses = addrs("::1") },
	} {
		c := good
		bad(&c)
		if err := c.Validate(); errs.SubjectOf(err) != field || !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", field, err)
		}
	}
	srv, err := New(good) // all off
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := srv.Run(ctx); err != nil || srv.Addrs() != (Addrs{}) {
		t.Errorf("%v, %+v", err, srv.Addrs())
	}
}

// idle waits until no transfer is left.
func (s *tftpService) idle(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(deadline); ; {
		s.slots.mu.Lock()
		total, hosts := s.slots.answered+len(s.slots.halfOpen), len(s.slots.byHost)
		s.slots.mu.Unlock()
		if total == 0 && hosts == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d transfers of %d hosts are left", total, hosts)
		}
		_ = clock.Pause(t.Context(), 10*time.Millisecond)
	}
}

// TestNoAmplification: a request for a file in another's name makes us send one
// small block a few times, and nothing more; then it is forgotten.
func TestNoAmplification(t *testing.T) {
	t.Parallel()
	for name, rrq := range map[string]string{
		"plain":   "\x00\x01snponly.efi\x00octet\x00",
		"options": "\x00\x01snponly.efi\x00octet\x00blksize\x0065464\x00tsize\x000\x00timeout\x00255\x00windowsize\x0065535\x00",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(loopMachine)})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := conn.WriteToUDPAddrPort([]byte(rrq), r.addrs.TFTP); err != nil {
				t.Fatal(err)
			}
			packets, size := 0, 0
			buf := make([]byte, 70000)
			// Half a second after the time for an acknowledgement has passed.
			for end := time.Now().Add((tftpRetries+1)*tftpTimeout + tftpTimeout/2); ; {
				if err := conn.SetReadDeadline(end); err != nil {
					t.Fatal(err)
				}
				n, _, err := conn.ReadFromUDPAddrPort(buf)
				if err != nil {
					break
				}
				packets, size = packets+1, size+n
				if got := string(buf[2:n]); binary.BigEndian.Uint16(buf) == opOAck && !strings.Contains(got, "blksize\x001468\x00") {
					t.Errorf("options %q were accepted", got)
				}
			}
			if most := tftpRetries + 1; packets == 0 || packets > most || size > most*516 {
				t.Errorf("%d packets of %d bytes for a request of %d", packets, size, len(rrq))
			}
			r.srv.tftp.idle(t)
		})
	}
}

// TestTFTPFlood: requests in the names of thousands of hosts are answered with
// no more than what the bounds allow, whatever they ask for.
func TestTFTPFlood(t *testing.T) {
	t.Parallel()
	const hosts = 10000
	for name, c := range map[string]struct {
		packet string
		first  float64 // packets that may come at once
		more   float64 // and in each second
		size   float64 // of the largest
	}{
		"nothing we know": {"\x00\x05\x00\x00x\x00", 0, 0, 0},
		"no such file":    {"\x00\x01x\x00octet\x00", refusedBurst, refusedPerSecond, 64},
		"a write":         {"\x00\x02snponly.efi\x00octet\x00", refusedBurst, refusedPerSecond, 64},
		"a file":          {"\x00\x01snponly.efi\x00octet\x00", unansweredBurst, unansweredPerSecond, 516},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			conn, err := net.ListenUDP("udp4", &net.UDPAddr{})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			pc := ipv4.NewPacketConn(conn)
			start := time.Now()
			for i := range hosts {
				cm := &ipv4.ControlMessage{Src: net.IPv4(127, 94, byte(i>>8), byte(i))}
				if _, err := pc.WriteTo([]byte(c.packet), cm, net.UDPAddrFromAddrPort(r.addrs.TFTP)); err != nil {
					t.Fatal(err)
				}
			}
			packets, size := 0, 0
			buf := make([]byte, 70000)
			for {
				wait := 300 * time.Millisecond // shorter than the time until a block is sent again
				if packets == 0 && c.first > 0 {
					wait = deadline
				}
				if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
					t.Fatal(err)
				}
				n, _, err := conn.ReadFromUDPAddrPort(buf)
				if err != nil {
					break
				}
				packets, size = packets+1, size+n
				if time.Since(start) > deadline {
					t.Fatal("there is no end of packets")
				}
			}
			most := c.first + c.more*time.Since(start).Seconds()
			t.Logf("%d packets of %d bytes for %d of %d bytes in %s", packets, size, hosts, hosts*len(c.packet), time.Since(start))
			if float64(packets) > most || float64(size) > most*c.size {
				t.Errorf("%d packets of %d bytes, no more than %.0f are allowed", packets, size, most)
			}
			if c.first > 0 && packets == 0 {
				t.Error("nothing was answered at all")
			}
			if c.size < 500 && size > hosts*len(c.packet) {
				t.Errorf("%d bytes for %d", size, hosts*len(c.packet))
			}
			if b := r.get(t, "snponly.efi", loopMachine); c.size < 500 && len(b) == 0 {
				t.Error("nobody is served after it")
			}
		})
	}
}

// TestTFTPRate: a host that asks without end is not answered, others are, and
// the names of others do not help it.
func TestTFTPRate(t *testing.T) {
	s := bareTFTP(t)
	greedy := netip.MustParseAddr("10.0.0.1")
	ask := func(host netip.Addr) error {
		n, err := s.enter(host, machine{}, func() { t.Error("a transfer gave way") })
		if err == nil {
			n.leave()
		}
		return err
	}
	refused := 0
	for range 2 * tftpPerHost.Burst {
		if err := ask(greedy); errors.Is(err, errs.Busy) {
			refused++
		}
	}
	if refused < tftpPerHost.Burst-10 {
		t.Errorf("%d of %d were refused", refused, 2*tftpPerHost.Burst)
	}
	unlucky := 0
	for i := range 1 << 8 {
		a := netip.AddrFrom4([4]byte{10, 1, 0, byte(i)})
		if ask(a) != nil {
			unlucky++ // the same two counters: one host in 16 million
		}
	}
	if unlucky > 1 {
		t.Errorf("%d other hosts were refused", unlucky)
	}
}

// TestNegotiate: options of RFC 2348 and 2349; what is not understood is left out.
func TestNegotiate(t *testing.T) {
	for options, want := range map[string]struct {
		block  int
		accept string
	}{
		"":                                     {512, ""},
		"blksize\x001468\x00":                  {1468, "blksize\x001468\x00"},
		"BLKSIZE\x009000\x00":                  {1468, "blksize\x001468\x00"},
		"blksize\x00512\x00":                   {512, "blksize\x00512\x00"},
		"blksize\x00511\x00":                   {512, ""},
		"blksize\x008\x00":                     {512, ""},
		"blksize\x00-5\x00tsize\x000\x00":      {512, "tsize\x004321\x00"},
		"blksize\x00600\x00blksize\x00700\x00": {600, "blksize\x00600\x00"},
		"tsize\x000\x00blksize\x001024\x00multicast\x00\x00": {1024, "tsize\x004321\x00blksize\x001024\x00"},
		"blksize\x0065465\x00":                               {512, ""},
		"windowsize\x0016\x00timeout\x001\x00":               {512, ""},
		"blksize":                                            {512, ""},
	} {
		r, ok := parseTFTP([]byte("\x00\x01a\x00octet\x00" + options))
		if !ok {
			t.Fatalf("%q is no request", options)
		}
		block, accept := r.negotiate(4321, tftpBlock)
		if want.accept != "" {
			want.accept = "\x00\x06" + want.accept
		}
		if block != want.block || string(accept) != want.accept {
			t.Errorf("%q: %d %q", options, block, accept)
		}
	}
}

// TestTFTPBlocks: files that end with a block, before it and after it, in
// blocks of several sizes.
func TestTFTPBlocks(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for i, c := range []struct{ size, block int }{{0, 512}, {1, 512}, {511, 512}, {512, 512}, {513, 512}, {2936, 1468}, {2937, 1468}} {
		want := content("ipxe.efi", c.size)
		if err := os.WriteFile(filepath.Join(r.srv.cfg.IPXEDir, "ipxe.efi"), want, 0o600); err != nil {
			t.Fatal(err)
		}
		r.srv.tftp.programs.mu.Lock()
		clear(r.srv.tftp.programs.by) // two files of one moment may look alike
		r.srv.tftp.programs.mu.Unlock()
		n, err := tftpRead(r.addrs.TFTP, netip.AddrFrom4([4]byte{127, 95, 0, byte(i)}), "ipxe.efi", c.block, deadline)
		if err != nil || n != c.size {
			t.Errorf("%d of %d bytes in blocks of %d: %v", n, c.size, c.block, err)
		}
	}
}

// TestTFTPLosses: a lost block is sent again, old acknowledgements and what
// others send change nothing.
func TestTFTPLosses(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(loopMachine)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	other, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(loopMachine)})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := conn.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.WriteToUDPAddrPort([]byte("\x00\x01snponly.efi\x00octet\x00"), r.addrs.TFTP); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	buf := make([]byte, 600)
	seen := map[uint16]int{}
	for {
		n, at, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			t.Fatal(err)
		}
		block := binary.BigEndian.Uint16(buf[2:])
		seen[block]++
		ack := func(c *net.UDPConn, n uint16) {
			if _, err := c.WriteToUDPAddrPort(binary.BigEndian.AppendUint16([]byte{0, opAck}, n), at); err != nil {
				t.Error(err)
			}
		}
		if seen[block] > 1 && block != 3 {
			t.Errorf("block %d was sent %d times", block, seen[block])
		}
		if block == 3 && seen[block] == 1 {
			ack(conn, 2)  // again
			ack(other, 3) // of another
			continue      // the answer to it is lost
		}
		got.Write(buf[4:n])
		ack(conn, block)
		ack(conn, block)
		if n < 516 {
			break
		}
	}
	if want := r.get(t, "snponly.efi", loopMachine); !bytes.Equal(got.Bytes(), want) || seen[3] != 2 {
		t.Errorf("%d bytes of %d, block 3 came %d times", got.Len(), len(want), seen[3])
	}
	r.srv.tftp.idle(t)
}

// FuzzTFTP sends arbitrary requests: the server goes on, and gives nothing out
// but what is in its table.
func FuzzTFTP(f *testing.F) {
	for _, s := range []string{
		"\x00\x01snponly.efi\x00octet\x00", "\x00\x01../secret\x00octet\x00blksize\x001468\x00", "\x00\x02x\x00octet\x00",
		"\x00\x01", "\x00\x01a\x00netascii\x00tsize\x00-1\x00", "\x00\x05\x00\x00x\x00",
	} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("the secret"), 0o600); err != nil {
		f.Fatal(err)
	}
	srv, err := New(Config{Store: newWorld(f).store, Self: "p1", CADigest: digest, IPXEDir: filepath.Join(dir, "sub"), TFTPListen: loopPeer + ":0"})
	if err != nil {
		f.Fatal(err)
	}
	srv.tftp.refused.SetLimit(rate.Inf) // every input waits for an answer
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	f.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.Error(err)
		}
	})
	at, n := srv.Addrs().TFTP, atomic.Uint32{}
	f.Fuzz(func(t *testing.T, b []byte) {
		// Each from another host: one host is soon told to wait.
		i := n.Add(1)
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 91, byte(i>>8), byte(i))})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if len(b) > 1400 {
			return
		}
		if _, err := conn.WriteToUDPAddrPort(b, at); err != nil {
			return // larger than the kernel takes, or empty
		}
		ask := []byte("\x00\x01snponly.efi\x00octet\x00")
		if _, err := conn.WriteToUDPAddrPort(ask, at); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(deadline)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 2000)
		for {
			n, _, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				t.Fatalf("no answer after %q: %v", b, err)
			}
			if got := string(buf[:n]); strings.Contains(got, "the secret") {
				t.Fatalf("%q gave %q", b, got)
			} else if strings.Contains(got, "is not installed") {
				return
			}
		}
	})
}

// answeredTransfer is a transfer to a client on loopback that acknowledges
// every block. seen is called for each. end stops the client and waits for it.
func answeredTransfer(t *testing.T, passed func() time.Duration, block int, seen func(data []byte)) (tr *transfer, end func()) {
	t.Helper()
	loop := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 0)
	client, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(loop))
	if err != nil {
		t.Fatal(err)
	}
	place, err := newSlots(passed).enter(loop.Addr(), false, func() {})
	if err != nil {
		t.Fatal(err)
	}
	tr, err = newTransfer(t.Context(), place, loop, netip.MustParseAddrPort(client.LocalAddr().String()))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf, last := make([]byte, 4+block), -1
		for {
			n, from, err := client.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			// A copy is acknowledged, too, but counts once.
			if now := int(binary.BigEndian.Uint16(buf[2:])); now != last {
				last = now
				seen(buf[4:n])
			}
			if _, err := client.WriteToUDPAddrPort([]byte{0, opAck, buf[2], buf[3]}, from); err != nil {
				return
			}
		}
	}()
	return tr, func() {
		client.Close()
		<-done
		tr.conn.Close()
	}
}

// A client that answers every block, but takes its time, ends with the time of
// a whole transfer and without another packet.
func TestTFTPTransferEnds(t *testing.T) {
	const each = 10 * time.Second // that a block takes
	var passed atomic.Int64
	var blocks int
	tr, end := answeredTransfer(t, func() time.Duration { return time.Duration(passed.Load()) }, plainBlock, func([]byte) {
		blocks++
		passed.Add(int64(each))
	})
	sent, err := tr.file(make([]byte, 1<<20), plainBlock, nil)
	end()
	if most := int(tftpWhole/each) + 1; !errors.Is(err, errTooSlow) || blocks != most || sent != most*plainBlock {
		t.Errorf("%d blocks, not %d; %d bytes, %v", blocks, most, sent, err)
	}
}

// More blocks than their numbers count.
func TestTFTPNumbersBeginAnew(t *testing.T) {
	want := content("ipxe.efi", 70000*8)
	var got bytes.Buffer
	tr, end := answeredTransfer(t, func() time.Duration { return 0 }, 8, func(data []byte) { got.Write(data) })
	sent, err := tr.file(want, 8, nil)
	end()
	if err != nil || sent != len(want) || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%d of %d bytes, %d arrived: %v", sent, len(want), got.Len(), err)
	}
}
