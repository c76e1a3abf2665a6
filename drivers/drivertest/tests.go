package drivertest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

const (
	on      = api.PowerAction_POWER_ACTION_ON
	off     = api.PowerAction_POWER_ACTION_OFF
	softOff = api.PowerAction_POWER_ACTION_SOFT_OFF
)

func testDescribe(t *testing.T, b *bench) {
	required := 0
	for _, f := range b.Driver.Fields() {
		if f.Name == "" || f.Help == "" {
			t.Errorf("field %+v lacks a name or a help text", f)
		}
		if strings.Contains(f.Name, "password") && !f.Secret {
			t.Errorf("field %s is not secret", f.Name)
		}
		if f.Required {
			required++
		}
	}
	b.fine(t, "validate", b.Driver.Validate(b.Target.Info))
	if required > 0 {
		err := b.Driver.Validate(drivers.Info{})
		b.kind(t, "validate nothing", err, errs.Invalid)
		if errs.SubjectOf(err) == "" {
			t.Errorf("the error %q does not name its field as subject", err)
		}
	}
	if r := drivers.NewRegistry(b.Driver); r.Names()[0] != b.Target.Driver {
		t.Errorf("the driver is called %q, want %q", r.Names()[0], b.Target.Driver)
	}
}

func testCapabilities(t *testing.T, b *bench) {
	c := b.Driver.Capabilities()
	_, reader := b.Driver.(drivers.PowerReader)
	_, setter := b.Driver.(drivers.PowerSetter)
	_, bootSetter := b.Driver.(drivers.BootDeviceSetter)
	_, bootReader := b.Driver.(drivers.BootDeviceReader)
	_, identifier := b.Driver.(drivers.Identifier)
	_, mode := b.Driver.(drivers.BootModer)
	_, secure := b.Driver.(drivers.SecureBooter)
	_, media := b.Driver.(drivers.MediaAttacher)
	_, sensors := b.Driver.(drivers.SensorReader)
	_, events := b.Driver.(drivers.EventReader)
	_, clearer := b.Driver.(drivers.EventClearer)
	_, nmi := b.Driver.(drivers.NMISender)
	_, led := b.Driver.(drivers.IndicatorSetter)
	_, items := b.Driver.(drivers.ItemReader)
	_, console := b.Driver.(drivers.ConsoleReader)
	got := [...]bool{reader, setter, bootSetter, bootReader, identifier, mode, secure, media, sensors, events, clearer, nmi, led, items, console}
	want := [...]bool{
		c.PowerRead, c.PowerSet, c.BootDeviceSet, c.BootDeviceRead, c.Identify,
		c.BootMode, c.SecureBoot, c.Media, c.Sensors, c.Events, c.ClearEvents, c.NMI, c.Indicator, c.Items, c.Console,
	}
	if got != want {
		t.Errorf("the driver has %v, its capabilities say %v", got, want)
	}
	if (c.SoftOff && !c.PowerSet) || ((c.PersistentBoot || c.UEFIBoot) && !c.BootDeviceSet) {
		t.Errorf("capabilities contradict each other: %+v", c)
	}
}

func testPower(t *testing.T, b *bench) {
	for _, step := range []struct {
		action api.PowerAction
		want   api.PowerState
	}{
		{off, api.PowerState_POWER_OFF},
		{on, api.PowerState_POWER_ON},
		{on, api.PowerState_POWER_ON}, // a level: saying it twice is no error
		{off, api.PowerState_POWER_OFF},
		{off, api.PowerState_POWER_OFF},
	} {
		b.power(t, step.action)
		b.await(t, step.want)
	}
}

func testSoftOff(t *testing.T, b *bench) {
	if !b.Driver.Capabilities().SoftOff {
		err := b.Driver.(drivers.PowerSetter).SetPower(b.ctx, b.Target, NewGrant(time.Minute), softOff)
		b.kind(t, "soft off", err, errs.Unsupported)
		return
	}
	b.power(t, on)
	b.await(t, api.PowerState_POWER_ON)
	before := b.Changes()
	b.power(t, softOff) // the guest need not obey
	if n := b.Changes() - before; n != 1 {
		t.Errorf("soft off made %d changes, want 1", n)
	}
}

