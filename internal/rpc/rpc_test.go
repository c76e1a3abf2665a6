package rpc

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

func TestKindsRoundTrip(t *testing.T) {
	for k := errs.Internal; k <= errs.Unreachable; k++ {
		st := ToStatus(errs.About(k, "n1", "do it: refused"))
		if got := status.Code(st); got != kindCodes[k] {
			t.Errorf("%v: code %v", k, got)
		}
		err := FromStatus(st)
		if !errors.Is(err, k) || errs.SubjectOf(err) != "n1" || err.Error() != "do it: refused" {
			t.Errorf("%v came back as %v %q %q", k, errs.KindOf(err), errs.SubjectOf(err), err)
		}
		// A handler that passes on an error of another peer keeps it whole.
		if again := FromStatus(ToStatus(err)); !errors.Is(again, k) {
			t.Errorf("%v: second hop gives %v", k, again)
		}
	}
	if err := FromStatus(ToStatus(context.DeadlineExceeded)); !errors.Is(err, errs.Timeout) {
		t.Errorf("deadline: %v", err)
	}
	if ToStatus(nil) != nil || FromStatus(nil) != nil || FromFailure(nil) != nil || ToFailure(nil) != nil {
		t.Error("nil must stay nil")
	}
}

type server struct {
	api.UnimplementedClusterServer
	do atomic.Pointer[func(ctx context.Context) error]
}

func (s *server) set(do func(ctx context.Context) error) { s.do.Store(&do) }

func (s *server) PeerInfo(ctx context.Context, _ *api.PeerInfoRequest) (*api.PeerInfoReply, error) {
	return &api.PeerInfoReply{}, (*s.do.Load())(ctx)
}

func dial(t *testing.T, addr string) api.ClusterClient {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+addr,
		append(DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return api.NewClusterClient(cc)
}

func TestOverTheWire(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &server{}
	srv := grpc.NewServer(ServerOptions(nil)...)
	api.RegisterClusterServer(srv, h)
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(lis) }()
	defer func() { srv.Stop(); <-done }()
	c := dial(t, lis.Addr().String())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	h.set(func(context.Context) error { return errs.New(errs.NotLeader, "p2 leads") })
	if _, err := c.PeerInfo(ctx, &api.PeerInfoRequest{}); !errors.Is(err, errs.NotLeader) {
		t.Errorf("kind is lost: %v", err)
	}
	h.set(func(context.Context) error { panic("boom") })
	if _, err := c.PeerInfo(ctx, &api.PeerInfoRequest{}); !errors.Is(err, errs.Internal) {
		t.Errorf("panic gives %v", err)
	}
	h.set(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	if _, err := c.PeerInfo(short, &api.PeerInfoRequest{}); !errors.Is(err, errs.Timeout) {
		t.Errorf("a call without an answer gives %v", err)
	}
	// The server dies while the call is there: the outcome is unknown.
	h.set(func(ctx context.Context) error { go srv.Stop(); <-ctx.Done(); return ctx.Err() })
	if _, err := c.PeerInfo(ctx, &api.PeerInfoRequest{}); !errors.Is(err, errs.Timeout) {
		t.Errorf("a cut call gives %v", err)
	}
	// Nobody listens: nothing was sent.
	if _, err := dial(t, lis.Addr().String()).PeerInfo(ctx, &api.PeerInfoRequest{}); !errors.Is(err, errs.Unreachable) {
		t.Errorf("no listener gives %v", err)
	}
}
