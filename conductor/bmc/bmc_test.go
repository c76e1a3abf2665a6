package bmc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/bmc"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/conductor/journal"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/drivertest"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/internal/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	id     = "00000000-0000-4000-8000-000000000001"
	right  = "right-secret"
	wrong  = "wrong-secret"
	secret = "password"
)

type fixture struct {
	*testing.T
	c   *conductortest.Cluster
	p   *conductortest.Peer
	bmc *fake.BMC
	drv *fake.Driver
	j   *journal.Journal
	a   *bmc.Access
}

func bubble(t *testing.T, test func(f *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{T: t, c: conductortest.New(t, "p1", "p2")}
		f.p = f.c.Peer("p1")
		var err error
		if f.drv, err = fake.New(fake.Config{}); err != nil {
			t.Fatal(err)
		}
		f.bmc = f.drv.BMC("a")
		f.bmc.SetPassword(right)
		f.j, err = journal.New(journal.Config{Dir: t.TempDir(), Peer: "p1", Clock: f.c.Clock, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		f.a = f.access(f.p)
		f.c.Must(&api.Op{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{
			Id: id, Name: "n1", Driver: "fake", DriverInfo: f.info(right), Assigned: "p1",
		}}}})
		test(f)
	})
}

func (f *fixture) access(p *conductortest.Peer) *bmc.Access { return f.accessWith(p, f.drv) }

func (f *fixture) accessWith(p *conductortest.Peer, drv drivers.Driver) *bmc.Access {
	return bmc.New(bmc.Config{
		Member: p.ID(), Registry: drivers.NewRegistry(drv), Keyring: p.Keyring(), Store: f.c.Store, Proposer: p,
		Journal: f.j, Clock: f.c.Clock, Logger: slog.New(slog.DiscardHandler),
	})
}

// info is sealed driver_info.
func (f *fixture) info(password string) []byte {
	f.Helper()
	doc, err := f.p.Keyring().SealDoc(bmc.AAD(id), fmt.Appendf(nil, `{"fake_address":"a","fake_password":%q}`, password),
		func(path []string) bool { return strings.Contains(path[0], secret) })
	if err != nil {
		f.Fatal(err)
	}
	return doc
}

func (f *fixture) setPassword(password string) {
	f.c.Must(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{
		NodeId: id, Fields: []string{"driver_info"}, Node: &api.Node{DriverInfo: f.info(password)},
	}}})
}

func (f *fixture) node() *api.Node { return f.c.Store.View().Node(id) }

// power reads the power and gives the kind of the error, -1 for none.
func (f *fixture) power() errs.Kind {
	_, err := f.a.Power(f.Context(), id)
	if err == nil {
		return -1
	}
	if strings.Contains(err.Error(), right) || strings.Contains(err.Error(), wrong) {
		f.Errorf("a password in %v", err)
	}
	return errs.KindOf(err)
}

func (f *fixture) logins() int { return len(f.bmc.Calls()) }

// verify puts on record who the BMC is.
func (f *fixture) verify() {
	f.Helper()
	facts, err := f.a.Identify(f.Context(), id)
	if err != nil {
		f.Fatal(err)
	}
	f.record(facts)
}

// record notes what a BMC told.
func (f *fixture) record(facts *api.BmcFacts) {
	f.Helper()
	lease := fmt.Sprint("lease", f.node().GetLastToken())
	f.c.Must(&api.Op{Op: &api.Op_LeaseRegister{LeaseRegister: &api.LeaseRegister{Lease: &api.Lease{Id: lease, Conductor: "p1"}}}})
	token := f.c.Must(&api.Op{Op: &api.Op_LockAcquire{LockAcquire: &api.LockAcquire{NodeId: id, LeaseId: lease, Purpose: "test"}}}).GetOps()[0].GetToken()
	f.c.Must(&api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: id, Token: token, Fields: []string{"bmc"}, Node: &api.Node{Bmc: facts}}}},
		&api.Op{Op: &api.Op_LockRelease{LockRelease: &api.LockRelease{NodeId: id, Token: token}}},
		&api.Op{Op: &api.Op_LeaseRelease{LeaseRelease: &api.LeaseRelease{LeaseId: lease}}})
}

