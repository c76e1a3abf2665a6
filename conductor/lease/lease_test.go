package lease_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/conductor/lease"
	"github.com/ironring/ironring/internal/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Of conductortest.Settings.
const (
	validity = 8 * time.Second
	period   = 2 * time.Second
	// slack is how late a gate may close.
	slack = 150 * time.Millisecond
)

// fixture is a keeper that runs, inside a bubble.
type fixture struct {
	*testing.T
	c    *conductortest.Cluster
	p    *conductortest.Peer
	k    *lease.Keeper
	stop context.CancelFunc
	done chan error
	// behind is set while the peer commits but does not apply.
	behind atomic.Bool
}

// bubble runs a test with a keeper. The keeper must have ended without an
// error afterwards, unless the test took the error from done.
func bubble(t *testing.T, test func(f *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{T: t, c: conductortest.New(t, "p1", "p2"), done: make(chan error, 1)}
		f.p = f.c.Peer("p1")
		f.start()
		test(f)
		f.stop()
		if err := <-f.done; err != nil {
			t.Errorf("the keeper ended with: %v", err)
		}
	})
}

func (f *fixture) start() {
	f.k = lease.New(lease.Config{
		Proposer: f.p, Member: "p1", MachineID: "m1", BootID: "b1", Clock: f.c.Clock, Logger: slog.New(slog.DiscardHandler),
		Timing: func() *api.Timing { return f.c.Store.View().Settings().GetTiming() },
		Fresh: func(context.Context) error {
			if f.behind.Load() {
				return errs.New(errs.Timeout, "this peer is behind")
			}
			return nil
		},
	})
	ctx, cancel := context.WithCancel(f.Context())
	f.stop = cancel
	go func() { f.done <- f.k.Run(ctx) }()
}

func (f *fixture) wait() *lease.Gate {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), time.Minute)
	defer cancel()
	g, err := f.k.Wait(ctx)
	if err != nil {
		f.Fatalf("no gate: %v", err)
	}
	return g
}

// closesIn waits until the gate closes and gives how long that took.
func (f *fixture) closesIn(g *lease.Gate, limit time.Duration) time.Duration {
	f.Helper()
	begin := time.Now()
	select {
	case <-g.Done():
	case <-time.After(limit):
		f.Fatalf("the gate did not close within %v", limit)
	}
	return time.Since(begin)
}

func renewal(cmd *api.Command) bool { return cmd.GetOps()[0].GetLeaseRenew() != nil }

// only applies a fate to renewals.
func only(fate conductortest.Fate) func(*api.Command) conductortest.Fate {
	return func(cmd *api.Command) conductortest.Fate {
		if renewal(cmd) {
			return fate
		}
		return conductortest.Fate{}
	}
}

func TestGateStaysOpenWhileRenewed(t *testing.T) {
	bubble(t, func(f *fixture) {
		g := f.wait()
		select {
		case <-g.Done():
			f.Error("the gate closed although renewals are committed")
		case <-time.After(10 * time.Minute):
		}
		if err := errors.Join(g.Check(), g.CheckMutating()); err != nil {
			f.Error(err)
		}
		l := f.c.Store.View().LiveLease("p1")
		if l.GetId() != g.Lease || l.GetRenewSeq() < 250 {
			f.Errorf("lease %v", l)
		}
		if left := g.Deadline().Sub(f.c.Clock.Now()); left < validity-period-slack || left > validity {
			f.Errorf("%v left", left)
		}
	})
}

