package drivertest

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// image is never fetched: a BMC does so when the machine reads it.
const image = "http://192.0.2.1/ramdisk.iso"

// hardwareChanges are the changes beside power and boot device that the driver
// can make.
func (b *bench) hardwareChanges() map[string]func(drivers.Grant) error {
	out := map[string]func(drivers.Grant) error{}
	if d, ok := b.Driver.(drivers.BootModer); ok {
		out["boot mode"] = func(g drivers.Grant) error { return d.SetBootMode(b.ctx, b.Target, g, api.BootMode_BOOT_MODE_UEFI) }
	}
	if d, ok := b.Driver.(drivers.SecureBooter); ok {
		out["secure boot"] = func(g drivers.Grant) error { return d.SetSecureBoot(b.ctx, b.Target, g, true) }
	}
	if d, ok := b.Driver.(drivers.MediaAttacher); ok {
		out["insert"] = func(g drivers.Grant) error { return d.InsertMedia(b.ctx, b.Target, g, "", image) }
		out["eject"] = func(g drivers.Grant) error { return d.EjectMedia(b.ctx, b.Target, g, "") }
	}
	if d, ok := b.Driver.(drivers.IndicatorSetter); ok {
		out["indicator"] = func(g drivers.Grant) error {
			return d.SetIndicator(b.ctx, b.Target, g, api.Indicator_INDICATOR_ON)
		}
	}
	if d, ok := b.Driver.(drivers.NMISender); ok {
		out["NMI"] = func(g drivers.Grant) error { return d.SendNMI(b.ctx, b.Target, g) }
	}
	if d, ok := b.Driver.(drivers.EventClearer); ok {
		out["clear events"] = func(g drivers.Grant) error { return d.ClearEvents(b.ctx, b.Target, g) }
	}
	return out
}

func (b *bench) grant() drivers.Grant { return NewGrant(time.Minute) }

// supported is false for what this BMC lacks although its driver can do it.
func (b *bench) supported(t *testing.T, what string, err error) bool {
	t.Helper()
	if errors.Is(err, errs.Unsupported) {
		return false
	}
	b.fine(t, what, err)
	return true
}

func testBootMode(t *testing.T, b *bench) {
	d, ok := b.Driver.(drivers.BootModer)
	if !ok {
		return
	}
	for _, mode := range []api.BootMode{api.BootMode_BOOT_MODE_BIOS, api.BootMode_BOOT_MODE_UEFI, api.BootMode_BOOT_MODE_UEFI} {
		if !b.supported(t, mode.String(), d.SetBootMode(b.ctx, b.Target, b.grant(), mode)) {
			return
		}
		got, err := d.BootMode(b.ctx, b.Target)
		if !b.supported(t, "read boot mode", err) {
			continue // this BMC cannot tell
		}
		if got != mode {
			// One that does nothing the first time is asked again.
			b.fine(t, mode.String(), d.SetBootMode(b.ctx, b.Target, b.grant(), mode))
			if got, err = d.BootMode(b.ctx, b.Target); err != nil || got != mode {
				t.Errorf("the boot mode reads %v, want %v (%v)", got, mode, err)
			}
		}
	}
	b.unchanged(t, func() {
		b.kind(t, "no mode", d.SetBootMode(b.ctx, b.Target, b.grant(), api.BootMode_BOOT_MODE_UNKNOWN), errs.Unsupported)
	})
}

func testSecureBoot(t *testing.T, b *bench) {
	d, ok := b.Driver.(drivers.SecureBooter)
	if !ok {
		return
	}
	for _, on := range []bool{true, true, false} {
		if !b.supported(t, "secure boot", d.SetSecureBoot(b.ctx, b.Target, b.grant(), on)) {
			return
		}
		if got, err := d.SecureBoot(b.ctx, b.Target); err != nil || got.GetEnabled() != on {
			t.Errorf("secure boot reads %v, %v, want %v", got, err, on)
		}
	}
}

