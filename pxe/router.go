package pxe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/net/ipv6"
)

// Answers to IPv6 router solicitations.
//
// iPXE configures IPv6 beside DHCP and, on a network without an IPv6 router,
// waits 16 seconds for one before it boots. An advertisement that announces
// nothing (no router lifetime, no prefixes, no DHCPv6) ends the wait. It is
// sent by unicast and only to a known machine whose iPXE has just asked us for
// an address, so that no other host and no running system hears of it.
const (
	solicitWindow = 30 * time.Second // after iPXE's DHCP request
	maxSolicitors = 4096
	typeSolicit   = 133
	typeAdvert    = 134
	hopLimit      = 255 // RFC 4861: proves that the sender is on the link
)

// advert is a router advertisement that announces nothing. The kernel fills
// in the checksum.
var advert = [16]byte{typeAdvert}

// solicitors remembers which machines run iPXE at the moment.
type solicitors struct {
	now func() time.Duration
	mu  sync.Mutex
	at  map[string]time.Duration // by MAC; guarded by mu
}

func (s *solicitors) saw(mac string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.at) >= maxSolicitors {
		clear(s.at) // costs some machines the wait
	}
	s.at[mac] = s.now()
}

func (s *solicitors) recent(mac string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.at[mac]
	if ok && s.now()-at > solicitWindow {
		delete(s.at, mac)
		return false
	}
	return ok
}

// routerService answers solicitations on provisioning interfaces.
type routerService struct {
	log   *slog.Logger
	conn  net.PacketConn
	pc    *ipv6.PacketConn
	known *solicitors
}

// listenRouter opens the raw socket; nil when this peer does not serve DHCP to
// machines on its own networks, or may not open it: boots are slower then.
func listenRouter(cfg Config, h host, known *solicitors) *routerService {
	ap, err := listenAddr(cfg.DHCPListen)
	if cfg.NoRouterAnswers || err != nil || !ap.Addr().IsUnspecified() {
		return nil
	}
	s, err := openRouter(cfg, h, known)
	if err != nil {
		cfg.Logger.Info("ipv6 router solicitations are not answered: iPXE waits longer on networks without ipv6", "err", err)
		return nil
	}
	return s
}

func openRouter(cfg Config, h host, known *solicitors) (*routerService, error) {
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(context.Background(), "ip6:ipv6-icmp", "::")
	if err != nil {
		return nil, err
	}
	s := &routerService{log: cfg.Logger, conn: conn, pc: ipv6.NewPacketConn(conn), known: known}
	var f ipv6.ICMPFilter
	f.SetAll(true)
	f.Accept(ipv6.ICMPTypeRouterSolicitation)
	err = errors.Join(
		s.pc.SetICMPFilter(&f),
		s.pc.SetHopLimit(hopLimit),
		s.pc.SetControlMessage(ipv6.FlagInterface|ipv6.FlagHopLimit, true),
		s.join(cfg.DHCPInterfaces, h))
	if err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

// join becomes a member of the all-routers group where machines may be.
func (s *routerService) join(names []string, h host) error {
	var list []net.Interface
	for _, n := range names {
		ifi, err := net.InterfaceByName(n)
		if err != nil {
			return err
		}
		list = append(list, *ifi)
	}
	if len(names) == 0 {
		all, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, ifi := range all {
			if ifi.Flags&net.FlagLoopback == 0 && len(h.addrsOf(ifi.Index)) > 0 {
				list = append(list, ifi)
			}
		}
	}
	joined := 0
	var failed error
	for _, ifi := range list {
		if err := s.pc.JoinGroup(&ifi, &net.UDPAddr{IP: net.IPv6linklocalallrouters}); err != nil {
			failed = fmt.Errorf("interface %s: %w", ifi.Name, err)
			continue
		}
		joined++
	}
	if joined == 0 {
		return errors.Join(errors.New("no interface with ipv6"), failed)
	}
	return nil
}

// serve answers until the socket is closed.
func (s *routerService) serve(ctx context.Context) error {
	buf := make([]byte, maxPacket)
	for {
		n, cm, from, err := s.pc.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			// Boots go on without it, only slower.
			s.log.Warn("ipv6 router solicitations are answered no more", "err", err)
			return nil
		}
		src, ok := from.(*net.IPAddr)
		if !ok || cm == nil || cm.HopLimit != hopLimit || !src.IP.IsLinkLocalUnicast() {
			continue
		}
		mac, ok := solicitor(buf[:n])
		if !ok || !s.known.recent(mac) {
			continue
		}
		if _, err := s.pc.WriteTo(advert[:], &ipv6.ControlMessage{IfIndex: cm.IfIndex, HopLimit: hopLimit}, src); err != nil {
			s.log.Debug("router solicitation could not be answered", "mac", mac, "err", err)
		}
	}
}

// solicitor reads the sender's MAC from a router solicitation.
func solicitor(b []byte) (string, bool) {
	if len(b) < 8 || b[0] != typeSolicit || b[1] != 0 {
		return "", false
	}
	for opts := b[8:]; len(opts) >= 8; {
		n := int(opts[1]) * 8
		if n == 0 || n > len(opts) {
			return "", false
		}
		if opts[0] == 1 && n == 8 { // source link-layer address
			return ParseMAC(net.HardwareAddr(opts[2:8]).String())
		}
		opts = opts[n:]
	}
	return "", false
}