func testOneChange(t *testing.T, b *bench) {
	b.power(t, off)
	b.await(t, api.PowerState_POWER_OFF)
	g := NewGrant(time.Minute)
	before := b.Changes()
	b.fine(t, "on", b.Driver.(drivers.PowerSetter).SetPower(b.ctx, b.Target, g, on))
	b.await(t, api.PowerState_POWER_ON)
	if n := b.Changes() - before; n != 1 {
		t.Errorf("power on made %d changes, want 1", n)
	}
	if g.Checks() == 0 {
		t.Error("the grant was never checked")
	}
	if s, ok := b.Driver.(drivers.BootDeviceSetter); ok {
		before = b.Changes()
		b.fine(t, "boot device", s.SetBootDevice(b.ctx, b.Target, NewGrant(time.Minute), api.BootDevice_BOOT_DEVICE_PXE, drivers.BootOptions{UEFI: true}))
		if n := b.Changes() - before; n != 1 {
			t.Errorf("setting the boot device made %d changes, want 1", n)
		}
	}
}

func testNoEdges(t *testing.T, b *bench) {
	b.unchanged(t, func() {
		for _, a := range []api.PowerAction{api.PowerAction_POWER_ACTION_REBOOT, api.PowerAction_POWER_ACTION_NONE, 99} {
			err := b.Driver.(drivers.PowerSetter).SetPower(b.ctx, b.Target, NewGrant(time.Minute), a)
			b.kind(t, a.String(), err, errs.Unsupported)
		}
	})
}

func testBootDevice(t *testing.T, b *bench) {
	set, ok := b.Driver.(drivers.BootDeviceSetter)
	if !ok {
		return
	}
	for _, opts := range []drivers.BootOptions{{UEFI: true}, {}, {Persistent: true, UEFI: true}} {
		for _, device := range []api.BootDevice{
			api.BootDevice_BOOT_DEVICE_PXE, api.BootDevice_BOOT_DEVICE_DISK,
			api.BootDevice_BOOT_DEVICE_CDROM, api.BootDevice_BOOT_DEVICE_NONE,
		} {
			b.fine(t, device.String(), set.SetBootDevice(b.ctx, b.Target, NewGrant(time.Minute), device, opts))
			read, ok := b.Driver.(drivers.BootDeviceReader)
			if !ok {
				continue
			}
			got, err := read.BootDevice(b.ctx, b.Target)
			if errors.Is(err, errs.Unsupported) {
				continue // this BMC cannot tell
			}
			b.fine(t, "read boot device", err)
			if got != device {
				// One that does nothing the first time is asked again.
				b.fine(t, device.String(), set.SetBootDevice(b.ctx, b.Target, NewGrant(time.Minute), device, opts))
				got, err = read.BootDevice(b.ctx, b.Target)
				b.fine(t, "read boot device", err)
			}
			if got != device {
				t.Errorf("boot device reads %v, want %v (%+v)", got, device, opts)
			}
		}
	}
}

func testIdentify(t *testing.T, b *bench) {
	id, ok := b.Driver.(drivers.Identifier)
	if !ok {
		return
	}
	facts, err := id.Identify(b.ctx, b.Target)
	b.fine(t, "identify", err)
	if u := facts.GetSystemUuid(); u == "" || u != strings.ToLower(u) || len(u) != 36 {
		t.Errorf("system UUID is %q, want one in lower case", u)
	}
	for _, m := range facts.GetBmcMacs() {
		if m != strings.ToLower(m) || len(m) != 17 {
			t.Errorf("MAC is %q", m)
		}
	}
}