func testMedia(t *testing.T, b *bench) {
	d, ok := b.Driver.(drivers.MediaAttacher)
	if !ok {
		return
	}
	all, err := d.Media(b.ctx, b.Target)
	if !b.supported(t, "media", err) {
		return
	}
	if len(all) == 0 || all[0].GetSlot() == "" || all[0].GetInserted() {
		t.Fatalf("the slots are %v", all)
	}
	slot := all[0].GetSlot()
	find := func() *api.VirtualMedia {
		t.Helper()
		all, err := d.Media(b.ctx, b.Target)
		b.fine(t, "media", err)
		for _, m := range all {
			if m.GetSlot() == slot {
				return m
			}
		}
		t.Fatalf("slot %s is gone: %v", slot, all)
		return nil
	}
	for range 2 { // a level
		b.fine(t, "insert", d.InsertMedia(b.ctx, b.Target, b.grant(), "", image))
		if m := find(); !m.GetInserted() || m.GetImage() != image {
			t.Fatalf("once inserted it reads %v", m)
		}
	}
	b.kind(t, "insert another", d.InsertMedia(b.ctx, b.Target, b.grant(), slot, image+"2"), errs.Busy)
	for range 2 {
		b.fine(t, "eject", d.EjectMedia(b.ctx, b.Target, b.grant(), slot))
		if m := find(); m.GetInserted() || m.GetImage() != "" {
			t.Fatalf("once ejected it reads %v", m)
		}
	}
	err = d.InsertMedia(b.ctx, b.Target, b.grant(), "no-such-slot", image)
	b.kind(t, "no such slot", err, errs.Invalid)
	if !strings.Contains(err.Error(), slot) {
		t.Errorf("the error does not name the slots: %v", err)
	}
}

func testIndicator(t *testing.T, b *bench) {
	d, ok := b.Driver.(drivers.IndicatorSetter)
	if !ok {
		return
	}
	for _, want := range []api.Indicator{api.Indicator_INDICATOR_ON, api.Indicator_INDICATOR_BLINKING, api.Indicator_INDICATOR_OFF, api.Indicator_INDICATOR_OFF} {
		if !b.supported(t, want.String(), d.SetIndicator(b.ctx, b.Target, b.grant(), want)) {
			return
		}
		got, err := d.Indicator(b.ctx, b.Target)
		if !b.supported(t, "read indicator", err) {
			continue // this BMC cannot tell
		}
		lit := want != api.Indicator_INDICATOR_OFF
		if got == api.Indicator_INDICATOR_UNKNOWN || (got != api.Indicator_INDICATOR_OFF) != lit {
			t.Errorf("the indicator reads %v, want %v", got, want)
		}
	}
	b.unchanged(t, func() {
		b.kind(t, "no state", d.SetIndicator(b.ctx, b.Target, b.grant(), api.Indicator_INDICATOR_UNKNOWN), errs.Unsupported)
	})
}

func testNMI(t *testing.T, b *bench) {
	d, ok := b.Driver.(drivers.NMISender)
	if !ok {
		return
	}
	b.power(t, on)
	b.await(t, api.PowerState_POWER_ON)
	before := b.Changes()
	err := d.SendNMI(b.ctx, b.Target, b.grant())
	if errs.KindOf(err) == errs.Busy && err != nil {
		return // refused for now, and not repeated
	}
	if b.supported(t, "NMI", err) && b.Changes()-before != 1 {
		t.Errorf("one NMI made %d changes", b.Changes()-before)
	}
	b.await(t, api.PowerState_POWER_ON)
}

func testEvents(t *testing.T, b *bench) {
	d, ok := b.Driver.(drivers.EventReader)
	if !ok {
		return
	}
	before, err := d.Events(b.ctx, b.Target)
	if !b.supported(t, "events", err) {
		return
	}
	for i, e := range before {
		if e.GetText() == "" && e.GetSensor() == "" || i > 0 && e.GetAtMs() != 0 && e.GetAtMs() < before[i-1].GetAtMs() {
			t.Errorf("event %d is %v", i, e)
		}
	}
	c, ok := b.Driver.(drivers.EventClearer)
	if !ok {
		return
	}
	for range 2 {
		b.fine(t, "clear", c.ClearEvents(b.ctx, b.Target, b.grant()))
		after, err := d.Events(b.ctx, b.Target)
		b.fine(t, "events", err)
		if len(after) > 1 { // "the log was cleared"
			t.Errorf("once cleared there are %v", after)
		}
	}
}

func testSensors(t *testing.T, b *bench) {
	d, ok := b.Driver.(drivers.SensorReader)
	if !ok {
		return
	}
	all, err := d.Sensors(b.ctx, b.Target)
	if !b.supported(t, "sensors", err) {
		return
	}
	for _, s := range all {
		if s.GetName() == "" || s.GetKind() == "" || math.IsNaN(s.GetValue()) || math.IsInf(s.GetValue(), 0) {
			t.Errorf("a sensor is %v", s)
		}
	}
}

func testItems(t *testing.T, b *bench) {
	d, ok := b.Driver.(drivers.ItemReader)
	if !ok {
		return
	}
	all, err := d.Items(b.ctx, b.Target)
	if !b.supported(t, "items", err) {
		return
	}
	kinds := map[string]int{}
	for _, it := range all {
		kinds[it.GetKind()]++
	}
	if kinds["system"] == 0 && kinds["board"] == 0 || kinds[""] > 0 {
		t.Errorf("the kinds of parts are %v", kinds)
	}
}
