package redfish_test

import (
	"context"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/drivertest"
	"github.com/ironring/ironring/drivers/redfish"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/sim/bmc"
)

const secret = "s3cret-\"Paß&wort"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a simulated BMC until the test ends.
func start(t *testing.T, cfg bmc.Config) *bmc.BMC {
	t.Helper()
	cfg.Password = secret
	if cfg.UUID == "" {
		cfg.UUID = "4C4C4544-0035-4D10-8032-B4C04F4A3332"
	}
	cfg.MAC = "52:54:00:AA:BB:01"
	b, err := bmc.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := b.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return b
}

func driver(t *testing.T) *redfish.Driver {
	t.Helper()
	d, err := redfish.New(redfish.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		d.Close(ctx)
	})
	return d
}

func target(b *bmc.BMC) drivers.Target {
	return drivers.Target{NodeID: "n1", Driver: "redfish", Info: b.Info()}
}

func with(info drivers.Info, key string, value any) drivers.Info {
	out := maps.Clone(info)
	out[key] = value
	return out
}

func timeout(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(5 * time.Second); !cond(); <-tick.C {
		if time.Now().After(limit) {
			t.Fatalf("not in 5 s: %s", what)
		}
	}
}

func noSecret(t *testing.T, err error) {
	t.Helper()
	if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), `s3cret`)) {
		t.Errorf("the error holds the password: %v", err)
	}
}

func TestConformance(t *testing.T) {
	for name, silence := range map[string]bmc.FaultKind{"HTTP": bmc.Silent, "TLS": bmc.SilentTLS} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			drivertest.Run(t, func(t *testing.T) drivertest.Fixture {
				b := start(t, bmc.Config{PowerDelay: 30 * time.Millisecond})
				target := target(b)
				return drivertest.Fixture{
					Driver: driver(t), Target: target,
					WrongPassword: with(target.Info, "redfish_password", "wr0ng-one"),
					Secrets:       []string{secret, "wr0ng-one"},
					Changes:       func() int { return b.Stats().Changes },
					Silence:       func() { b.Inject(bmc.Fault{Kind: silence}) },
				}
			})
		})
	}
}

func TestOneConnectionOneSessionOneChange(t *testing.T) {
	b := start(t, bmc.Config{})
	err := driver(t).SetPower(timeout(t, 10*time.Second), target(b), drivertest.NewGrant(time.Minute), api.PowerAction_POWER_ACTION_ON)
	if err != nil {
		t.Fatal(err)
	}
	s := b.Stats()
	if s.Connections != 1 || s.Logins != 1 || s.Logouts != 1 || s.Sessions != 0 || s.Changes != 1 || s.Basic != 0 {
		t.Errorf("one call made %+v", s)
	}
	if tr := b.Trace(); len(tr) != 1 || tr[0].Arg != "On" || !strings.HasPrefix(tr[0].Actor, "admin@127.0.0.1:") {
		t.Errorf("trace is %+v", tr)
	}
	eventually(t, "the connection is closed", func() bool { return b.Stats().Open == 0 })
}

// TestHangIsCut shows that a call whose request for the change is not answered
// ends with its context, and takes its socket with it.
func TestHangIsCut(t *testing.T) {
	b := start(t, bmc.Config{})
	b.Inject(bmc.Fault{Kind: bmc.Silent, Path: "ComputerSystem.Reset"})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	time.AfterFunc(300*time.Millisecond, cancel)
	begin := time.Now()
	err := driver(t).SetPower(ctx, target(b), drivertest.NewGrant(time.Minute), api.PowerAction_POWER_ACTION_ON)
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	if errs.KindOf(err) != errs.Timeout || !strings.Contains(err.Error(), "outcome is unknown") {
		t.Errorf("the error is %v (%v)", err, errs.KindOf(err))
	}
	eventually(t, "all sockets are closed", func() bool { return b.Stats().Open == 0 })
}

// TestGrantEndsMidCall shows that the end of the grant cuts a request that was
// sent, and that not even a logout follows.
func TestGrantEndsMidCall(t *testing.T) {
	b := start(t, bmc.Config{})
	b.Inject(bmc.Fault{Kind: bmc.Silent, Path: "ComputerSystem.Reset"})
	begin := time.Now()
	err := driver(t).SetPower(timeout(t, 20*time.Second), target(b), drivertest.NewGrant(500*time.Millisecond), api.PowerAction_POWER_ACTION_ON)
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	if errs.KindOf(err) != errs.Fenced {
		t.Errorf("the error is %v (%v)", err, errs.KindOf(err))
	}
	eventually(t, "all sockets are closed", func() bool { return b.Stats().Open == 0 })
	if s := b.Stats(); s.Logouts != 0 || s.Connections != 1 {
		t.Errorf("something was sent after the grant had ended: %+v", s)
	}
}

