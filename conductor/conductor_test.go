package conductor_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/internal/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mac = "52:54:00:00:00:01"

type fixture struct {
	*testing.T
	c    *conductortest.Cluster
	p    *conductortest.Peer
	drv  *stubborn
	cond *conductor.Conductor
	ctx  context.Context
	stop context.CancelFunc
	done chan error
}

// stubborn is the fake driver; its calls can be made to ignore their context.
type stubborn struct {
	*fake.Driver
	stuck chan struct{} // nil: obedient
}

func (s *stubborn) PowerState(ctx context.Context, t drivers.Target) (api.PowerState, error) {
	if s.stuck != nil {
		<-s.stuck
	}
	return s.Driver.PowerState(ctx, t)
}

func bubble(t *testing.T, test func(f *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{T: t, c: conductortest.New(t, "p1", "p2"), done: make(chan error, 1), ctx: conductortest.OverSocket(t.Context())}
		f.p = f.c.Peer("p1")
		drv, err := fake.New(fake.Config{})
		if err != nil {
			t.Fatal(err)
		}
		f.drv = &stubborn{Driver: drv}
		f.cond, err = conductor.New(conductor.Config{
			Cluster: f.p, MachineID: "m1", BootID: "b1", Registry: drivers.NewRegistry(f.drv), DataDir: t.TempDir(), Version: "test",
			Clock: f.c.Clock, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		f.stop = cancel
		lead, stopLead := context.WithCancel(context.Background())
		led := make(chan error, 1)
		go func() { led <- f.c.Lead(lead) }()
		go func() { f.done <- f.cond.Run(ctx) }()
		test(f)
		cancel()
		if err := <-f.done; err != nil {
			t.Errorf("Run: %v", err)
		}
		stopLead()
		if err := <-led; err != nil {
			t.Error(err)
		}
	})
}

func (f *fixture) state() api.State {
	for n := range f.c.Store.View().Nodes() {
		return n.GetState()
	}
	return 0
}

func (f *fixture) create() {
	f.Helper()
	_, err := f.cond.API().CreateNode(f.ctx, &api.CreateNodeRequest{Node: &api.Node{Name: "n1", Driver: "fake"}, Ports: []*api.Port{{Address: mac, PxeEnabled: true}}})
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) manage() {
	f.Helper()
	if _, err := f.cond.API().Provision(f.ctx, &api.ProvisionRequest{Node: "n1", Verb: api.Event_EV_MANAGE}); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) until(what string, cond func() bool) {
	f.Helper()
	conductortest.Until(f, 2*time.Minute, what, cond)
}

// From a verb over the API to a state, and what the peers saw on the way.
func TestWhole(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.create()
		f.manage()
		f.until("manageable", func() bool { return f.state() == api.State_MANAGEABLE })
		f.cond.Observe(&api.JournalEvent{NodeId: "no node", Text: "must not hurt"})
		f.c.Must(&api.Op{Op: &api.Op_NetworkSet{NetworkSet: &api.NetworkSet{Network: &api.Network{Name: "n", Cidr: "10.0.0.0/24", RangeStart: "10.0.0.10", RangeEnd: "10.0.0.20"}}}})
		ip, err := f.cond.Allocate(f.Context(), "n", mac)
		if err != nil || !strings.HasPrefix(ip.String(), "10.0.0.1") {
			f.Errorf("%v, %v", ip, err)
		}
		if _, err := f.cond.Allocate(f.Context(), "none", mac); !errors.Is(err, errs.NotFound) {
			f.Error(err)
		}
		f.stop()
		if err := <-f.done; err != nil {
			f.Error(err)
		}
		f.done <- nil
		if f.c.Store.View().LiveLease("p1") != nil {
			f.Error("the lease was not released")
		}
	})
}

// Before the member leaves, its work is parked and its lease released; when it
// cannot leave, the work goes on.
func TestLeave(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.create()
		f.until("lease", func() bool { return f.c.Store.View().LiveLease("p1") != nil })
		refused := errors.New("not now")
		var held bool
		f.p.OnLeave = func() error {
			held = f.c.Store.View().LiveLease("p1") != nil
			return refused
		}
		if err := f.cond.Leave(f.Context()); !errors.Is(err, refused) {
			f.Error(err)
		}
		if held {
			f.Error("the lease was live while the member left")
		}
		f.manage()
		f.until("work goes on", func() bool { return f.state() == api.State_MANAGEABLE })
		f.p.OnLeave = nil
		if err := f.cond.Leave(f.Context()); err != nil {
			f.Error(err)
		}
		conductortest.Pass(time.Minute)
		if f.c.Store.View().LiveLease("p1") != nil {
			f.Error("a member that has left has a lease")
		}
	})
}

// Work that does not end under a fenced lease ends the process: Run returns
// although that work goes on.
func TestStuckWork(t *testing.T) {
	for name, begin := range map[string]func(f *fixture){
		"fenced": func(f *fixture) {
			l := f.c.Store.View().LiveLease("p1")
			f.c.Must(&api.Op{Op: &api.Op_LeaseFence{LeaseFence: &api.LeaseFence{LeaseId: l.GetId(), Cause: "operator", Term: f.c.Term()}}})
		},
		"cut off": func(f *fixture) { f.p.Cut(true) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				f.create()
				stuck := make(chan struct{})
				f.drv.stuck = stuck
				f.manage()
				f.until("a call", func() bool { return f.c.Store.View().Flow(nodeOf(f)).GetStarted() })
				conductortest.Pass(time.Second)
				begin(f)
				select {
				case err := <-f.done:
					if err == nil || !strings.Contains(err.Error(), "did not end") {
						f.Errorf("Run ended with %v", err)
					}
				case <-time.After(time.Minute):
					f.Error("Run waits for work that does not end")
				}
				close(stuck)
				f.done <- nil
			})
		})
	}
}

func nodeOf(f *fixture) string {
	for n := range f.c.Store.View().Nodes() {
		return n.GetId()
	}
	return ""
}