func testNoGrant(t *testing.T, b *bench) {
	ended := NewGrant(time.Minute)
	ended.End()
	for name, g := range map[string]drivers.Grant{"none": nil, "ended": ended, "expired": NewGrant(-time.Second)} {
		b.unchanged(t, func() {
			err := b.Driver.(drivers.PowerSetter).SetPower(b.ctx, b.Target, g, on)
			b.kind(t, "power, grant "+name, err, errs.Fenced)
			if s, ok := b.Driver.(drivers.BootDeviceSetter); ok {
				err := s.SetBootDevice(b.ctx, b.Target, g, api.BootDevice_BOOT_DEVICE_PXE, drivers.BootOptions{})
				b.kind(t, "boot device, grant "+name, err, errs.Fenced)
			}
			for what, change := range b.hardwareChanges() {
				b.kind(t, what+", grant "+name, change(g), errs.Fenced)
			}
		})
	}
}

func testCancelled(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	b.unchanged(t, func() {
		b.within(t, 0, func() {
			err := b.Driver.(drivers.PowerSetter).SetPower(ctx, b.Target, NewGrant(time.Minute), on)
			b.kind(t, "power", err, errs.Timeout, errs.Unreachable)
			_, err = b.Driver.(drivers.PowerReader).PowerState(ctx, b.Target)
			b.kind(t, "power state", err, errs.Timeout, errs.Unreachable)
		})
	})
}

func testWrongPassword(t *testing.T, b *bench) {
	target := b.Target
	target.Info = b.WrongPassword
	b.unchanged(t, func() {
		_, err := b.Driver.(drivers.PowerReader).PowerState(b.ctx, target)
		b.kind(t, "power state", err, errs.Denied)
		err = b.Driver.(drivers.PowerSetter).SetPower(b.ctx, target, NewGrant(time.Minute), on)
		b.kind(t, "power", err, errs.Denied)
	})
}

func testSilence(t *testing.T, b *bench) {
	b.Silence()
	const limit = 700 * time.Millisecond
	short := func(do func(ctx context.Context)) {
		t.Helper()
		ctx, cancel := context.WithTimeout(b.ctx, limit)
		defer cancel()
		b.within(t, limit, func() { do(ctx) })
	}
	short(func(ctx context.Context) {
		_, err := b.Driver.(drivers.PowerReader).PowerState(ctx, b.Target)
		b.kind(t, "power state", err, errs.Timeout, errs.Unreachable)
	})
	b.unchanged(t, func() {
		short(func(ctx context.Context) {
			err := b.Driver.(drivers.PowerSetter).SetPower(ctx, b.Target, NewGrant(time.Minute), on)
			b.kind(t, "power", err, errs.Timeout, errs.Unreachable)
		})
	})
}

func testGrantEnds(t *testing.T, b *bench) {
	b.Silence()
	set := b.Driver.(drivers.PowerSetter)
	b.unchanged(t, func() {
		const left = 300 * time.Millisecond
		b.within(t, left, func() {
			err := set.SetPower(b.ctx, b.Target, NewGrant(left), on)
			b.kind(t, "power, grant expires", err, errs.Fenced)
		})
		g := NewGrant(time.Minute)
		stop := time.AfterFunc(left, g.End)
		defer stop.Stop()
		b.within(t, left, func() {
			err := set.SetPower(b.ctx, b.Target, g, on)
			b.kind(t, "power, grant is ended", err, errs.Fenced)
		})
	})
}

// testGrantRenewed shows that a renewal while the call is under way counts.
func testGrantRenewed(t *testing.T, b *bench) {
	b.Silence()
	g := NewGrant(300 * time.Millisecond)
	stop := time.AfterFunc(150*time.Millisecond, func() { g.Extend(time.Minute) })
	defer stop.Stop()
	ctx, cancel := context.WithTimeout(b.ctx, 900*time.Millisecond)
	defer cancel()
	start := time.Now()
	err := b.Driver.(drivers.PowerSetter).SetPower(ctx, b.Target, g, on)
	b.kind(t, "power", err, errs.Timeout, errs.Unreachable)
	if took := time.Since(start); took < 500*time.Millisecond {
		t.Errorf("the call ended after %v, at the grant's old deadline", took)
	}
}