// TestRenewedGrantKeepsTheSocket shows that the socket's hard deadline moves
// with the grant.
func TestRenewedGrantKeepsTheSocket(t *testing.T) {
	b := start(t, bmc.Config{})
	b.Inject(bmc.Fault{Kind: bmc.Slow, Path: "ComputerSystem.Reset", Delay: 900 * time.Millisecond})
	g := drivertest.NewGrant(500 * time.Millisecond)
	time.AfterFunc(200*time.Millisecond, func() { g.Extend(time.Minute) })
	if err := driver(t).SetPower(timeout(t, 20*time.Second), target(b), g, api.PowerAction_POWER_ACTION_ON); err != nil {
		t.Error(err)
	}
}

func TestOutcomes(t *testing.T) {
	reset, systems := "ComputerSystem.Reset", "/Systems"
	for name, test := range map[string]struct {
		fault   bmc.Fault
		want    errs.Kind
		changes int
		text    string
	}{
		"rubbish at once":       {bmc.Fault{Kind: bmc.Rubbish}, errs.Internal, 0, "not Redfish"},
		"rubbish for systems":   {bmc.Fault{Kind: bmc.Rubbish, Path: systems, Method: "GET"}, errs.Internal, 0, "not Redfish"},
		"unavailable":           {bmc.Fault{Kind: bmc.Unavailable}, errs.Busy, 0, "503"},
		"no right":              {bmc.Fault{Kind: bmc.Status, Status: 403, Path: systems}, errs.Denied, 0, "403"},
		"dropped before login":  {bmc.Fault{Kind: bmc.Drop, Path: "Sessions"}, errs.Unreachable, 0, ""},
		"dropped instead of it": {bmc.Fault{Kind: bmc.Drop, Path: reset}, errs.Timeout, 0, "unknown"},
		"dropped after it":      {bmc.Fault{Kind: bmc.DropAfter, Path: reset}, errs.Timeout, 1, "unknown"},
		"refused":               {bmc.Fault{Kind: bmc.Status, Status: 409, Path: reset}, errs.Busy, 0, "409"},
		"not offered":           {bmc.Fault{Kind: bmc.Status, Status: 501, Path: reset}, errs.Unsupported, 0, "501"},
		"password echoed":       {bmc.Fault{Kind: bmc.WrongPassword}, errs.Denied, 0, "******"},
		"rubbish for the reset": {bmc.Fault{Kind: bmc.Rubbish, Path: reset}, -1, 0, ""}, // 200 is a yes
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, bmc.Config{})
			b.Inject(test.fault, bmc.Fault{Kind: bmc.Echo})
			err := driver(t).SetPower(timeout(t, 5*time.Second), target(b), drivertest.NewGrant(time.Minute), api.PowerAction_POWER_ACTION_ON)
			noSecret(t, err)
			if test.want == -1 {
				if err != nil {
					t.Errorf("the error is %v", err)
				}
			} else if err == nil || errs.KindOf(err) != test.want || !strings.Contains(err.Error(), test.text) {
				t.Errorf("the error is %v (%v), want %v with %q", err, errs.KindOf(err), test.want, test.text)
			}
			if n := b.Stats().Changes; n != test.changes {
				t.Errorf("%d changes, want %d", n, test.changes)
			}
		})
	}
}

func TestNobodyThere(t *testing.T) {
	b := start(t, bmc.Config{})
	info := with(b.Info(), "redfish_address", "https://127.0.0.1:1")
	_, err := driver(t).PowerState(timeout(t, 5*time.Second), drivers.Target{Info: info})
	if errs.KindOf(err) != errs.Unreachable || !strings.Contains(err.Error(), "refused") {
		t.Errorf("the error is %v (%v)", err, errs.KindOf(err))
	}
}

func TestCertificates(t *testing.T) {
	b := start(t, bmc.Config{})
	other, err := bmc.NewCertificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	misnamed, err := bmc.NewCertificate("bmc.example.org")
	if err != nil {
		t.Fatal(err)
	}
	m := start(t, bmc.Config{Certificate: misnamed})
	for name, test := range map[string]struct {
		b      *bmc.BMC
		verify any
		fine   bool
	}{
		"this very one":           {b, b.CertPEM(), true},
		"another one":             {b, other.PEM, false},
		"among others":            {b, other.PEM + b.CertPEM(), true},
		"the host's CAs":          {b, nil, false},
		"the host's CAs, spelled": {b, "True", false},
		"none":                    {b, false, true},
		"none, spelled":           {b, "false", true},
		"pinned, other name":      {m, m.CertPEM(), true},
		"other name":              {m, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			before := test.b.Stats()
			_, err := driver(t).PowerState(timeout(t, 5*time.Second), drivers.Target{Info: with(test.b.Info(), "redfish_verify_ca", test.verify)})
			if test.fine {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if errs.KindOf(err) != errs.Invalid || errs.SubjectOf(err) != "redfish_verify_ca" {
				t.Errorf("the error is %v (%v)", err, errs.KindOf(err))
			}
			if after := test.b.Stats(); after.Requests != before.Requests {
				t.Error("a request was sent to a BMC that is not trusted")
			}
		})
	}
}

