package pxe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/pin/tftp/v3"
	"golang.org/x/net/ipv4"
	"golang.org/x/time/rate"

	"github.com/ironring/ironring/internal/errs"
)

// Bounds of the TFTP service.
//
// Anybody can send a request in another's name, and a client that does not
// acknowledge gets its first block tftpRetries + 1 times, 516 bytes each. All
// that such requests together can make us send is tftpTransfers of those a
// second, and to one victim tftpTransfersPerHost: less than 5 kB/s.
//
// A transfer whose client is gone ends after tftpTimeout * (tftpRetries + 1),
// which is also how long a stop can take.
const (
	tftpTransfers        = 128
	tftpTransfersPerHost = 8
	tftpTimeout          = time.Second
	tftpRetries          = 4
	tftpBlock            = 1468 // the largest that fits into an Ethernet frame
	maxTFTPName          = 128

	// Requests of one host, refused ones too. Boot loaders ask for a few dozen
	// names in a row.
	tftpPerSecond = 5
	tftpBurst     = 100
)

// tftpService gives out boot programs over TFTP, read only.
type tftpService struct {
	cfg  Config
	log  *slog.Logger
	line *timeline
	conn *net.UDPConn
	seen *seen

	programs *programFiles
	stop     context.Context // ends transfers at their next block

	mu     sync.Mutex
	total  int                          // transfers under way; guarded by mu
	byHost map[netip.Addr]int           // guarded by mu
	asked  map[netip.Addr]*rate.Limiter // guarded by mu
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
	// The library asks for this when it begins to serve. Requests that came
	// before it would be answered from any address, with blocks of 512 bytes.
	conn := pc.(*net.UDPConn)
	if err := ipv4.NewPacketConn(conn).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true); err != nil {
		conn.Close()
		return nil, listenError("tftp", err)
	}
	return conn, nil
}

// serve answers requests until ctx ends, then waits for transfers.
func (s *tftpService) serve(ctx context.Context) error {
	s.stop = ctx
	srv := tftp.NewServer(s.read, nil)
	srv.SetTimeout(tftpTimeout)
	srv.SetRetries(tftpRetries)
	srv.SetBlockSize(tftpBlock)
	srv.SetBackoff(func(int) time.Duration { return 0 }) // the timeout is the pause
	done := make(chan error, 1)
	go func() { done <- srv.Serve(s.conn) }()
	select {
	case err := <-done:
		s.conn.Close()
		srv.Shutdown()
		return fmt.Errorf("tftp: %w", err)
	case <-ctx.Done():
	}
	srv.Shutdown()
	<-done
	srv.Shutdown() // a request that was read while the first call waited
	return nil
}

// read is called by the library, in a goroutine for each request.
func (s *tftpService) read(name string, rf io.ReaderFrom) error {
	from := remoteAddr(rf)
	m := s.seen.machine(s.cfg.Store.View(), from)
	data, err := s.open(name, from)
	if err != nil {
		s.log.Debug("tftp request refused", "name", quoteName(name), "from", from, "err", err)
		s.line.add(m, kindTFTP, stageTFTP, fmt.Sprintf("asked for %s: %v", quoteName(name), err))
		return err // becomes the text of the error packet
	}
	defer s.leave(from)
	if out, ok := rf.(tftp.OutgoingTransfer); ok {
		out.SetSize(int64(len(data)))
	}
	s.line.add(m, kindTFTP, stageTFTP, fmt.Sprintf("asked for %s: %d bytes", name, len(data)))
	n, err := rf.ReadFrom(stopReader{s.stop, bytes.NewReader(data)})
	switch {
	case err != nil && n == 0:
		// Firmware asks for the size first and breaks off on purpose.
		s.log.Debug("tftp transfer not begun", "name", name, "from", from, "err", err)
	case err != nil:
		s.log.Debug("tftp transfer ended early", "name", name, "from", from, "bytes", n, "err", err)
		s.line.add(m, kindTFTP, stageTFTP, fmt.Sprintf("%s broken off after %d of %d bytes", name, n, len(data)))
	}
	return nil
}

// open finds what a name stands for and counts the transfer in. Firmware may
// put a slash before the name.
func (s *tftpService) open(name string, from netip.Addr) ([]byte, error) {
	if err := s.enter(from); err != nil {
		return nil, err
	}
	if len(name) > maxTFTPName {
		s.leave(from)
		return nil, errs.New(errs.NotFound, "no such boot program")
	}
	data, err := s.programs.read(strings.TrimPrefix(name, "/"))
	if err != nil {
		s.leave(from)
		return nil, err
	}
	return data, nil
}

func (s *tftpService) enter(from netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mayAskLocked(from) {
		return errs.New(errs.Busy, "too many requests")
	}
	if s.total >= tftpTransfers || s.byHost[from] >= tftpTransfersPerHost {
		return errs.New(errs.Busy, "too many transfers")
	}
	s.total++
	s.byHost[from]++
	return nil
}

func (s *tftpService) mayAskLocked(from netip.Addr) bool {
	l := s.asked[from]
	if l == nil {
		if s.asked == nil || len(s.asked) >= maxLimiters {
			s.asked = map[netip.Addr]*rate.Limiter{}
		}
		l = rate.NewLimiter(tftpPerSecond, tftpBurst)
		s.asked[from] = l
	}
	return l.Allow()
}

func (s *tftpService) leave(from netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.byHost[from]--; s.byHost[from] == 0 {
		delete(s.byHost, from)
	}
}

func remoteAddr(rf io.ReaderFrom) netip.Addr {
	if out, ok := rf.(tftp.OutgoingTransfer); ok {
		udp := out.RemoteAddr()
		return udp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// quoteName makes a client's name fit for logs and timelines.
func quoteName(name string) string {
	if len(name) > maxTFTPName {
		name = name[:maxTFTPName]
	}
	return fmt.Sprintf("%q", name)
}

var errStopping = errors.New("the server is stopping")

// stopReader fails once ctx has ended.
type stopReader struct {
	ctx context.Context
	r   io.Reader
}

func (r stopReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, errStopping
	}
	return r.r.Read(p)
}