// The validity counts from the moment a renewal was sent. With answers that
// come 900 ms late, the gate must close 8 s after the last one was sent.
func TestDeadlineCountsFromSend(t *testing.T) {
	bubble(t, func(f *fixture) {
		var mu sync.Mutex
		var sent time.Time
		cut := false
		f.p.Decide(func(cmd *api.Command) conductortest.Fate {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case !renewal(cmd):
				return conductortest.Fate{}
			case cut:
				return conductortest.Fate{Drop: true}
			}
			sent = time.Now()
			return conductortest.Fate{Late: 900 * time.Millisecond}
		})
		g := f.wait()
		conductortest.Pass(20 * time.Second)
		mu.Lock()
		cut = true
		mu.Unlock()
		f.closesIn(g, time.Minute)
		if open := time.Since(sent); open < validity || open > validity+slack {
			f.Errorf("the gate was open for %v after the last committed renewal was sent, want %v", open, validity)
		}
		if f.k.Current() != nil || g.Check() == nil || g.CheckMutating() == nil {
			f.Error("a closed gate lets act")
		}
		if _, _, err := g.Enter(f.Context()); !errors.Is(err, errs.Fenced) {
			f.Errorf("a closed gate lets in: %v", err)
		}
	})
}

// A renewal that never answers must not keep the gate open past its deadline.
func TestGateClosesOnTimeWhileRenewalHangs(t *testing.T) {
	bubble(t, func(f *fixture) {
		g := f.wait()
		opened := time.Now()
		first := true // fails after half a second, so that the last one is sent 7.5 s after the gate opened
		f.p.Decide(func(*api.Command) conductortest.Fate {
			if first {
				first = false
				conductortest.Pass(500 * time.Millisecond)
				return conductortest.Fate{Refuse: errs.New(errs.NoQuorum, "no leader")}
			}
			return conductortest.Fate{Drop: true}
		})
		f.closesIn(g, time.Minute)
		if took := time.Since(opened); took > validity+slack {
			f.Errorf("closed %v after it opened, want %v", took, validity)
		}
	})
}

// An answer that was lost extends nothing, although the renewal counts for the
// cluster.
func TestLostAnswerKeepsOldDeadline(t *testing.T) {
	bubble(t, func(f *fixture) {
		g := f.wait()
		opened := time.Now()
		f.p.Decide(only(conductortest.Fate{Lose: true}))
		f.closesIn(g, time.Minute)
		if took := time.Since(opened); took > validity+slack {
			f.Errorf("closed after %v", took)
		}
		if l := f.c.Store.View().Lease(g.Lease); l.GetState() != api.Lease_LIVE || l.GetRenewSeq() == 0 {
			f.Errorf("lease %v", l)
		}
	})
}

func TestMarginForChanges(t *testing.T) {
	bubble(t, func(f *fixture) {
		g := f.wait()
		f.p.Decide(only(conductortest.Fate{Drop: true}))
		conductortest.Pass(validity - time.Second)
		if err := g.Check(); err != nil {
			f.Errorf("a second before the end: %v", err)
		}
		if err := g.CheckMutating(); !errors.Is(err, errs.Fenced) {
			f.Errorf("a change may begin a second before the end: %v", err)
		}
	})
}

// A closed gate is not a lost lease: the next committed renewal opens a new
// gate of the same lease, but not before the work under the old one has ended.
func TestReopenWaitsForOldWork(t *testing.T) {
	bubble(t, func(f *fixture) {
		g := f.wait()
		ctx, leave, err := g.Enter(f.Context())
		if err != nil {
			f.Fatal(err)
		}
		f.p.Decide(only(conductortest.Fate{Drop: true}))
		f.closesIn(g, time.Minute)
		<-ctx.Done() // the work hears of it, but takes its time
		if ctx.Err() == nil {
			f.Error("the work's context goes on")
		}
		seq := f.c.Store.View().Lease(g.Lease).GetRenewSeq()
		f.p.Decide(nil)
		conductortest.Pass(6 * time.Second)
		if f.k.Current() != nil {
			f.Error("a new gate is open while old work runs")
		}
		if now := f.c.Store.View().Lease(g.Lease); now.GetRenewSeq() < seq+2 {
			f.Errorf("the lease was not renewed while the old work ended: seq %d, was %d", now.GetRenewSeq(), seq)
		}
		leave()
		begin := time.Now()
		again := f.wait()
		if again == g || again.Lease != g.Lease {
			f.Errorf("gate of lease %s, want a new one of %s", again.Lease, g.Lease)
		}
		if took := time.Since(begin); took > time.Second {
			f.Errorf("opened %v after the work ended", took)
		}
	})
}

