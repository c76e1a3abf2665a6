package redfish_test

import (
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/drivertest"
	"github.com/ironring/ironring/drivers/redfish"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/sim/bmc"
)

const (
	pxe  = api.BootDevice_BOOT_DEVICE_PXE
	disk = api.BootDevice_BOOT_DEVICE_DISK
	none = api.BootDevice_BOOT_DEVICE_NONE
	on   = api.PowerAction_POWER_ACTION_ON
	off  = api.PowerAction_POWER_ACTION_OFF
)

// quirkTests has one test for each row of the table of quirks, by name.
var quirkTests = map[string]func(*testing.T){
	"ami-settings-resource":    func(t *testing.T) { overrides(t, "ami") },
	"ami-etag-needed":          func(t *testing.T) { overrides(t, "ami"); secureBoot(t, "ami") },
	"gigabyte-bare-etag":       func(t *testing.T) { overrides(t, "gigabyte"); secureBoot(t, "gigabyte") },
	"lenovo-412-on-if-match":   func(t *testing.T) { overrides(t, "lenovo-xcc"); secureBoot(t, "lenovo-xcc") },
	"hpe-mode-read-only":       testModeReadOnly,
	"hpe-disable-keeps-target": func(t *testing.T) { overrides(t, "hpe-ilo") },
	"dell-409-after-power-off": func(t *testing.T) { offThenOn(t, "dell-idrac") },
	"hpe-409-after-power-off":  func(t *testing.T) { offThenOn(t, "hpe-ilo") },
	"supermicro-mode-along":    testModeAlong,
	"supermicro-once-lost-x10": func(t *testing.T) { onceLost(t, "supermicro-x10", "3.88", true) },
	"supermicro-once-lost-x11": func(t *testing.T) {
		onceLost(t, "supermicro-x11", "1.52", true)
		onceLost(t, "supermicro-x11", "1.74", false)
	},
	"supermicro-stale-image":    testStaleImage,
	"openbmc-post-wants-object": testPostWantsObject,
	"system-id-is-not-1":        testSystemID,
	"four-sessions":             testFourSessions,
	"204-without-effect":        testNoEffect,
}

func TestQuirks(t *testing.T) {
	names := redfish.QuirkNames()
	for _, name := range names {
		test := quirkTests[name]
		if test == nil {
			t.Errorf("the row %s has no test", name)
			continue
		}
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t) })
	}
	if len(quirkTests) != len(names) {
		t.Errorf("%d tests for %d rows", len(quirkTests), len(names))
	}
}

// Every personality passes what every driver must pass.
func TestPersonalities(t *testing.T) {
	for _, p := range bmc.Personalities {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			drivertest.RunBasic(t, func(t *testing.T) drivertest.Fixture {
				b := start(t, bmc.Config{Personality: p.Name, PowerDelay: 10 * time.Millisecond})
				target := target(b)
				return drivertest.Fixture{
					Driver: driver(t), Target: target, Secrets: []string{secret},
					Changes: func() int { return carriedOut(b) }, Settle: 10 * time.Second,
				}
			})
		})
	}
}

// carriedOut counts the changes that the BMC did not refuse.
func carriedOut(b *bmc.BMC) int {
	n := 0
	for _, e := range b.Trace() {
		if e.Status < 400 {
			n++
		}
	}
	return n
}

// personality starts a BMC of a personality, which is identified without its id.
func personality(t *testing.T, name string) (*bmc.BMC, *redfish.Driver, drivers.Target) {
	t.Helper()
	b := start(t, bmc.Config{Personality: name})
	return b, driver(t), drivers.Target{NodeID: "n1", Driver: "redfish", Info: with(b.Info(), "redfish_system_id", "")}
}

func grant() drivers.Grant { return drivertest.NewGrant(time.Minute) }

