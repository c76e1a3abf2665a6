package pxe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/time/rate"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/sources"
)

// Bounds of the TFTP service, besides those of transfers in tftpslots.go.
//
// Errors about names are one packet for a request, and refusedPerSecond in all.
// Everything else that is refused is met with silence.
//
// A transfer whose client is gone ends after tftpTimeout * (tftpRetries + 1).
const (
	tftpTimeout = time.Second
	tftpRetries = 4
	tftpBlock   = 1468 // the largest that fits into an Ethernet frame
	maxTFTPName = 128

	// Error packets to all hosts together.
	refusedPerSecond = 32
	refusedBurst     = 128
)

// tftpPerHost bounds the requests of one host, those for nothing that there is
// too. Boot loaders ask for a few dozen names in a row.
var tftpPerHost = sources.Rate{PerSecond: 5, Burst: 100}

// tftpService gives out boot programs over TFTP, read only. It is the server
// itself: one that asks us only once it has made up its mind to answer cannot
// be silent (ADR 0034).
type tftpService struct {
	cfg  Config
	log  *slog.Logger
	line *timeline
	conn *net.UDPConn
	seen *seen

	programs *programFiles
	asked    *sources.Limits
	refused  *rate.Limiter // error packets
	quiet    *rate.Limiter // of log lines about requests that met silence
	slots    *slots
}

func newTFTP(cfg Config, line *timeline, files *programFiles, known *seen) (*tftpService, error) {
	conn, err := listenTFTP(cfg)
	if err != nil {
		return nil, err
	}
	return &tftpService{
		cfg: cfg, log: cfg.Logger, line: line, conn: conn, seen: known, programs: files,
		asked:   sources.New(sources.Config{Calls: "requests", Host: tftpPerHost, Passed: cfg.Clock.Elapsed}),
		refused: rate.NewLimiter(refusedPerSecond, refusedBurst),
		quiet:   rate.NewLimiter(1, 10),
		slots:   newSlots(cfg.Clock.Elapsed),
	}, nil
}

func listenTFTP(cfg Config) (*net.UDPConn, error) {
	if cfg.TFTPListen == "" {
		return nil, nil
	}
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(context.Background(), "udp4", cfg.TFTPListen)
	if err != nil {
		return nil, listenError("tftp", err)
	}
	conn := pc.(*net.UDPConn)
	// Now, so that requests that come before it is served say whom they asked.
	if err := ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true); err != nil {
		conn.Close()
		return nil, listenError("tftp", err)
	}
	return conn, nil
}

// serve answers requests until ctx ends, then waits for transfers, which end
// at their next packet.
func (s *tftpService) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { s.conn.Close() })()
	defer s.conn.Close()
	pc := ipv4.NewPacketConn(s.conn)
	if err := pc.SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true); err != nil { // pc has to know too
		return fmt.Errorf("tftp: %w", err)
	}
	buf := make([]byte, maxPacket)
	for {
		n, cm, addr, err := pc.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("tftp: %w", err)
		}
		req, ok := parseTFTP(buf[:n])
		udp, isUDP := addr.(*net.UDPAddr)
		if !ok || !isUDP || cm == nil {
			continue
		}
		at, ok := addrOf(cm.Dst)
		if !ok || at == broadcast || at.IsMulticast() {
			continue // RFC 1123, 4.2.3.5
		}
		from := netip.AddrPortFrom(udp.AddrPort().Addr().Unmap(), udp.AddrPort().Port())
		m := s.seen.machine(s.cfg.Store.View(), from.Addr())
		one, end := context.WithCancelCause(ctx)
		place, err := s.enter(from.Addr(), m, func() { end(errGaveWay) })
		if err != nil {
			end(nil)
			s.silent(req, from.Addr(), m, err)
			continue
		}
		all.Go(func() {
			defer end(nil)
			defer place.leave()
			s.handle(one, place, req, m, netip.AddrPortFrom(at, 0), from, cm.IfIndex)
		})
	}
}