// Fence, drain, new lease: in this order.
func TestFenceDrainNewLease(t *testing.T) {
	bubble(t, func(f *fixture) {
		g := f.wait()
		_, leave, err := g.Enter(f.Context())
		if err != nil {
			f.Fatal(err)
		}
		f.c.Must(&api.Op{Op: &api.Op_LeaseFence{LeaseFence: &api.LeaseFence{LeaseId: g.Lease, Cause: "operator", Term: f.c.Term()}}})
		if took := f.closesIn(g, time.Minute); took > period+slack {
			f.Errorf("the fence was noticed after %v", took)
		}
		conductortest.Pass(5 * time.Second)
		if l := f.c.Store.View().LiveLease("p1"); l != nil {
			f.Errorf("lease %s was registered while work of the fenced one ran", l.GetId())
		}
		leave()
		if again := f.wait(); again.Lease == g.Lease {
			f.Error("the fenced lease goes on")
		}
	})
}

// Work that does not end makes the keeper fail, so that the process exits.
func TestUndrainedWorkIsFatal(t *testing.T) {
	for name, lose := range map[string]func(f *fixture, g *lease.Gate){
		"fenced": func(f *fixture, g *lease.Gate) {
			f.c.Must(&api.Op{Op: &api.Op_LeaseFence{LeaseFence: &api.LeaseFence{LeaseId: g.Lease, Cause: "operator", Term: f.c.Term()}}})
		},
		"closed":  func(f *fixture, _ *lease.Gate) { f.c.Clock.Jump(time.Hour) },
		"stopped": func(f *fixture, _ *lease.Gate) { f.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(f *fixture) {
				g := f.wait()
				_, leave, err := g.Enter(f.Context())
				if err != nil {
					f.Fatal(err)
				}
				defer leave()
				lose(f, g)
				f.closesIn(g, time.Minute)
				begin := time.Now()
				err = <-f.done
				if err == nil {
					f.Error("the keeper ended without an error")
				}
				if took := time.Since(begin); took > 13*time.Second {
					f.Errorf("it took %v", took)
				}
				if l := f.c.Store.View().Lease(g.Lease); l.GetState() == api.Lease_RELEASED {
					f.Error("the lease was released under running work")
				}
				f.done <- nil
			})
		})
	}
}

// A jump of the wall clock closes the gate until a renewal that was sent after
// it is committed.
func TestWallClockJump(t *testing.T) {
	for _, by := range []time.Duration{time.Hour, -time.Hour, 1100 * time.Millisecond} {
		bubble(t, func(f *fixture) {
			g := f.wait()
			f.p.Decide(only(conductortest.Fate{Drop: true}))
			conductortest.Pass(time.Second)
			f.c.Clock.Jump(by)
			if took := f.closesIn(g, time.Minute); took > slack {
				f.Errorf("jump by %v: noticed after %v", by, took)
			}
			if f.k.Current() != nil {
				f.Error("a gate is open")
			}
			f.p.Decide(nil)
			if again := f.wait(); again.Lease != g.Lease {
				f.Error("the lease was lost")
			}
		})
	}
	bubble(t, func(f *fixture) { // what a time service does every day
		g := f.wait()
		for range 20 {
			f.c.Clock.Jump(50 * time.Millisecond)
			conductortest.Pass(time.Second)
		}
		if g.Check() != nil {
			f.Error("a small step of the wall clock closed the gate")
		}
	})
}