func TestCalls(t *testing.T) {
	bubble(t, func(f *fixture) {
		g := drivertest.NewGrant(time.Minute)
		ctx := f.Context()
		f.verify()
		if s, err := f.a.Power(ctx, id); err != nil || s != api.PowerState_POWER_OFF {
			f.Errorf("power %v, %v", s, err)
		}
		if err := f.a.SetPower(ctx, id, g, api.PowerAction_POWER_ACTION_ON); err != nil || f.bmc.Power() != api.PowerState_POWER_ON {
			f.Errorf("%v, %v", err, f.bmc.Power())
		}
		if err := f.a.SetBootDevice(ctx, id, g, api.BootDevice_BOOT_DEVICE_PXE, drivers.BootOptions{}); err != nil {
			f.Error(err)
		}
		if d, err := f.a.BootDevice(ctx, id); err != nil || d != api.BootDevice_BOOT_DEVICE_PXE {
			f.Errorf("%v, %v", d, err)
		}
		if facts, err := f.a.Identify(ctx, id); err != nil || facts.GetSystemUuid() == "" || facts.GetReadMs() == 0 {
			f.Errorf("%v, %v", facts, err)
		}
		if f.j.Facts(id).GetBmcContactMs() == 0 {
			f.Error("the contact was not noted")
		}
		g.End()
		if err := f.a.SetPower(ctx, id, g, api.PowerAction_POWER_ACTION_OFF); !errors.Is(err, errs.Fenced) || f.bmc.Power() != api.PowerState_POWER_ON {
			f.Errorf("without a grant: %v, %v", err, f.bmc.Power())
		}
		if _, err := f.a.Power(ctx, "no-such-node"); !errors.Is(err, errs.NotFound) {
			f.Error(err)
		}
	})
}

// A silent BMC costs one bounded call.
func TestSilent(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.bmc.Inject(fake.Fault{Kind: fake.Die})
		begin := time.Now()
		if kind := f.power(); kind != errs.Timeout || time.Since(begin) > time.Minute {
			f.Errorf("%v after %v", kind, time.Since(begin))
		}
		if f.j.Facts(id).GetBmcError() == "" || f.node().GetBmcPark() != nil {
			f.Error("the error was not noted, or silence counts as a refusal")
		}
	})
}

func TestParking(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.setPassword(wrong)
		for try := range 5 {
			if kind := f.power(); kind != errs.Denied {
				f.Errorf("try %d: %v", try, kind)
			}
		}
		if f.logins() != 2 {
			f.Errorf("%d logins, the account could be locked", f.logins())
		}
		if p := f.node().GetBmcPark(); p.GetFailures() != 2 || bmc.Parked(f.node()) == nil {
			f.Errorf("parked: %v", p)
		}
		// Another conductor, or the next process, knows from the record.
		other := f.access(f.c.Peer("p2"))
		if _, err := other.Power(f.Context(), id); !errors.Is(err, errs.Denied) || f.logins() != 2 {
			f.Errorf("another conductor tried again: %v", err)
		}
		f.setPassword(right)
		if bmc.Parked(f.node()) != nil {
			f.Error("still parked with other credentials")
		}
		if kind := f.power(); kind != -1 {
			f.Errorf("after the credentials changed: %v", kind)
		}
	})
}

// One refused login is forgiven by the next good one.
func TestOneRefusalIsForgotten(t *testing.T) {
	bubble(t, func(f *fixture) {
		for range 5 {
			f.bmc.Inject(fake.Fault{Kind: fake.Deny, Times: 1})
			if f.power() != errs.Denied || f.node().GetBmcPark().GetFailures() != 1 {
				f.Errorf("park %v", f.node().GetBmcPark())
			}
			if f.power() != -1 || f.node().GetBmcPark() != nil {
				f.Errorf("park after a good login %v", f.node().GetBmcPark())
			}
		}
	})
}