// overrides sets boot devices, each of which must be read back and be what the
// machine boots from.
func overrides(t *testing.T, name string) {
	t.Helper()
	b, d, target := personality(t, name)
	ctx := timeout(t, 20*time.Second)
	for _, step := range []struct {
		device     api.BootDevice
		persistent bool
	}{{pxe, false}, {disk, true}, {none, false}} {
		if err := d.SetBootDevice(ctx, target, grant(), step.device, drivers.BootOptions{UEFI: true, Persistent: step.persistent}); err != nil {
			t.Fatalf("%v: %v", step.device, err)
		}
		if is, err := d.BootDevice(ctx, target); err != nil || is != step.device {
			t.Errorf("%v reads %v, %v", step.device, is, err)
		}
		if is := b.Boot(); is != step.device {
			t.Errorf("%v: the machine would boot from %v", step.device, is)
		}
	}
	for _, e := range b.Trace() {
		if e.Status >= 400 {
			t.Errorf("the BMC refused %s with %d", e.Arg, e.Status)
		}
	}
}

func secureBoot(t *testing.T, name string) {
	t.Helper()
	_, d, target := personality(t, name)
	ctx := timeout(t, 20*time.Second)
	if err := d.SetSecureBoot(ctx, target, grant(), true); err != nil {
		t.Fatal(err)
	}
	if sb, err := d.SecureBoot(ctx, target); err != nil || !sb.GetEnabled() {
		t.Errorf("reads %v, %v", sb, err)
	}
}

func testModeReadOnly(t *testing.T) {
	overrides(t, "hpe-ilo")
	_, d, target := personality(t, "hpe-ilo")
	err := d.SetBootMode(timeout(t, 10*time.Second), target, grant(), api.BootMode_BOOT_MODE_BIOS)
	if errs.KindOf(err) != errs.Unsupported {
		t.Errorf("setting the mode: %v", err)
	}
}

// offThenOn asks for power on while the BMC is still busy with power off.
func offThenOn(t *testing.T, name string) {
	t.Helper()
	b, d, target := personality(t, name)
	b.SetPowered(true)
	ctx := timeout(t, 20*time.Second)
	if err := d.SetPower(ctx, target, grant(), off); err != nil {
		t.Fatal(err)
	}
	eventually(t, "off", func() bool { return b.Power() == api.PowerState_POWER_OFF })
	// Twice at least it is too early, however slow this host is.
	busy := bmc.Fault{Kind: bmc.Status, Status: 409, Path: "ComputerSystem.Reset", Times: 2}
	b.Inject(busy)
	if err := d.SetPower(ctx, target, grant(), on); err != nil {
		t.Fatal(err)
	}
	eventually(t, "on", func() bool { return b.Power() == api.PowerState_POWER_ON })
	// The wait ends with the grant.
	busy.Times = 0
	b.Inject(busy)
	if err := d.SetPower(ctx, target, drivertest.NewGrant(400*time.Millisecond), off); errs.KindOf(err) != errs.Busy && errs.KindOf(err) != errs.Fenced {
		t.Errorf("with a short grant: %v", err)
	}
}

func testModeAlong(t *testing.T) {
	_, d, target := personality(t, "supermicro-x12")
	ctx := timeout(t, 20*time.Second)
	for _, mode := range []api.BootMode{api.BootMode_BOOT_MODE_UEFI, api.BootMode_BOOT_MODE_BIOS} {
		if err := d.SetBootMode(ctx, target, grant(), mode); err != nil {
			t.Fatal(err)
		}
		if is, err := d.BootMode(ctx, target); err != nil || is != mode {
			t.Errorf("the mode reads %v, %v", is, err)
		}
	}
	if err := d.SetBootMode(ctx, target, grant(), api.BootMode_BOOT_MODE_UEFI); err != nil {
		t.Fatal(err)
	}
	for _, device := range []api.BootDevice{pxe, none} {
		if err := d.SetBootDevice(ctx, target, grant(), device, drivers.BootOptions{UEFI: true}); err != nil {
			t.Fatal(err)
		}
		if is, err := d.BootMode(ctx, target); err != nil || is != api.BootMode_BOOT_MODE_UEFI {
			t.Errorf("after %v the mode reads %v, %v", device, is, err)
		}
	}
}