// The host is frozen while a renewal is on its way, in a way that its elapsed
// clock does not count. The answer lay in the socket: it extends nothing and
// opens nothing, only a renewal that was sent after the thaw does.
func TestAnswerFromBeforeAFreeze(t *testing.T) {
	bubble(t, func(f *fixture) {
		g := f.wait()
		var mu sync.Mutex
		var thaw time.Time
		after := 0
		f.p.Decide(func(cmd *api.Command) conductortest.Fate {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case !renewal(cmd):
			case thaw.IsZero():
				f.c.Clock.Jump(30 * time.Second)
				thaw = time.Now()
			default:
				after++
			}
			return conductortest.Fate{}
		})
		f.closesIn(g, time.Minute)
		mu.Lock()
		if late := time.Since(thaw); late > slack || after > 0 {
			f.Errorf("the gate closed %v after the thaw, %d renewals later", late, after)
		}
		mu.Unlock()
		again := f.wait()
		mu.Lock()
		defer mu.Unlock()
		if again == g || after == 0 {
			f.Errorf("the gate opened after %d renewals", after)
		}
	})
}

// The same while the lease is registered.
func TestFreezeDuringRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{T: t, c: conductortest.New(t, "p1"), done: make(chan error, 1)}
		f.p = f.c.Peer("p1")
		var renewed atomic.Bool
		f.p.Decide(func(cmd *api.Command) conductortest.Fate {
			if renewal(cmd) {
				renewed.Store(true)
			} else if cmd.GetOps()[0].GetLeaseRegister() != nil {
				f.c.Clock.Jump(time.Minute)
			}
			return conductortest.Fate{}
		})
		f.start()
		for !renewed.Load() {
			if g := f.k.Current(); g != nil && g.Check() == nil {
				t.Fatal("the gate is open before the first renewal")
			}
			conductortest.Pass(10 * time.Millisecond)
		}
		f.wait()
		f.stop()
		if err := <-f.done; err != nil {
			t.Error(err)
		}
	})
}

// A suspend of the host moves both clocks while no timer fires.
func TestSuspend(t *testing.T) {
	bubble(t, func(f *fixture) {
		g := f.wait()
		f.c.Clock.Sleep(time.Hour)
		if err := g.Check(); !errors.Is(err, errs.Fenced) {
			f.Errorf("the first act after an hour of suspend: %v", err)
		}
		if _, _, err := g.Enter(f.Context()); !errors.Is(err, errs.Fenced) {
			f.Errorf("work begins after an hour of suspend: %v", err)
		}
		if took := f.closesIn(g, time.Minute); took > slack {
			f.Errorf("closed after %v", took)
		}
	})
}

func TestReleaseOnStop(t *testing.T) {
	bubble(t, func(f *fixture) {
		g := f.wait()
		_, leave, err := g.Enter(f.Context())
		if err != nil {
			f.Fatal(err)
		}
		f.stop()
		<-g.Done()
		synctest.Wait()
		if l := f.c.Store.View().Lease(g.Lease); l.GetState() != api.Lease_LIVE {
			f.Error("released before the work had ended")
		}
		leave()
		if err := <-f.done; err != nil {
			f.Error(err)
		}
		if l := f.c.Store.View().Lease(g.Lease); l.GetState() != api.Lease_RELEASED {
			f.Errorf("lease is %v", l.GetState())
		}
		f.done <- nil
	})
}

