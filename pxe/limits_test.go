package pxe

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// TestUnknownFlood: 10 000 unknown machines cost no memory, hardly a line in
// the log, nothing on a timeline, and known machines are served meanwhile.
func TestUnknownFlood(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	l := newRelay(r)
	flood := newRelay(r)
	for i := range 10000 {
		mac := fmt.Sprintf("02:aa:bb:%02x:%02x:%02x", byte(i>>16), byte(i>>8), byte(i))
		flood.send(discover(t, mac, with(uefiModifiers, viaRelay)...).ToBytes())
		if i%2500 == 0 {
			if !l.offered(discover(t, macDeploying, with(uefiModifiers, viaRelay)...)) {
				t.Fatalf("no offer after %d strangers", i)
			}
		}
	}
	flood.conn.SetReadDeadline(time.Now())
	if n, _, err := flood.conn.ReadFromUDPAddrPort(make([]byte, 2000)); err == nil {
		t.Errorf("a stranger got an answer of %d bytes", n)
	}
	// What is still in the queue is ahead of this one.
	if !l.offered(discover(t, macDeploying, with(uefiModifiers, viaRelay)...)) {
		t.Fatal("no offer after the flood")
	}
	if lines := strings.Count(r.logged(), "dhcp request not answered"); lines > 100 {
		t.Errorf("%d lines in the log", lines)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.GetMac() != macDeploying {
			t.Errorf("an event of a stranger: %v", e)
		}
	}
	d := r.srv.dhcp
	if len(d.allocating) > 0 || len(d.seen.at) > 0 || len(d.ipxe.at) > 0 || len(r.srv.dhcp.line.limiters) > 1 {
		t.Errorf("strangers are remembered: %d %d %d %d", len(d.allocating), len(d.seen.at), len(d.ipxe.at), len(d.line.limiters))
	}
}

// offered repeats a DISCOVER until there is an offer, as clients do: a flood
// may fill the socket's buffer.
func (l *relay) offered(p *dhcpv4.DHCPv4) bool {
	buf := make([]byte, 2000)
	for end := time.Now().Add(deadline); time.Now().Before(end); {
		l.send(p.ToBytes())
		l.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if _, _, err := l.conn.ReadFromUDPAddrPort(buf); err == nil {
			return true
		}
	}
	return false
}

// TestOversized: packets and options that are larger than they may be get no
// answer, or one that fits into a frame.
func TestOversized(t *testing.T) {
	view := newWorld(t).store.View()
	peer := us{id: "p1", own: addrs("10.77.0.11"), http: anyHTTP, tftp: anyTFTP}
	fill := strings.Repeat("x", 255)
	for name, m := range map[string]mods{
		"user class":   {dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte(fill)))},
		"class":        {dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:" + fill))},
		"arches":       {dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte(fill)[:254]))},
		"client id":    {dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte(fill)))},
		"host name":    {dhcpv4.WithOption(dhcpv4.OptHostName(fill))},
		"relay":        relayed("10.77.0.1", dhcpv4.OptGeneric(dhcpv4.AgentCircuitIDSubOption, []byte(fill)[:250])),
		"many options": manyOptions(),
	} {
		t.Run(name, func(t *testing.T) {
			b := discover(t, macDeploying, m...).ToBytes()
			a, ok := parseAsk(b, netip.MustParseAddrPort("10.77.0.1:67"))
			if !ok {
				return // refused
			}
			a.to, a.iface = broadcast, peer.own
			if d := decide(view, a, peer); d.reply != nil && len(d.reply.ToBytes()) > 1472 {
				t.Errorf("an answer of %d bytes", len(d.reply.ToBytes()))
			}
		})
	}
	r := newRig(t, nil)
	l := newRelay(r)
	big := append(discover(t, macDeploying, with(uefiModifiers, viaRelay)...).ToBytes(), make([]byte, 2000)...)
	l.send(big)
	if !l.offered(discover(t, macDeploying, with(uefiModifiers, viaRelay)...)) {
		t.Error("no offer after an oversized packet")
	}
}

