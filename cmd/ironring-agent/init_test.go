//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func TestUevent(t *testing.T) {
	for in, want := range map[string][2]string{
		"add@/devices/x\x00ACTION=add\x00SUBSYSTEM=block\x00DEVNAME=vda\x00":      {"", "block"},
		"add@/devices/x\x00MODALIAS=virtio:d00000001v00001AF4\x00SUBSYSTEM=v\x00": {"virtio:d00000001v00001AF4", "v"},
		"remove@/devices/x\x00SUBSYSTEM=block\x00":                                {"", ""},
		"libudev\x00\xfe": {"", ""}, "": {"", ""},
	} {
		if a, s := parseUevent([]byte(in)); a != want[0] || s != want[1] {
			t.Errorf("%q: %q %q", in, a, s)
		}
	}
}

func TestIsNetwork(t *testing.T) {
	for a, want := range map[string]bool{
		"pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00": true, "virtio:d00000001v00001AF4": true,
		"virtio:d00000002v00001AF4": false, "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02": false, "acpi:PNP0A03:": false,
	} {
		if isNetwork(a) != want {
			t.Error(a)
		}
	}
}

func TestLease(t *testing.T) {
	ack, err := dhcpv4.New(
		dhcpv4.WithYourIP(net.IPv4(10, 77, 0, 50)), dhcpv4.WithNetmask(net.CIDRMask(23, 32)), dhcpv4.WithRouter(net.IPv4(10, 77, 0, 1)),
		dhcpv4.WithDNS(net.IPv4(10, 77, 0, 2)), dhcpv4.WithLeaseTime(600), dhcpv4.WithServerIP(net.IPv4(10, 77, 0, 11)),
		dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{0x23, 0x28}))
	if err != nil {
		t.Fatal(err)
	}
	l, err := leaseOf(ack)
	if err != nil || l.String() != "10.77.0.50/23" || !l.router.Equal(net.IPv4(10, 77, 0, 1)) || l.life != 10*time.Minute || l.mtu != 9000 || len(l.dns) != 1 {
		t.Errorf("%+v %v", l, err)
	}
	bare, err := dhcpv4.New(dhcpv4.WithYourIP(net.IPv4(10, 1, 2, 3)))
	if err != nil {
		t.Fatal(err)
	}
	if l, err := leaseOf(bare); err != nil || l.String() != "10.1.2.3/8" || l.router != nil || l.mtu != 0 {
		t.Errorf("%+v %v", l, err)
	}
	none, err := dhcpv4.New()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaseOf(none); err == nil {
		t.Error("a lease without an address")
	}
}

// The kernel reads this struct: its layout on 64-bit machines.
func TestRouteLayout(t *testing.T) {
	var r rtentry
	if unsafe.Sizeof(r) != 120 || unsafe.Offsetof(r.dst) != 8 || unsafe.Offsetof(r.gateway) != 24 || unsafe.Offsetof(r.mask) != 40 || unsafe.Offsetof(r.flags) != 56 || unsafe.Offsetof(r.metric) != 80 {
		t.Errorf("size %d, dst %d, gateway %d, mask %d, flags %d, metric %d", unsafe.Sizeof(r), unsafe.Offsetof(r.dst), unsafe.Offsetof(r.gateway), unsafe.Offsetof(r.mask), unsafe.Offsetof(r.flags), unsafe.Offsetof(r.metric))
	}
}

// lockedBuffer is written by a console's goroutine and read by the test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
	ch chan struct{}
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.b.Write(p)
	l.ch <- struct{}{}
	return n, err
}

// A terminal that takes nothing must not stop the others.
func TestConsoles(t *testing.T) {
	stuck, w := io.Pipe()
	good := &lockedBuffer{ch: make(chan struct{}, 2000)}
	c := &consoles{}
	c.add(w)
	c.add(good)
	log := slog.New(newConsoleHandler(c)).With("node", "n1")
	for range 600 {
		log.Info("line", "err", errors.New("two\nlines"))
		<-good.ch
	}
	log.Debug("not shown")
	log.WithGroup("g").Warn("last", "k", 1)
	<-good.ch
	for _, q := range c.queues {
		close(q)
	}
	stuck.Close()
	out := good.b.String()
	if !strings.HasPrefix(out, "ironring-agent: ") || !strings.Contains(out, "line node=n1 err=two\r\nironring-agent:   lines\r\n") || !strings.HasSuffix(out, "WARN last node=n1 g.k=1\r\n") || strings.Contains(out, "not shown") {
		t.Errorf("%q", out[max(0, len(out)-200):])
	}
}

func TestSettle(t *testing.T) {
	m := &modules{first: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := m.settle(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(m.first)
	m.changed.Store(int64(uptime()))
	began := time.Now()
	if err := m.settle(context.Background()); err != nil || time.Since(began) < quiet/2 {
		t.Error(err, time.Since(began))
	}
}