// A registration whose answer is lost is repeated under the same id: the late
// commit of a first try must not fence the lease that a second one got.
func TestRegistrationRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{T: t, c: conductortest.New(t, "p1"), done: make(chan error, 1)}
		f.p = f.c.Peer("p1")
		var mu sync.Mutex
		ids := map[string]int{}
		first := true
		f.p.Decide(func(cmd *api.Command) conductortest.Fate {
			mu.Lock()
			defer mu.Unlock()
			r := cmd.GetOps()[0].GetLeaseRegister()
			if r == nil {
				return conductortest.Fate{}
			}
			ids[r.GetLease().GetId()]++
			if first {
				first = false
				return conductortest.Fate{Lose: true}
			}
			return conductortest.Fate{}
		})
		begin := time.Now()
		f.start()
		g := f.wait()
		if len(ids) != 1 || ids[g.Lease] != 2 {
			t.Errorf("registered %v", ids)
		}
		if until := g.Deadline().Sub(begin); until > validity {
			t.Errorf("valid until %v after the first try was sent", until)
		}
		conductortest.Pass(time.Minute)
		if l := f.c.Store.View().LiveLease("p1"); f.k.Current() == nil || f.k.Current().Lease != l.GetId() {
			t.Errorf("live lease %v", l)
		}
		f.stop()
		if err := <-f.done; err != nil {
			t.Error(err)
		}
	})
}

// A second process with the same identity on another machine waits until the
// lease of the first has expired.
func TestOtherMachineWaits(t *testing.T) {
	bubble(t, func(f *fixture) {
		g := f.wait()
		other := lease.New(lease.Config{
			Proposer: f.p, Member: "p1", MachineID: "m2", BootID: "b2", Clock: f.c.Clock, Logger: slog.New(slog.DiscardHandler),
			Timing: func() *api.Timing { return f.c.Store.View().Settings().GetTiming() },
		})
		ctx, cancel := context.WithCancel(f.Context())
		ended := make(chan error, 1)
		go func() { ended <- other.Run(ctx) }()
		conductortest.Pass(time.Minute)
		if other.Current() != nil || g.Check() != nil {
			f.Error("the second process has a gate, or the first has none")
		}
		cancel()
		if err := <-ended; err != nil {
			f.Error(err)
		}
	})
}

// Progress travels with renewals, and is told again when a renewal is lost.
func TestProgress(t *testing.T) {
	bubble(t, func(f *fixture) {
		g := f.wait()
		var mu sync.Mutex
		var told [][]uint64
		f.p.Decide(func(cmd *api.Command) conductortest.Fate {
			mu.Lock()
			defer mu.Unlock()
			if p := cmd.GetOps()[0].GetLeaseRenew().GetProgressed(); len(p) > 0 {
				told = append(told, p)
				if len(told) == 1 {
					return conductortest.Fate{Drop: true}
				}
			}
			return conductortest.Fate{}
		})
		g.Progress(7)
		conductortest.Pass(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if len(told) != 2 || told[1][0] != 7 {
			f.Errorf("told %v", told)
		}
	})
}

func TestWaitEnds(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.wait()
		f.p.Decide(only(conductortest.Fate{Drop: true}))
		conductortest.Until(f, time.Minute, "gate closed", func() bool { return f.k.Current() == nil })
		ctx, cancel := context.WithTimeout(f.Context(), time.Second)
		defer cancel()
		if _, err := f.k.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			f.Errorf("%v", err)
		}
	})
}

// A peer whose disk is full commits through the leader but applies nothing:
// its renewals must end, or others would wait for it for ever. Once it keeps
// up again it gets a lease.
func TestPeerThatIsBehindKeepsNoLease(t *testing.T) {
	bubble(t, func(f *fixture) {
		g := f.wait()
		f.behind.Store(true)
		var renewals atomic.Int32
		f.p.Decide(func(cmd *api.Command) conductortest.Fate {
			if !f.behind.Load() {
				return conductortest.Fate{}
			}
			renewals.Add(1)
			return conductortest.Fate{Lose: true} // committed, but no answer
		})
		f.closesIn(g, validity+period+slack)
		<-time.After(time.Minute)
		at := renewals.Load()
		<-time.After(5 * time.Minute)
		if n := renewals.Load(); n != at {
			f.Errorf("%d renewals were sent by a peer that applies nothing", n-at)
		}
		f.behind.Store(false)
		f.wait()
	})
}