// silent notes a request that gets no answer: the client repeats it, which is
// better than an error for one that is in a crowd, and nothing for one that
// does not know that it asked.
func (s *tftpService) silent(req tftpRequest, from netip.Addr, m machine, why error) {
	if s.quiet.Allow() {
		s.log.Debug("tftp request not answered", "name", quoteName(req.name), "from", from, "err", why)
	}
	s.line.add(m, kindTFTP, stageTFTP, fmt.Sprintf("asked for %s, not answered: %v", quoteName(req.name), why))
}

// handle answers a request that was let in.
func (s *tftpService) handle(ctx context.Context, place *slot, req tftpRequest, m machine, at, from netip.AddrPort, ifindex int) {
	t, err := newTransfer(ctx, place, at, from)
	if err != nil {
		s.log.Warn("tftp request cannot be answered", "from", from, "err", err)
		return
	}
	defer t.conn.Close()
	data, code, err := s.open(req)
	if err != nil {
		s.log.Debug("tftp request refused", "name", quoteName(req.name), "from", from.Addr(), "err", err)
		s.line.add(m, kindTFTP, stageTFTP, fmt.Sprintf("asked for %s: %v", quoteName(req.name), err))
		if s.refused.Allow() {
			_ = t.refuse(code, err.Error()) // a client that hears nothing asks again
		}
		return
	}
	s.line.add(m, kindTFTP, stageTFTP, fmt.Sprintf("asked for %s: %d bytes", req.name, len(data)))
	block, accept := req.negotiate(len(data), largestBlock(ifindex))
	n, err := t.file(data, block, accept)
	if errors.Is(err, errStopping) && place.maySend() {
		_ = t.refuse(errUndefined, err.Error()) // firmware goes on to the next peer at once
	}
	switch {
	case err != nil && n == 0:
		// Firmware asks for the size first and breaks off on purpose.
		s.log.Debug("tftp transfer not begun", "name", req.name, "from", from.Addr(), "err", err)
	case err != nil:
		s.log.Debug("tftp transfer ended early", "name", req.name, "from", from.Addr(), "bytes", n, "err", err)
		s.line.add(m, kindTFTP, stageTFTP, fmt.Sprintf("%s broken off after %d of %d bytes", req.name, n, len(data)))
	}
}

// open finds what a request is for, or the code of an error. Firmware may put a
// slash before the name.
func (s *tftpService) open(req tftpRequest) (data []byte, code uint16, err error) {
	switch {
	case req.op != opRead:
		return nil, errAccess, errs.New(errs.Denied, "nothing is written here")
	case req.mode != "octet" && req.mode != "netascii": // what is asked for as text is sent as it is
		return nil, errUndefined, errs.New(errs.Unsupported, "no such mode")
	case len(req.name) > maxTFTPName:
		return nil, errNotFound, errs.New(errs.NotFound, "no such boot program")
	}
	data, err = s.programs.read(strings.TrimPrefix(req.name, "/"))
	if errors.Is(err, errs.NotFound) {
		return nil, errNotFound, err
	}
	return data, errUndefined, err
}

// largestBlock is the largest block that an interface takes in one piece.
func largestBlock(ifindex int) int {
	if ifi, err := net.InterfaceByIndex(ifindex); err == nil {
		return max(plainBlock, min(tftpBlock, ifi.MTU-headers))
	}
	return plainBlock
}

// enter lets a request in, or says why it has to wait.
func (s *tftpService) enter(from netip.Addr, m machine, giveWay func()) (*slot, error) {
	if err := s.asked.Allow(from); err != nil {
		return nil, err
	}
	return s.slots.enter(from, m.nodeID != "", giveWay)
}

// quoteName makes a client's name fit for logs and timelines.
func quoteName(name string) string {
	if len(name) > maxTFTPName {
		name = name[:maxTFTPName]
	}
	return fmt.Sprintf("%q", name)
}
