package redfish_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/drivertest"
	"github.com/ironring/ironring/drivers/governor"
	"github.com/ironring/ironring/drivers/redfish"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/sim/bmc"
)

func TestReadsShareOneSession(t *testing.T) {
	b := start(t, bmc.Config{MaxSessions: 1})
	d, ctx := driver(t), timeout(t, 20*time.Second)
	for range 5 {
		if _, err := d.PowerState(ctx, target(b)); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Identify(ctx, target(b)); err != nil {
			t.Fatal(err)
		}
	}
	// Failures and time-outs of a read leave the session as it is.
	b.Inject(bmc.Fault{Kind: bmc.Status, Status: 500, Path: "/Systems"})
	if _, err := d.PowerState(ctx, target(b)); errs.KindOf(err) != errs.Internal {
		t.Errorf("a fault of the BMC gives %v", err)
	}
	b.Heal()
	b.Inject(bmc.Fault{Kind: bmc.Silent, Path: "/Systems"})
	if _, err := d.PowerState(timeout(t, 300*time.Millisecond), target(b)); err == nil {
		t.Error("no error from a silent BMC")
	}
	b.Heal()
	if _, err := d.PowerState(ctx, target(b)); err != nil {
		t.Error(err)
	}
	if s := b.Stats(); s.Logins != 1 || s.Logouts != 0 || s.Sessions != 1 || s.Basic != 0 {
		t.Errorf("before the driver is closed: %+v", s)
	}
	d.Close(ctx)
	if s := b.Stats(); s.Logouts != 1 || s.Sessions != 0 {
		t.Errorf("once it is closed: %+v", s)
	}
	// It can be used again.
	if _, err := d.PowerState(ctx, target(b)); err != nil {
		t.Error(err)
	}
}

// A BMC that forgot the session, by a restart or its own time-out, is logged in
// to once more.
func TestExpiredSession(t *testing.T) {
	b := start(t, bmc.Config{})
	d, ctx := driver(t), timeout(t, 20*time.Second)
	read := func() error { _, err := d.PowerState(ctx, target(b)); return err }
	if err := read(); err != nil {
		t.Fatal(err)
	}
	b.DropSessions()
	if err := read(); err != nil || b.Stats().Logins != 2 {
		t.Errorf("after a restart of the BMC: %v, %+v", err, b.Stats())
	}

	// A refused login counts as one, and there is only one.
	b.DropSessions()
	b.Inject(bmc.Fault{Kind: bmc.WrongPassword})
	before := b.Stats().Refused
	err := read()
	if errs.KindOf(err) != errs.Denied || errors.Is(err, drivers.ErrRight) {
		t.Errorf("a refused login: %v", err)
	}
	if n := b.Stats().Refused - before; n != 2 { // the token, then the password
		t.Errorf("%d refusals, want 2", n)
	}
	b.Heal()

	// A login that was taken does not count as a failed one, whatever follows.
	b.Inject(bmc.Fault{Kind: bmc.Status, Status: 401, Path: "/Systems"})
	logins := b.Stats().Logins
	if err := read(); !errors.Is(err, drivers.ErrRight) || errs.KindOf(err) != errs.Denied {
		t.Errorf("401 after the login: %v", err)
	}
	if err := read(); !errors.Is(err, drivers.ErrRight) || b.Stats().Logins != logins+2 {
		t.Errorf("%v, %d logins", err, b.Stats().Logins-logins)
	}
	b.Heal()
	if err := read(); err != nil {
		t.Error(err)
	}
}

func TestNewCredentialsEndTheSession(t *testing.T) {
	b := start(t, bmc.Config{})
	d, ctx := driver(t), timeout(t, 20*time.Second)
	if _, err := d.PowerState(ctx, target(b)); err != nil {
		t.Fatal(err)
	}
	const fresh = "an0ther-one"
	b.SetPassword(fresh)
	info := with(b.Info(), "redfish_password", fresh)
	if _, err := d.PowerState(ctx, drivers.Target{NodeID: "n1", Driver: "redfish", Info: info}); err != nil {
		t.Fatal(err)
	}
	if s := b.Stats(); s.Logins != 2 || s.Logouts != 1 || s.Sessions != 1 {
		t.Errorf("with a new password: %+v", s)
	}
}

func TestIdleSessionEnds(t *testing.T) {
	b := start(t, bmc.Config{})
	d, err := redfish.New(redfish.Config{Idle: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(context.Background())
	if _, err := d.PowerState(timeout(t, 10*time.Second), target(b)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the idle session is logged out", func() bool { s := b.Stats(); return s.Logouts == 1 && s.Sessions == 0 })
}

// testFourSessions: two of four sessions are somebody else's, and many want to
// read and to change. We never have more than two, and two requests under way.
func testFourSessions(t *testing.T) {
	b := start(t, bmc.Config{Personality: "supermicro-x10"})
	ctx := timeout(t, 30*time.Second)
	for range 2 {
		other := driver(t)
		if _, err := other.PowerState(ctx, target(b)); err != nil {
			t.Fatal(err)
		}
	}
	d := driver(t)
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			if _, err := d.PowerState(ctx, target(b)); err != nil {
				t.Errorf("read: %v", err)
			}
			if i%3 == 0 {
				if err := d.SetPower(ctx, target(b), drivertest.NewGrant(time.Minute), api.PowerAction_POWER_ACTION_ON); err != nil {
					t.Errorf("change: %v", err)
				}
			}
		})
	}
	all.Wait()
	if s := b.Stats(); s.MostSessions > 4 || s.MostAtOnce > 2 || s.Sessions != 3 {
		t.Errorf("%+v", s)
	}
}

// A BMC that does not answer is left alone for a while, and what changes the
// machine is not held up by that.
func TestSilentBMCIsLeftAlone(t *testing.T) {
	b := start(t, bmc.Config{})
	d := driver(t)
	b.Inject(bmc.Fault{Kind: bmc.Silent})
	for range governor.Failures {
		if _, err := d.PowerState(timeout(t, 50*time.Millisecond), target(b)); errs.KindOf(err) != errs.Unreachable && errs.KindOf(err) != errs.Timeout {
			t.Fatalf("a silent BMC: %v", err)
		}
	}
	requests := b.Stats().Connections
	if _, err := d.PowerState(timeout(t, time.Second), target(b)); errs.KindOf(err) != errs.Busy || b.Stats().Connections != requests {
		t.Errorf("it was asked again: %v", err)
	}
	b.Heal()
	if err := d.SetPower(timeout(t, 10*time.Second), target(b), drivertest.NewGrant(time.Minute), api.PowerAction_POWER_ACTION_ON); err != nil {
		t.Error(err)
	}
	if _, err := d.PowerState(timeout(t, 5*time.Second), target(b)); err != nil {
		t.Errorf("after a change that succeeded: %v", err)
	}
}
