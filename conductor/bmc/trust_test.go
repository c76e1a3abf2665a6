package bmc_test

import (
	"cmp"
	"context"
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/bmc"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/internal/errs"
)

var (
	first  = "sha256:" + strings.Repeat("1", 64)
	second = "sha256:" + strings.Repeat("2", 64)
)

// certified is the fake driver behind a certificate.
type certified struct {
	*fake.Driver
	shown string
	calls int
	at    string // address; "" is b:443
}

func (d *certified) PowerState(ctx context.Context, t drivers.Target) (api.PowerState, error) {
	d.calls++
	address := cmp.Or(d.at, "b:443")
	switch known := t.Trust.Known(address); known {
	case "":
		if err := t.Trust.First(ctx, address, d.shown); err != nil {
			return 0, err
		}
	case d.shown:
	default:
		return 0, errs.New(errs.Denied, "%w", &drivers.CertificateError{Address: address, Want: known, Seen: d.shown, How: "accept it"})
	}
	return d.Driver.PowerState(ctx, t)
}

// The first certificate is on record before anything is sent; a different one
// stops all calls, of every peer, until a person has accepted it. It parks
// nothing: no password was tried.
func TestCertificateOnFirstUse(t *testing.T) {
	bubble(t, func(f *fixture) {
		drv := &certified{Driver: f.drv, shown: first}
		access := func(p string) *bmc.Access { return f.accessWith(f.c.Peer(p), drv) }
		a, b := access("p1"), access("p2")
		if _, err := a.Power(f.Context(), id); err != nil {
			f.Fatal(err)
		}
		if tls := f.node().GetBmcTls(); tls.GetFingerprint() != first || tls.GetAddress() != "b:443" || tls.GetFirstMs() == 0 {
			f.Errorf("on record is %v", tls)
		}
		drv.shown = second
		_, err := a.Power(f.Context(), id)
		if errs.KindOf(err) != errs.Denied {
			f.Fatalf("another certificate: %v", err)
		}
		n := f.node()
		if n.GetBmcTls().GetChangedTo() != second || !strings.Contains(n.GetFault(), first) || !strings.Contains(n.GetFault(), second) || n.GetBmcPark() != nil {
			f.Errorf("on record: %v, fault %q, park %v", n.GetBmcTls(), n.GetFault(), n.GetBmcPark())
		}
		calls := drv.calls
		for _, x := range []*bmc.Access{a, b} {
			_, err := x.Power(f.Context(), id)
			if errs.KindOf(err) != errs.Denied || !strings.Contains(err.Error(), "accept-certificate n1 --fingerprint "+second) || !strings.Contains(err.Error(), first) {
				f.Errorf("the next call: %v", err)
			}
			if x.Parked(n) == nil {
				f.Error("the power sync would go on asking")
			}
		}
		if drv.calls != calls {
			f.Error("the BMC was called again")
		}
		f.c.Must(&api.Op{Op: &api.Op_BmcTrust{BmcTrust: &api.BmcTrust{NodeId: id, How: api.BmcTrust_ACCEPT, Fingerprint: second}}})
		if _, err := b.Power(f.Context(), id); err != nil || f.node().GetFault() != "" {
			f.Errorf("once accepted: %v, fault %q", err, f.node().GetFault())
		}
	})
}

// A certificate that changed while driver_info led elsewhere by mistake stops all
// calls too.
func TestCertificateAfterSlip(t *testing.T) {
	bubble(t, func(f *fixture) {
		drv := &certified{Driver: f.drv, shown: first}
		a := f.accessWith(f.p, drv)
		for _, at := range []string{"a:443", "b:443", "a:443", "b:443"} {
			drv.at = at
			if _, err := a.Power(f.Context(), id); err != nil {
				f.Fatal(err)
			}
		}
		drv.at, drv.shown = "a:443", second
		if _, err := a.Power(f.Context(), id); errs.KindOf(err) != errs.Denied {
			f.Errorf("another certificate at the first address: %v", err)
		}
		if tls := f.node().GetBmcTls(); tls.GetChangedTo() != second || tls.GetFingerprint() != first || tls.GetAddress() != "a:443" || f.node().GetFault() == "" {
			f.Errorf("on record: %v, fault %q", tls, f.node().GetFault())
		}
	})
}

// restrained is a driver whose account may log in and nothing else.
type restrained struct{ *fake.Driver }

func (restrained) PowerState(context.Context, drivers.Target) (api.PowerState, error) {
	return 0, errs.New(errs.Denied, "403: %w", drivers.ErrRight)
}

// A right that lacks is no failed login.
func TestLackOfRightParksNothing(t *testing.T) {
	bubble(t, func(f *fixture) {
		a := f.accessWith(f.p, restrained{f.drv})
		for range 3 {
			if _, err := a.Power(f.Context(), id); errs.KindOf(err) != errs.Denied {
				f.Fatal(err)
			}
		}
		if f.node().GetBmcPark() != nil || a.Parked(f.node()) != nil {
			f.Errorf("parked: %v", f.node().GetBmcPark())
		}
	})
}

func TestHardware(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.bmc.Log(&api.BmcEvent{Id: "1", Text: "hello"})
		all := []api.HardwarePart{
			api.HardwarePart_HARDWARE_BOOT, api.HardwarePart_HARDWARE_SECURE_BOOT, api.HardwarePart_HARDWARE_MEDIA, api.HardwarePart_HARDWARE_INDICATOR,
			api.HardwarePart_HARDWARE_SENSORS, api.HardwarePart_HARDWARE_EVENTS, api.HardwarePart_HARDWARE_ITEMS,
		}
		rep, err := f.a.Hardware(f.Context(), id, all)
		if err != nil || rep.GetFrom() != "p1" || rep.GetReadMs() == 0 || len(rep.GetMedia()) != 1 || len(rep.GetSensors()) == 0 || len(rep.GetEvents()) != 1 ||
			len(rep.GetItems()) == 0 || rep.GetIndicator() != api.Indicator_INDICATOR_OFF || rep.GetBootMode() != api.BootMode_BOOT_MODE_UEFI || len(rep.GetProblems()) != 0 {
			f.Errorf("%v, %v", rep, err)
		}
		// A driver that lacks some parts gives the others; one that lacks all
		// that was asked for says so.
		a := f.accessWith(f.p, plain{f.drv})
		if _, err := a.Hardware(f.Context(), id, all); errs.KindOf(err) != errs.Unsupported {
			f.Errorf("a driver that can do nothing: %v", err)
		}
		f.bmc.Inject(fake.Fault{Kind: fake.Fail, Verb: fake.Sensors, Err: errs.New(errs.Unsupported, "no sensors")})
		rep, err = f.a.Hardware(f.Context(), id, all)
		if err != nil || len(rep.GetProblems()) != 1 || rep.GetProblems()[0].GetPart() != api.HardwarePart_HARDWARE_SENSORS {
			f.Errorf("without sensors: %v, %v", rep.GetProblems(), err)
		}
		// Whose it is, is said unless it is known.
		if rep.GetWarning() == "" {
			f.Error("no word of a BMC that was never verified")
		}
		if _, err := f.a.Hardware(f.Context(), id, []api.HardwarePart{99}); errs.KindOf(err) != errs.Invalid {
			f.Errorf("no such part: %v", err)
		}
	})
}
