package bmc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/bmc"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/drivertest"
	"github.com/ironring/ironring/drivers/redfish"
	"github.com/ironring/ironring/internal/errs"
)

// A console that opened is a contact, whatever ends it, and other calls go on
// beside it; a refused login counts as any.
func TestReadConsole(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.setPassword(wrong)
		read := func(ctx context.Context, w io.Writer) (opened bool, err error) {
			err = f.a.ReadConsole(ctx, id, drivertest.NewGrant(time.Hour), func() { opened = true }, w)
			return opened, err
		}
		if opened, err := read(f.Context(), io.Discard); opened || !errors.Is(err, errs.Denied) || f.logins() != 0 {
			f.Errorf("a BMC that nobody has asked who it is was called: %v", err)
		}
		f.record(&api.BmcFacts{BmcKey: "fake a", DriverRev: f.node().GetDriverRev()})
		for _, want := range []uint32{1, 2} {
			if opened, err := read(f.Context(), io.Discard); opened || !errors.Is(err, errs.Denied) || f.node().GetBmcPark().GetFailures() != want {
				f.Errorf("opened %v, %v, %v", opened, err, f.node().GetBmcPark())
			}
		}
		before := f.logins()
		if opened, err := read(f.Context(), io.Discard); opened || err == nil || f.logins() != before {
			f.Errorf("a parked BMC was called: %v, %v", opened, err)
		}
		f.setPassword(right)
		f.verify()
		ctx, cancel := context.WithCancel(f.Context())
		var text bytes.Buffer
		ended := make(chan error)
		go func() { _, err := read(ctx, &text); ended <- err }()
		synctest.Wait()
		f.bmc.Print("hello")
		if kind := f.power(); kind != -1 {
			f.Errorf("power while the console is read: %v", kind)
		}
		cancel()
		if err := <-ended; !errors.Is(err, errs.Timeout) || text.String() != "hello" {
			f.Errorf("%q, %v", text.String(), err)
		}
		if facts := f.j.Facts(id); facts.GetBmcContactMs() == 0 || facts.GetBmcError() != "" {
			f.Errorf("the facts are %v", facts)
		}
	})
}

// Redfish has no console; a deploy that asks for it is refused by this.
func TestHasConsole(t *testing.T) {
	bubble(t, func(f *fixture) {
		r, err := redfish.New(redfish.Config{})
		if err != nil {
			f.Fatal(err)
		}
		known := drivers.NewRegistry(r, f.drv)
		if err := bmc.HasConsole(known, f.node()); err != nil {
			f.Error(err)
		}
		if err := bmc.HasConsole(known, &api.Node{Driver: "redfish"}); errs.KindOf(err) != errs.Unsupported {
			f.Error(err)
		}
		if err := bmc.HasConsole(known, &api.Node{Driver: "none"}); errs.KindOf(err) != errs.Invalid {
			f.Error(err)
		}
		f.c.Must(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{NodeId: id, Fields: []string{"driver"}, Node: &api.Node{Driver: "redfish"}}}})
		if err := f.accessWith(f.p, r).ReadConsole(f.Context(), id, drivertest.NewGrant(time.Hour), func() { f.Error("opened") }, io.Discard); !errors.Is(err, errs.Unsupported) {
			f.Error(err)
		}
	})
}