func manyOptions() (m mods) {
	for i := range 200 {
		if c := dhcpv4.GenericOptionCode(30 + i); c != 82 && c != 53 {
			m = append(m, dhcpv4.WithOption(dhcpv4.OptGeneric(c, []byte{1, 2, 3, 4})))
		}
	}
	return m
}

// pipes is a listener whose connections are pipes.
type pipes struct{ conns chan net.Conn }

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestSlowClients: who sends half a request, or takes nothing of what it asked
// for, is cut off; who takes a little of it again and again is not.
func TestSlowClients(t *testing.T) {
	for _, c := range []struct {
		name   string
		sends  string
		within time.Duration
		least  int64         // bytes that it gets; half a request may be answered with an error
		pause  time.Duration // between two reads; 0: never reads
	}{
		{"half a request", "GET /ramdisk/vmlinuz HTT", 2 * requestTimeout, 0, 0},
		{"never reads", "GET /ramdisk/vmlinuz HTTP/1.1\r\nHost: x\r\n\r\n", 2 * chunkTimeout, 0, 0},
		{"never asks again", "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 2 * idleTimeout, 100, time.Millisecond},
		{"slow but steady", "GET /ramdisk/vmlinuz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", time.Hour, 3 << 20, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "vmlinuz"), content("vmlinuz", 3<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg := Config{Store: newWorld(t).store, Self: "p1", CADigest: digest, RamdiskDir: dir}
			synctest.Test(t, func(t *testing.T) {
				lis := pipes{make(chan net.Conn, 1)}
				s := &httpService{cfg: cfg, log: slog.New(slog.DiscardHandler), line: &timeline{}, seen: &seen{}, lis: lis}
				done := make(chan error, 1)
				go func() { done <- s.serve(t.Context()) }()
				here, there := net.Pipe()
				lis.conns <- there
				start := time.Now()
				if _, err := io.WriteString(here, c.sends); err != nil {
					t.Fatal(err)
				}
				var got int64
				if c.pause == 0 {
					time.Sleep(c.within) // of the bubble: the server must have hung up
				}
				buf := make([]byte, 64<<10)
				for {
					n, err := here.Read(buf)
					got += int64(n)
					if err != nil {
						break
					}
					time.Sleep(c.pause)
				}
				if took := time.Since(start); took > c.within {
					t.Errorf("cut off after %s, should be within %s", took, c.within)
				}
				if got < c.least || got > c.least+1000 {
					t.Errorf("%d bytes were read, want %d and a header", got, c.least)
				}
				here.Close()
				close(lis.conns)
				<-done
			})
		})
	}
}

// TestConnsPerHost: one host holds its share of connections and no more.
func TestConnsPerHost(t *testing.T) {
	r := newRig(t, nil)
	from := func(ip string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		c, err := d.Dial("tcp4", r.addrs.HTTP.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	var mine []net.Conn
	for range connsPerHost {
		mine = append(mine, from(loopMachine))
	}
	over := from(loopMachine)
	over.SetReadDeadline(time.Now().Add(deadline))
	if _, err := over.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a connection too many: %v", err)
	}
	ask := func(c net.Conn) error {
		c.SetDeadline(time.Now().Add(deadline))
		if _, err := io.WriteString(c, "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		buf := make([]byte, 12)
		if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "HTTP/1.1 404" {
			return fmt.Errorf("%q %w", buf, err)
		}
		return nil
	}
	if err := ask(from("127.77.0.200")); err != nil {
		t.Errorf("another host: %v", err)
	}
	for _, c := range mine {
		if err := ask(c); err != nil {
			t.Fatalf("a connection of the share: %v", err)
		}
		c.Close()
	}
	for end := time.Now().Add(deadline); ; {
		c := from(loopMachine)
		err := ask(c)
		c.Close()
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("closed connections still count: %v", err)
		}
	}
}
