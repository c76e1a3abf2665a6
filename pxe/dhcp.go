package pxe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
)

// Bounds of the DHCP service.
const (
	maxPacket       = 1500
	maxInFlight     = 256             // packets in work; more are dropped, clients repeat
	allocateTimeout = 3 * time.Second // for an address to be committed
)

// dhcpService answers DHCP on one or more sockets.
type dhcpService struct {
	cfg   Config
	host  host
	log   *slog.Logger
	line  *timeline
	us    func() us // this peer as answers show it
	ipxe  *solicitors
	conns []*net.UDPConn
	again []*net.UDPConn // for the second questions of proxy mode
	seen  *seen

	inFlight chan struct{} // one token for each packet in work
	quiet    *rate.Limiter // of log lines about strangers

	mu         sync.Mutex
	allocating map[string]bool // by network and MAC; guarded by mu
}

// listenDHCP opens the sockets for an address: one for each interface, or one
// for all.
func listenDHCP(cfg Config, address string) ([]*net.UDPConn, error) {
	if address == "" {
		return nil, nil
	}
	devices := cfg.DHCPInterfaces
	if len(devices) == 0 {
		devices = []string{""}
	}
	var conns []*net.UDPConn
	for _, dev := range devices {
		// Not the library's constructor: it sets SO_REUSEPORT, by which two
		// daemons would silently share the packets of one port.
		lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			if dev == "" {
				return nil
			}
			var err error
			if cerr := raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), dev) }); cerr != nil {
				return cerr
			}
			return err
		}}
		pc, err := lc.ListenPacket(context.Background(), "udp4", address)
		if err != nil {
			for _, c := range conns {
				c.Close()
			}
			on := ""
			if dev != "" {
				on = " on interface " + dev
			}
			return nil, listenError("dhcp"+on, err)
		}
		conn := pc.(*net.UDPConn)
		conns = append(conns, conn)
		// Now, so that no packet comes without it.
		if err := ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true); err != nil {
			for _, c := range conns {
				c.Close()
			}
			return nil, listenError("dhcp", err)
		}
	}
	return conns, nil
}

// listenError says what is wrong in the operator's words.
func listenError(what string, err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return errs.New(errs.Exists, "%s: the address is in use by another program: %w", what, err)
	}
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return errs.New(errs.Denied, "%s: not allowed (ports below 1024 need root or CAP_NET_BIND_SERVICE): %w", what, err)
	}
	return errs.New(errs.Invalid, "%s: cannot listen: %w", what, err)
}

// serve reads packets from one socket until it is closed. Each packet is
// answered in a goroutine of its own, because answers may be delayed or wait
// for an address to be committed; serve returns when all of them have ended.
func (s *dhcpService) serve(ctx context.Context, conn *net.UDPConn, second bool) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	pc := ipv4.NewPacketConn(conn)
	if err := pc.SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true); err != nil { // so that pc reads them
		if ctx.Err() != nil {
			return nil // closed already
		}
		return fmt.Errorf("dhcp: %w", err)
	}
	buf := make([]byte, maxPacket+1)
	for {
		n, cm, from, err := pc.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("dhcp: %w", err)
		}
		udp, ok := from.(*net.UDPAddr)
		if !ok || n > maxPacket {
			continue
		}
		a, ok := parseAsk(buf[:n], udp.AddrPort())
		if !ok {
			continue
		}
		a.second = second
		ifindex := 0
		if cm != nil {
			ifindex = cm.IfIndex
			if d, ok := addrOf(cm.Dst); ok {
				a.to = d
			}
		}
		select {
		case s.inFlight <- struct{}{}:
		default:
			continue
		}
		wg.Go(func() {
			defer func() { <-s.inFlight }()
			if _, relayed := addrOf(a.packet.GatewayIPAddr); !relayed {
				a.iface = s.host.addrsOf(ifindex)
			}
			s.handle(ctx, pc, ifindex, a)
		})
	}
}

