package agents

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/grpc/peer"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// standing is a clock that the test moves.
type standing struct{ passed time.Duration }

func (s *standing) Now() time.Time         { return time.Unix(1_000_000, 0) }
func (s *standing) Elapsed() time.Duration { return s.passed }

// TestEnrolRate: enrolments are bounded before anything is looked at, for each
// host and in all.
func TestEnrolRate(t *testing.T) {
	now := &standing{passed: time.Hour}
	e := NewEndpoint(Config{Clock: now})
	count := func(host netip.Addr, calls int) (ok int) {
		ctx := peer.NewContext(t.Context(), &peer.Peer{Addr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(host, 1234))})
		for range calls {
			switch _, err := e.Enrol(ctx, &api.EnrolRequest{}); {
			case errors.Is(err, errs.Invalid): // there is no certificate request
				ok++
			case !errors.Is(err, errs.Busy):
				t.Fatal(err)
			}
		}
		return ok
	}
	first := netip.MustParseAddr("192.0.2.1")
	if n := count(first, 1000); n != enrolPerHost.Burst {
		t.Errorf("%d at once from one host", n)
	}
	if n := count(netip.MustParseAddr("2001:db8::2"), 1); n != 1 {
		t.Error("one host takes from another")
	}
	now.passed += time.Second
	if n := count(first, 1000); n != int(enrolPerHost.PerSecond) {
		t.Errorf("%d in a second from one host", n)
	}
	now.passed += time.Minute
	all, from := 0, first
	for range 2000 {
		from = from.Next()
		all += count(from, 1)
	}
	if all != enrolInAll.Burst {
		t.Errorf("%d at once from all", all)
	}
}
