package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/conductor"
	"github.com/ironring/ironring/conductor/service"
	"github.com/ironring/ironring/internal/config"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rpc"
)

// servers are the gRPC listeners for clients and agents.
type servers struct {
	socket string
	list   []server
}

type server struct {
	name string
	ln   net.Listener
	grpc *grpc.Server
}

// listen opens the api listener (TLS), the unix socket and the agent listener.
func listen(cfg *config.Config, cl *cluster.Cluster, cond *conductor.Conductor, log *slog.Logger) (*servers, error) {
	s := &servers{socket: cfg.Socket}
	clients := func(opts ...grpc.ServerOption) *grpc.Server {
		opts = append(opts, rpc.ServerOptions(log)...)
		opts = append(opts, grpc.ChainUnaryInterceptor(service.UnaryAuth), grpc.ChainStreamInterceptor(service.StreamAuth))
		g := grpc.NewServer(opts...)
		api.RegisterIronringServer(g, cond.API())
		api.RegisterJoinServer(g, cl.JoinServer())
		return g
	}
	agents := grpc.NewServer(append(rpc.ServerOptions(log), grpc.Creds(credentials.NewTLS(cl.TLS().ServerTLS(false))))...)
	api.RegisterAgentServer(agents, cond.AgentServer())

	apiLn, err := listenTCP("api", cfg.Listen.API)
	if err != nil {
		return nil, err
	}
	s.list = append(s.list, server{"api", apiLn, clients(grpc.Creds(credentials.NewTLS(cl.TLS().ServerTLS(false))))})
	agentLn, err := listenTCP("agent", cfg.Listen.Agent)
	if err != nil {
		s.close()
		return nil, err
	}
	s.list = append(s.list, server{"agent", agentLn, agents})
	sock, err := listenUnix(cfg.Socket)
	if err != nil {
		s.close()
		return nil, err
	}
	s.list = append(s.list, server{"socket", sock, clients()})
	return s, nil
}

func listenTCP(name, addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, errs.About(errs.Exists, "listen."+name, "listen.%s: %s is in use by another program", name, addr)
	}
	if err != nil {
		return nil, errs.About(errs.Invalid, "listen."+name, "listen.%s: %w", name, err)
	}
	return ln, nil
}

// listenUnix opens the socket of the local CLI, for this user only. The data
// directory's lock is held by now, so a socket file that is there is a dead
// peer's.
func listenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errs.About(errs.Invalid, "socket", "socket: %w", err)
	}
	// The mask closes the moment between bind and chmod to other users.
	umaskMu.Lock()
	old := syscall.Umask(0o177)
	ln, err := net.Listen("unix", path)
	syscall.Umask(old)
	umaskMu.Unlock()
	if err != nil {
		return nil, errs.About(errs.Invalid, "socket", "socket %s (a path of at most 107 bytes): %w", path, err)
	}
	return ln, nil
}

var umaskMu sync.Mutex // the mask is the process's

func (s *servers) close() {
	for _, x := range s.list {
		_ = x.ln.Close() // it served nobody yet
	}
}

func (s *servers) apiAddr() string { return s.list[0].ln.Addr().String() }

// run serves until ctx ends, then lets calls under way finish, up to a limit:
// watches and agents' streams would never end by themselves.
func (s *servers) run(ctx context.Context) error {
	var g errgroup.Group
	for _, x := range s.list {
		g.Go(func() error {
			if err := x.grpc.Serve(x.ln); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", x.name, err)
			}
			return nil
		})
		g.Go(func() error {
			<-ctx.Done()
			done := make(chan struct{})
			go func() { x.grpc.GracefulStop(); close(done) }()
			t := time.NewTimer(stopLimit)
			defer t.Stop()
			select {
			case <-done:
			case <-t.C:
				x.grpc.Stop()
				<-done
			}
			return nil
		})
	}
	return g.Wait()
}