// parseAsk decodes a datagram; false for what is not a DHCP request.
func parseAsk(b []byte, from netip.AddrPort) (ask, bool) {
	p, err := dhcpv4.FromBytes(b)
	if err != nil || p.OpCode != dhcpv4.OpcodeBootRequest {
		return ask{}, false
	}
	return ask{packet: p, from: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}, true
}

// handle answers one packet, after the delay of this peer's rank.
func (s *dhcpService) handle(ctx context.Context, pc *ipv4.PacketConn, ifindex int, a ask) {
	heard := s.cfg.Clock.Now()
	d := decide(s.view(), a, s.us())
	if d.nodeID == "" {
		if s.quiet.Allow() {
			s.log.Debug("dhcp request not answered", "mac", d.mac, "reason", d.reason, "from", a.from)
		}
		return
	}
	if d.allocate {
		d = s.allocate(ctx, a, d)
	}
	if d.observed.IsValid() {
		s.seen.saw(d.observed, d.mac)
	}
	m := machine{mac: d.mac, nodeID: d.nodeID, nonce: d.nonce}
	if d.reply == nil {
		s.log.Debug("dhcp request not answered", "node", d.nodeID, "mac", d.mac, "reason", d.reason)
		s.line.add(m, kindDHCP, stageDHCP, typeName(a.packet.MessageType())+" not answered: "+d.reason)
		return
	}
	if classify(a.packet).kind == ipxeClient {
		s.ipxe.saw(d.mac)
	}
	if clock.Pause(ctx, d.delay) != nil {
		return
	}
	cm := &ipv4.ControlMessage{Src: d.source.AsSlice()}
	switch {
	case d.to.Addr() == broadcast:
		cm.IfIndex = ifindex
	case a.to.IsValid() && a.to != broadcast && !a.to.IsMulticast():
		cm.Src = a.to.AsSlice() // from where it was asked
	}
	// Before what the machine does with the answer. The moment is that of the
	// question: with the delay of this peer's rank, an offer would stand behind
	// what the machine did with the offer of another.
	s.line.addAt(heard, m, kindDHCP, stageDHCP, d.text)
	if _, err := pc.WriteTo(d.reply.ToBytes(), cm, net.UDPAddrFromAddrPort(d.to)); err != nil {
		s.log.Warn("dhcp answer could not be sent", "node", d.nodeID, "mac", d.mac, "to", d.to, "err", err)
		s.line.add(m, kindDHCP, stageDHCP, "sending the answer failed: "+err.Error())
		return
	}
	s.log.Debug("dhcp request answered", "node", d.nodeID, "mac", d.mac, "text", d.text)
}

func (s *dhcpService) view() *fsm.View { return s.cfg.Store.View() }

// allocate has an address committed for the machine and decides again. A peer
// of higher rank waits for its turn first: the address is there by then. One
// proposal for a MAC and network is under way at a time; the client repeats.
func (s *dhcpService) allocate(ctx context.Context, a ask, d verdict) verdict {
	if s.cfg.Allocate == nil {
		return d
	}
	rank := rankOf(ranked(s.view().Members(), d.mac), s.us().id)
	if rank > 0 && clock.Pause(ctx, time.Duration(rank)*rankDelay) != nil {
		return d
	}
	if again := decide(s.view(), a, s.us()); !again.allocate {
		return promptly(again)
	}
	key := d.network + "/" + d.mac
	if !s.begin(key) {
		return d.silent("an address on network %s is being allocated", d.network)
	}
	defer s.end(key)
	ctx, cancel := context.WithTimeout(ctx, allocateTimeout)
	defer cancel()
	if _, err := s.cfg.Allocate(ctx, d.network, d.mac); err != nil {
		s.log.Warn("no address for a known machine", "node", d.nodeID, "mac", d.mac, "network", d.network, "err", err)
		return d.silent("no address on network %s: %v", d.network, err)
	}
	return promptly(decide(s.view(), a, s.us()))
}

// promptly takes the delay off an answer that has waited already.
func promptly(d verdict) verdict {
	d.delay = 0
	return d
}

func (s *dhcpService) begin(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.allocating[key] {
		return false
	}
	s.allocating[key] = true
	return true
}

func (s *dhcpService) end(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.allocating, key)
}