// onceLost: an override for one boot would be gone before that boot, so that
// the driver sets it for all boots on the firmware that needs it.
func onceLost(t *testing.T, name, firmware string, lost bool) {
	t.Helper()
	b := start(t, bmc.Config{Personality: name, Firmware: firmware})
	d, ctx := driver(t), timeout(t, 20*time.Second)
	if err := d.SetBootDevice(ctx, target(b), grant(), pxe, drivers.BootOptions{UEFI: true}); err != nil {
		t.Fatal(err)
	}
	tr := b.Trace()
	want := "Pxe/Once/UEFI"
	if lost {
		want = "Pxe/Continuous/UEFI"
		if is := b.NextBoot(); is != pxe {
			t.Errorf("the machine boots from %v", is)
		}
	}
	if got := tr[len(tr)-1].Arg; got != want {
		t.Errorf("firmware %s: asked for %s, want %s", firmware, got, want)
	}
}

func testStaleImage(t *testing.T) {
	b, d, target := personality(t, "supermicro-x12")
	ctx := timeout(t, 20*time.Second)
	for _, image := range []string{"http://10.0.0.1/a.iso", "http://10.0.0.1/b.iso"} {
		if err := d.InsertMedia(ctx, target, grant(), "", image); err != nil || b.Image() != image {
			t.Fatalf("%v, the slot has %q", err, b.Image())
		}
		if err := d.EjectMedia(ctx, target, grant(), ""); err != nil {
			t.Fatal(err)
		}
		if all, err := d.Media(ctx, target); err != nil || all[0].GetInserted() || all[0].GetImage() != "" {
			t.Errorf("once ejected it reads %v, %v", all, err)
		}
	}
}

func testPostWantsObject(t *testing.T) {
	b, d, target := personality(t, "openbmc")
	ctx := timeout(t, 20*time.Second)
	if err := d.InsertMedia(ctx, target, grant(), "Cd", "http://10.0.0.1/a.iso"); err != nil {
		t.Fatal(err)
	}
	if err := d.EjectMedia(ctx, target, grant(), "Cd"); err != nil || b.Image() != "" {
		t.Errorf("eject: %v", err)
	}
	if err := d.ClearEvents(ctx, target, grant()); err != nil {
		t.Errorf("clear: %v", err)
	}
}

func testSystemID(t *testing.T) {
	for _, p := range bmc.Personalities {
		if p.SystemID == "" {
			continue
		}
		b, d, target := personality(t, p.Name)
		facts, err := d.Identify(timeout(t, 10*time.Second), target)
		if err != nil {
			t.Errorf("%s: %v", p.Name, err)
			continue
		}
		named := target
		named.Info = b.Info()
		again, err := d.Identify(timeout(t, 10*time.Second), named)
		if err != nil || facts.GetBmcKey() == "" || again.GetBmcKey() != facts.GetBmcKey() {
			t.Errorf("%s: key %q without the id, %q with it, %v", p.Name, facts.GetBmcKey(), again.GetBmcKey(), err)
		}
	}
}

// testNoEffect: the answer is 204 and nothing has changed. The driver does not
// judge; reading says so, and asking again helps.
func testNoEffect(t *testing.T) {
	b, d, target := personality(t, "openbmc")
	ctx := timeout(t, 20*time.Second)
	for _, want := range []api.BootDevice{none, pxe} {
		if err := d.SetBootDevice(ctx, target, grant(), pxe, drivers.BootOptions{UEFI: true}); err != nil {
			t.Fatal(err)
		}
		if is, err := d.BootDevice(ctx, target); err != nil || is != want || b.Boot() != want {
			t.Errorf("reads %v, %v, want %v", is, err, want)
		}
	}
}

// A BMC that refuses a right If-Match is asked without.
func TestRefusedETag(t *testing.T) {
	b, d, target := personality(t, "ami")
	b.Inject(bmc.Fault{Kind: bmc.StaleETag, Times: 1})
	ctx := timeout(t, 20*time.Second)
	err := d.SetBootDevice(ctx, target, grant(), pxe, drivers.BootOptions{})
	if errs.KindOf(err) != errs.Busy { // this one wants it: 428
		t.Errorf("the error is %v", err)
	}
	b, d, target = personality(t, "plain")
	b.Inject(bmc.Fault{Kind: bmc.StaleETag})
	if err := d.SetSecureBoot(ctx, target, grant(), true); err != nil {
		t.Errorf("a BMC that takes no If-Match: %v", err)
	}
}
