package serve

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/config"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/pxe"
)

// listenTCP opens a listener and says which key is at fault when it cannot.
func listenTCP(key, address string) (net.Listener, error) {
	lis, err := net.Listen("tcp", address)
	if err == nil {
		return lis, nil
	}
	kind := errs.Invalid
	if errors.Is(err, unix.EADDRINUSE) {
		kind = errs.Exists
	}
	return nil, errs.About(kind, key, "%s: %w", key, err)
}

// listenUnix opens the socket of the local CLI, which only our user may use.
// The caller holds the data directory's lock; a socket that somebody answers
// on is still left alone, because it may be that of another data directory.
func listenUnix(path string) (net.Listener, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, errs.About(errs.Invalid, "socket", "socket: %w", err)
	case info.Mode()&os.ModeSocket == 0:
		return nil, errs.About(errs.Exists, "socket", "socket %s: there is a file that is no socket", path)
	default:
		if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
			conn.Close()
			return nil, errs.About(errs.Exists, "socket", "socket %s: another process listens on it", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, errs.About(errs.Invalid, "socket", "socket: %w", err)
		}
	}
	// Between bind and chmod anybody could connect. The umask is the process's,
	// but for this moment it only takes rights away.
	old := unix.Umask(0o177)
	lis, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, errs.About(errs.Invalid, "socket", "socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		lis.Close()
		return nil, errs.About(errs.Invalid, "socket", "socket: %w", err)
	}
	return lis, nil
}

// listeners are what a peer listens on, but for the cluster's own and those of
// the boot services, which are only tried.
type listeners struct {
	api, agent, socket net.Listener
	metrics            net.Listener // nil: not served
}

// openListeners says which key is at fault when something is in use.
func openListeners(cfg *config.Config) (l listeners, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.api, err = listenTCP("listen.api", cfg.Listen.API); err != nil {
		return l, err
	}
	if l.agent, err = listenTCP("listen.agent", cfg.Listen.Agent); err != nil {
		return l, err
	}
	if cfg.Listen.Metrics != "" {
		if l.metrics, err = listenTCP("listen.metrics", cfg.Listen.Metrics); err != nil {
			return l, err
		}
	}
	if l.socket, err = listenUnix(cfg.Socket); err != nil {
		return l, err
	}
	return l, checkBoot(listenBoot(cfg))
}

func (l listeners) close() error {
	var all []error
	for _, lis := range []net.Listener{l.api, l.agent, l.metrics, l.socket} {
		if lis != nil {
			all = append(all, lis.Close())
		}
	}
	return errors.Join(all...)
}

// listenBoot is where the boot services listen.
func listenBoot(cfg *config.Config) pxe.Config {
	b := pxe.Config{TFTPListen: cfg.Listen.TFTP, HTTPListen: cfg.Listen.Boot}
	if cfg.Boot.DHCP != config.DHCPOff {
		b.DHCPListen, b.ProxyListen = cfg.Listen.DHCP, cfg.Listen.PXE
		if cfg.Boot.DHCP == config.DHCPProxy {
			b.DHCPMode = api.DHCPMode_DHCP_PROXY
		}
		if cfg.Boot.Interface != "" {
			b.DHCPInterfaces = []string{cfg.Boot.Interface}
		}
	}
	return b
}

// checkBoot says which key is at fault when the boot services could not
// listen. They open their sockets later: they need the cluster.
func checkBoot(b pxe.Config) error {
	for _, l := range []struct {
		key string
		cfg pxe.Config
	}{
		{"listen.boot", pxe.Config{HTTPListen: b.HTTPListen}},
		{"listen.tftp", pxe.Config{TFTPListen: b.TFTPListen}},
		{"listen.dhcp", pxe.Config{DHCPListen: b.DHCPListen, DHCPInterfaces: b.DHCPInterfaces}},
		{"listen.pxe", pxe.Config{ProxyListen: b.ProxyListen, DHCPInterfaces: b.DHCPInterfaces}},
	} {
		if err := pxe.CheckListen(l.cfg); err != nil {
			return errs.About(errs.KindOf(err), l.key, "%s: %w", l.key, err)
		}
	}
	return nil
}

// grace is how long calls under way may take when the peer stops. Watches do
// not end by themselves and are cut then; clients go on at another peer.
const grace = 2 * time.Second

// serveGRPC runs a server until ctx ends.
func serveGRPC(ctx context.Context, srv *grpc.Server, lis net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(lis) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	graceful := make(chan struct{})
	go func() {
		srv.GracefulStop()
		close(graceful)
	}()
	cut := time.NewTimer(grace)
	defer cut.Stop()
	select {
	case <-graceful:
	case <-cut.C:
		srv.Stop()
		<-graceful
	}
	<-failed // nil after a stop
	return nil
}
