package pxe

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
)

// Server is the boot service of one peer.
type Server struct {
	cfg    Config
	dhcp   *dhcpService
	tftp   *tftpService
	http   *httpService
	router *routerService // nil: off

	digests digests
}

// Addrs are the addresses that a Server listens on; the zero value of those
// that are off.
type Addrs struct {
	DHCP netip.AddrPort // of the first socket when there are several
	// Proxy is for the second questions of proxy mode.
	Proxy netip.AddrPort
	TFTP  netip.AddrPort
	HTTP  netip.AddrPort
}

// New opens the sockets, so that an address in use is an error here. Run or
// Close must follow.
func New(cfg Config) (*Server, error) {
	if cfg.IPXEDir == "" {
		cfg.IPXEDir = DefaultIPXEDir
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System{}
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg}
	if err := s.listen(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) listen() error {
	cfg := s.cfg
	line := &timeline{self: cfg.Self, now: cfg.Clock.Now, observe: cfg.Observe, limiters: map[string]*rate.Limiter{}}
	files := &programFiles{dir: cfg.IPXEDir}
	known := &seen{at: map[netip.Addr]string{}}
	lis, err := listenHTTP(cfg)
	if err != nil {
		return err
	}
	s.http = &httpService{cfg: cfg, log: cfg.Logger, line: line, lis: lis, seen: known, programs: files, homes: newHomes(cfg.Clock)}
	if s.tftp, err = newTFTP(cfg, line, files, known); err != nil {
		return err
	}
	conns, err := listenDHCP(cfg, cfg.DHCPListen)
	if err != nil {
		return err
	}
	s.dhcp = &dhcpService{
		cfg: cfg, log: cfg.Logger, line: line, conns: conns, seen: known,
		host:       hostOf(cfg),
		inFlight:   make(chan struct{}, maxInFlight),
		quiet:      rate.NewLimiter(1, 10),
		allocating: map[string]bool{},
	}
	if s.dhcp.again, err = listenDHCP(cfg, cfg.ProxyListen); err != nil {
		return err
	}
	s.dhcp.us = s.us
	s.dhcp.ipxe = &solicitors{now: cfg.Clock.Elapsed, at: map[string]time.Duration{}}
	s.router = listenRouter(cfg, s.dhcp.host, s.dhcp.ipxe)
	return nil
}

// CheckListen opens the sockets of a configuration and closes them again: New
// could open them. Of the rest of the configuration it looks at nothing.
func CheckListen(cfg Config) error {
	lis, err := listenHTTP(cfg)
	if err != nil {
		return err
	}
	if lis != nil {
		defer lis.Close()
	}
	conn, err := listenTFTP(cfg)
	if err != nil {
		return err
	}
	if conn != nil {
		defer conn.Close()
	}
	for _, address := range []string{cfg.DHCPListen, cfg.ProxyListen} {
		conns, err := listenDHCP(cfg, address)
		for _, c := range conns {
			c.Close()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// hostOf says where this peer's addresses come from: the configuration, the
// addresses that it listens on, or the kernel.
func hostOf(cfg Config) host {
	own := slices.Clone(cfg.Addresses)
	if len(own) == 0 {
		for _, l := range []string{cfg.DHCPListen, cfg.HTTPListen, cfg.TFTPListen} {
			if ap, err := listenAddr(l); err == nil && !ap.Addr().IsUnspecified() && !slices.Contains(own, ap.Addr()) {
				own = append(own, ap.Addr())
			}
		}
	}
	if len(own) > 0 {
		return configured(own)
	}
	return kernelHost{}
}

// us is this peer as its answers show it.
func (s *Server) us() us {
	a := s.Addrs()
	return us{
		id:    s.cfg.Self,
		own:   s.dhcp.host.addrs(),
		http:  a.HTTP,
		tftp:  a.TFTP,
		stale: s.cfg.stale(),
		mode:  s.cfg.DHCPMode,
	}
}

// Addrs are the addresses that the server listens on.
func (s *Server) Addrs() Addrs {
	var a Addrs
	if s.http != nil && s.http.lis != nil {
		a.HTTP = s.http.lis.Addr().(*net.TCPAddr).AddrPort()
	}
	if s.tftp != nil && s.tftp.conn != nil {
		a.TFTP = s.tftp.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	if s.dhcp != nil && len(s.dhcp.conns) > 0 {
		a.DHCP = s.dhcp.conns[0].LocalAddr().(*net.UDPAddr).AddrPort()
	}
	if s.dhcp != nil && len(s.dhcp.again) > 0 {
		a.Proxy = s.dhcp.again[0].LocalAddr().(*net.UDPAddr).AddrPort()
	}
	return a
}

// Close frees the sockets of a server that Run was not called on.
func (s *Server) Close() {
	if s.http != nil && s.http.lis != nil {
		s.http.lis.Close()
	}
	if s.tftp != nil && s.tftp.conn != nil {
		s.tftp.conn.Close()
	}
	if s.dhcp != nil {
		for _, c := range slices.Concat(s.dhcp.conns, s.dhcp.again) {
			c.Close()
		}
	}
	if s.router != nil {
		s.router.conn.Close()
	}
}

// Run serves until ctx ends or a socket fails. When it returns, all that it
// started has ended. DHCP stops first, so that no machine is sent here any
// more; transfers under way end at their next block or within seconds.
func (s *Server) Run(ctx context.Context) error {
	defer s.Close()
	for _, f := range s.cfg.missing() {
		s.cfg.Logger.Warn("boot file is missing: machines that need it will not boot from this peer", "file", f)
	}
	g, ctx := errgroup.WithContext(ctx)
	for i, c := range slices.Concat(s.dhcp.conns, s.dhcp.again) {
		g.Go(func() error { return s.dhcp.serve(ctx, c, i >= len(s.dhcp.conns)) })
		g.Go(func() error {
			<-ctx.Done()
			c.Close() // wakes serve
			return nil
		})
	}
	if s.router != nil {
		g.Go(func() error { return s.router.serve(ctx) })
		g.Go(func() error {
			<-ctx.Done()
			s.router.conn.Close() // wakes serve
			return nil
		})
	}
	if s.tftp.conn != nil {
		g.Go(func() error { return s.tftp.serve(ctx) })
	}
	if s.http.lis != nil {
		g.Go(func() error { return s.http.serve(ctx) })
	}
	if a := s.Addrs(); a == (Addrs{}) {
		g.Go(func() error { <-ctx.Done(); return nil })
	}
	if err := g.Wait(); err != nil {
		return errs.New(errs.Internal, "boot service: %w", err)
	}
	return nil
}
