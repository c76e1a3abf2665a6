package fake_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/drivertest"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/internal/errs"
)

const on = api.PowerAction_POWER_ACTION_ON

func driver(t *testing.T) *fake.Driver {
	t.Helper()
	d, err := fake.New(fake.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestConformance(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) drivertest.Fixture {
		d := driver(t)
		b := d.BMC("a")
		b.SetPassword("s3cret-pw")
		return drivertest.Fixture{
			Driver:        d,
			Target:        drivers.Target{NodeID: "n1", Driver: "fake", Info: drivers.Info{"fake_address": "a", "fake_password": "s3cret-pw"}},
			WrongPassword: drivers.Info{"fake_address": "a", "fake_password": "wr0ng-one"},
			Secrets:       []string{"s3cret-pw", "wr0ng-one"},
			Changes:       b.Changes,
			Silence:       func() { b.Inject(fake.Fault{Kind: fake.Die}) },
			Console:       b.Print,
		}
	})
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := driver(t)
		target := drivers.Target{NodeID: "n1"}
		b := d.BMC("n1")
		boom := errs.New(errs.Busy, "boom")
		power := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			return d.SetPower(ctx, target, drivertest.NewGrant(time.Hour), on)
		}
		for _, test := range []struct {
			fault fake.Fault
			want  errs.Kind
			on    bool
			took  time.Duration
		}{
			{fake.Fault{Kind: fake.Slow, Delay: 3 * time.Second}, -1, true, 3 * time.Second},
			{fake.Fault{Kind: fake.Slow, Delay: time.Minute}, errs.Timeout, false, 10 * time.Second},
			{fake.Fault{Kind: fake.Lie}, -1, false, 0},
			{fake.Fault{Kind: fake.Die}, errs.Timeout, false, 10 * time.Second},
			{fake.Fault{Kind: fake.DieAfter}, errs.Timeout, true, 10 * time.Second},
			{fake.Fault{Kind: fake.Deny}, errs.Denied, false, 0},
			{fake.Fault{Kind: fake.Fail, Err: boom}, errs.Busy, false, 0},
			{fake.Fault{Kind: fake.FailAfter, Err: boom}, errs.Busy, true, 0},
		} {
			b.SetPower(api.PowerState_POWER_OFF)
			test.fault.Verb, test.fault.Times = fake.SetPower, 1
			b.Inject(test.fault)
			begin := time.Now()
			err := power()
			if (test.want < 0) != (err == nil) || (err != nil && errs.KindOf(err) != test.want) {
				t.Errorf("%+v: %v", test.fault, err)
			}
			if took := time.Since(begin); took != test.took {
				t.Errorf("%+v: took %v, want %v", test.fault, took, test.took)
			}
			if got := b.Power() == api.PowerState_POWER_ON; got != test.on {
				t.Errorf("%+v: on is %v", test.fault, got)
			}
		}
		if err := power(); err != nil {
			t.Errorf("the fault was for one call: %v", err)
		}
		calls := b.Calls()
		if last := calls[len(calls)-1]; last.Token != 7 || last.Effective.IsZero() || last.Action != on {
			t.Errorf("the last call is %+v", last)
		}
	})
}

func TestLies(t *testing.T) {
	d := driver(t)
	target := drivers.Target{NodeID: "n1"}
	d.BMC("n1").Inject(fake.Fault{Kind: fake.Lie})
	if s, err := d.PowerState(t.Context(), target); err != nil || s != api.PowerState_POWER_ON {
		t.Errorf("power reads %v, %v", s, err)
	}
	lie, err := d.Identify(t.Context(), target)
	d.BMC("n1").Heal()
	truth, err2 := d.Identify(t.Context(), target)
	if errors.Join(err, err2) != nil || lie.SystemUuid == truth.SystemUuid {
		t.Errorf("%v and %v", lie, truth)
	}
}

func TestOnPower(t *testing.T) {
	d := driver(t)
	target := drivers.Target{NodeID: "n1"}
	var got []api.BootDevice
	d.BMC("n1").OnPower(func(s api.PowerState, dev api.BootDevice) { got = append(got, dev) })
	g := drivertest.NewGrant(time.Minute)
	if err := d.SetBootDevice(t.Context(), target, g, api.BootDevice_BOOT_DEVICE_PXE, drivers.BootOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, a := range []api.PowerAction{on, on, api.PowerAction_POWER_ACTION_OFF, on} {
		if err := d.SetPower(t.Context(), target, g, a); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != 3 || got[0] != api.BootDevice_BOOT_DEVICE_PXE || got[2] != api.BootDevice_BOOT_DEVICE_NONE {
		t.Errorf("boots are %v", got)
	}
}