func TestSeveralSystems(t *testing.T) {
	b := start(t, bmc.Config{MoreSystems: 2, SystemID: "blade"})
	d, ctx := driver(t), timeout(t, 10*time.Second)
	none := with(b.Info(), "redfish_system_id", "")
	err := d.SetPower(ctx, drivers.Target{Info: none}, drivertest.NewGrant(time.Minute), api.PowerAction_POWER_ACTION_ON)
	if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "/redfish/v1/Systems/blade-2") {
		t.Errorf("without an id: %v", err)
	}
	wrong := with(b.Info(), "redfish_system_id", "/redfish/v1/Systems/9")
	err = d.SetPower(ctx, drivers.Target{Info: wrong}, drivertest.NewGrant(time.Minute), api.PowerAction_POWER_ACTION_ON)
	if errs.KindOf(err) != errs.Invalid || errs.SubjectOf(err) != "redfish_system_id" {
		t.Errorf("with a wrong id: %v", err)
	}
	for _, id := range []string{"blade", "/redfish/v1/Systems/blade"} {
		info := with(b.Info(), "redfish_system_id", id)
		if err := d.SetPower(ctx, drivers.Target{Info: info}, drivertest.NewGrant(time.Minute), api.PowerAction_POWER_ACTION_ON); err != nil {
			t.Errorf("with id %q: %v", id, err)
		}
	}
}

// TestMinimalBoot shows that a boot override that is refused for its form is
// sent in another one, and that nothing else is repeated.
func TestMinimalBoot(t *testing.T) {
	b := start(t, bmc.Config{})
	d, ctx := driver(t), timeout(t, 10*time.Second)
	set := func() error {
		return d.SetBootDevice(ctx, target(b), drivertest.NewGrant(time.Minute), api.BootDevice_BOOT_DEVICE_PXE, drivers.BootOptions{UEFI: true})
	}
	b.Inject(bmc.Fault{Kind: bmc.MinimalBoot})
	if err := set(); err != nil || b.Boot() != api.BootDevice_BOOT_DEVICE_PXE || b.Stats().Changes != 2 {
		t.Errorf("err %v, boot %v, %+v", err, b.Boot(), b.Stats())
	}
	b.Heal()
	for _, f := range []bmc.Fault{
		{Kind: bmc.DropAfter, Method: "PATCH"}, {Kind: bmc.Status, Status: 500, Method: "PATCH"},
	} {
		b.Inject(f)
		before := b.Stats().Requests
		if err := set(); err == nil {
			t.Errorf("%v: no error", f.Kind)
		}
		// root, login, systems, system, the one PATCH, logout
		if n := b.Stats().Requests - before; n != 6 {
			t.Errorf("%v: %d requests, want 6", f.Kind, n)
		}
		b.Heal()
	}
}

func TestIdentify(t *testing.T) {
	b := start(t, bmc.Config{Serial: "SN1", Model: "M1", Manufacturer: "Acme", Firmware: "2.5", Address: "10.0.0.7"})
	facts, err := driver(t).Identify(timeout(t, 5*time.Second), target(b))
	if err != nil {
		t.Fatal(err)
	}
	got := []string{facts.SystemUuid, facts.Serial, facts.Vendor, facts.Model, facts.Firmware, strings.Join(facts.BmcAddresses, " "), strings.Join(facts.BmcMacs, " ")}
	want := []string{"4c4c4544-0035-4d10-8032-b4c04f4a3332", "SN1", "Acme", "M1", "2.5", "10.0.0.7", "52:54:00:aa:bb:01"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDisabledOverrideIsNone(t *testing.T) {
	b := start(t, bmc.Config{})
	d, ctx := driver(t), timeout(t, 10*time.Second)
	g := drivertest.NewGrant(time.Minute)
	if err := d.SetBootDevice(ctx, target(b), g, api.BootDevice_BOOT_DEVICE_PXE, drivers.BootOptions{}); err != nil {
		t.Fatal(err)
	}
	if dev, err := d.BootDevice(ctx, target(b)); err != nil || dev != api.BootDevice_BOOT_DEVICE_PXE {
		t.Errorf("reads %v, %v", dev, err)
	}
	if dev := b.NextBoot(); dev != api.BootDevice_BOOT_DEVICE_PXE {
		t.Errorf("boots from %v", dev)
	}
	if dev, err := d.BootDevice(ctx, target(b)); err != nil || dev != api.BootDevice_BOOT_DEVICE_NONE {
		t.Errorf("once used up it reads %v, %v", dev, err)
	}
}