// Refused logins count also while they cannot be written down: no leader, a
// lock of somebody else, a call whose context has ended.
func TestParkingWithoutRecord(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.setPassword(wrong)
		f.p.Cut(true)
		for range 5 {
			if kind := f.power(); kind != errs.Denied {
				f.Error(kind)
			}
		}
		if f.logins() != 2 {
			f.Errorf("%d logins", f.logins())
		}
		if f.a.Parked(f.node()) == nil {
			f.Error("not parked")
		}
		f.p.Cut(false)
		f.setPassword(right)
		if kind := f.power(); kind != -1 {
			f.Error(kind)
		}
	})
}

// What another conductor has taken back on record does not stay in memory.
func TestMemoryFollowsRecord(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.bmc.Inject(fake.Fault{Kind: fake.Deny, Times: 2})
		f.power()
		f.power()
		if f.a.Parked(f.node()) == nil {
			f.Fatal("not parked")
		}
		f.c.Must(&api.Op{Op: &api.Op_NodeObserve{NodeObserve: &api.NodeObserve{
			NodeId: id, AssignEpoch: f.node().GetAssignEpoch(), Fields: []string{"bmc_park"}, Node: &api.Node{},
		}}})
		if kind := f.power(); kind != -1 {
			f.Error(kind)
		}
	})
}

// Calls beside each other do not add up to more than two refused logins after
// the first was noted.
func TestParkingOfConcurrentCalls(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.setPassword(wrong)
		f.power()
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { f.power() })
		}
		all.Wait()
		if f.logins() != 2 {
			f.Errorf("%d logins", f.logins())
		}
	})
}

// The holder of the lock writes under its token.
func TestParkingUnderLock(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.c.Must(&api.Op{Op: &api.Op_LeaseRegister{LeaseRegister: &api.LeaseRegister{Lease: &api.Lease{Id: "l1", Conductor: "p1"}}}})
		f.c.Must(&api.Op{Op: &api.Op_LockAcquire{LockAcquire: &api.LockAcquire{NodeId: id, LeaseId: "l1"}}})
		f.bmc.Inject(fake.Fault{Kind: fake.Deny, Times: 1})
		f.power()
		if f.node().GetBmcPark().GetFailures() != 1 {
			f.Errorf("park %v", f.node().GetBmcPark())
		}
	})
}

// A call that was given up still leaves its refusal on record.
func TestRefusalAfterContextEnded(t *testing.T) {
	bubble(t, func(f *fixture) {
		ctx, cancel := context.WithCancel(f.Context())
		f.bmc.Inject(fake.Fault{Kind: fake.Deny, Times: 1})
		f.p.Decide(func(*api.Command) conductortest.Fate { cancel(); return conductortest.Fate{} })
		if _, err := f.a.Power(ctx, id); !errors.Is(err, errs.Denied) {
			f.Error(err)
		}
		if f.node().GetBmcPark().GetFailures() != 1 {
			f.Error("not on record")
		}
	})
}

func TestUnsupportedAndUnknown(t *testing.T) {
	bubble(t, func(f *fixture) {
		reg := drivers.NewRegistry(plain{f.drv})
		a := bmc.New(bmc.Config{
			Member: "p1", Registry: reg, Keyring: f.p.Keyring(), Store: f.c.Store, Proposer: f.p, Journal: f.j, Clock: f.c.Clock, Logger: slog.New(slog.DiscardHandler),
		})
		if _, err := a.Identify(f.Context(), id); !errors.Is(err, errs.Unsupported) {
			f.Error(err)
		}
		f.c.Must(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{NodeId: id, Fields: []string{"driver"}, Node: &api.Node{Driver: "other"}}}})
		if kind := f.power(); kind != errs.Invalid {
			f.Error(kind)
		}
		// Sealed for another node: the values do not open.
		f.c.Must(&api.Op{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{
			Id: strings.Replace(id, "1", "2", 1), Driver: "fake", DriverInfo: f.info(right), Assigned: "p1",
		}}}})
		if _, err := f.a.Power(f.Context(), strings.Replace(id, "1", "2", 1)); !errors.Is(err, errs.Invalid) {
			f.Error(err)
		}
	})
}

// plain has none of the verbs of the driver inside.
type plain struct{ drivers.Driver }
