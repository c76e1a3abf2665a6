package power_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/bmc"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/conductor/journal"
	"github.com/ironring/ironring/conductor/power"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/node"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	on     = api.PowerState_POWER_ON
	off    = api.PowerState_POWER_OFF
	period = 2 * time.Minute
)

func id(n int) string { return fmt.Sprintf("%08x-0000-4000-8000-000000000000", n) }

type fixture struct {
	*testing.T
	c   *conductortest.Cluster
	drv *fake.Driver
}

// bubble runs the sync of p1, which owns nodes 1..n in state manageable.
func bubble(t *testing.T, nodes int, test func(f *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{T: t, c: conductortest.New(t, "p1", "p2")}
		var err error
		if f.drv, err = fake.New(fake.Config{}); err != nil {
			t.Fatal(err)
		}
		p := f.c.Peer("p1")
		log := slog.New(slog.DiscardHandler)
		j, err := journal.New(journal.Config{Dir: t.TempDir(), Peer: "p1", Clock: f.c.Clock, Logger: log})
		if err != nil {
			t.Fatal(err)
		}
		access := bmc.New(bmc.Config{
			Member: "p1", Registry: drivers.NewRegistry(f.drv), Keyring: p.Keyring(), Store: f.c.Store, Proposer: p, Journal: j, Clock: f.c.Clock, Logger: log,
		})
		s := power.New(power.Config{Member: "p1", Store: f.c.Store, Propose: p.Propose, BMC: access, Clock: f.c.Clock, Logger: log, Workers: 2})
		f.c.Must(&api.Op{Op: &api.Op_LeaseRegister{LeaseRegister: &api.LeaseRegister{Lease: &api.Lease{Id: "l1", Conductor: "p1"}}}})
		for n := range nodes {
			f.enrol(n+1, "p1")
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		test(f)
	})
}

// enrol makes a node that is manageable and recorded as on.
func (f *fixture) enrol(n int, owner string) {
	f.Helper()
	f.bmc(n).SetPower(on)
	f.c.Must(&api.Op{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{Id: id(n), Driver: "fake", DriverInfo: []byte("{}"), Assigned: owner}}}})
	if owner != "p1" {
		return
	}
	steps, err := node.Plan(api.FlowKind_FLOW_VERIFY, 0)
	if err != nil {
		f.Fatal(err)
	}
	flow := fmt.Sprintf("flow-%d", n)
	f.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: id(n), Event: api.Event_EV_MANAGE, Flow: &api.Flow{Id: flow, Kind: api.FlowKind_FLOW_VERIFY, Steps: steps}}}})
	token := f.lock(n)
	f.c.Must(
		&api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: id(n), Token: token, Fields: []string{"power_state"}, Node: &api.Node{PowerState: on}}}},
		&api.Op{Op: &api.Op_StepStart{StepStart: &api.StepStart{NodeId: id(n), Token: token, FlowId: flow, Attempt: 1, CmdId: "c"}}},
		&api.Op{Op: &api.Op_StepDone{StepDone: &api.StepDone{NodeId: id(n), Token: token, FlowId: flow, Attempt: 1}}},
		&api.Op{Op: &api.Op_FlowEnd{FlowEnd: &api.FlowEnd{NodeId: id(n), Token: token, FlowId: flow, Status: api.FlowStatus_FLOW_DONE, Event: api.Event_EV_DONE}}},
	)
	f.unlock(n, token)
}

func (f *fixture) lock(n int) uint64 {
	f.Helper()
	return f.c.Must(&api.Op{Op: &api.Op_LockAcquire{LockAcquire: &api.LockAcquire{NodeId: id(n), LeaseId: "l1"}}}).GetOps()[0].GetToken()
}

func (f *fixture) unlock(n int, token uint64) {
	f.Helper()
	f.c.Must(&api.Op{Op: &api.Op_LockRelease{LockRelease: &api.LockRelease{NodeId: id(n), Token: token}}})
}

func (f *fixture) bmc(n int) *fake.BMC { return f.drv.BMC(id(n)) }

func (f *fixture) set(n int, field string, to *api.Node) {
	f.Helper()
	f.c.Must(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{NodeId: id(n), Fields: []string{field}, Node: to}}})
}

func (f *fixture) recorded(n int) api.PowerState {
	return f.c.Store.View().Node(id(n)).GetPowerState()
}

func TestObserves(t *testing.T) {
	bubble(t, 3, func(f *fixture) {
		f.enrol(9, "p2") // not ours
		conductortest.Pass(period)
		f.bmc(2).SetPower(off)
		f.bmc(9).SetPower(off)
		conductortest.Pass(period + 5*time.Second)
		if f.recorded(1) != on || f.recorded(2) != off {
			f.Errorf("recorded %v, %v", f.recorded(1), f.recorded(2))
		}
		if n := len(f.bmc(9).Calls()); n != 0 {
			f.Errorf("a node of another owner was polled %d times", n)
		}
		if n := len(f.bmc(1).Calls()); n < 2 || n > 4 {
			f.Errorf("polled %d times in two periods", n)
		}
		for n := range 3 {
			if f.bmc(n+1).Changes() != 0 || f.c.Store.View().Flow(id(n+1)).GetStatus() == api.FlowStatus_FLOW_RUNNING {
				f.Error("the sync changed a machine")
			}
		}
	})
}

// Who is left alone.
func TestLeavesAlone(t *testing.T) {
	bubble(t, 5, func(f *fixture) {
		f.lock(1)
		steps, err := node.Plan(api.FlowKind_FLOW_POWER, api.PowerAction_POWER_ACTION_OFF)
		if err != nil {
			f.Fatal(err)
		}
		f.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: id(2), Flow: &api.Flow{Id: "f2", Kind: api.FlowKind_FLOW_POWER, Steps: steps}}}})
		f.set(3, "maintenance", &api.Node{Maintenance: true})
		f.bmc(4).Inject(fake.Fault{Kind: fake.Deny})
		f.bmc(5).Inject(fake.Fault{Kind: fake.Die})
		conductortest.Pass(20 * period)
		for n, most := range map[int]int{1: 1, 2: 1, 3: 1, 4: 1 + 2} {
			if got := len(f.bmc(n).Calls()); got > most {
				f.Errorf("node %d was polled %d times", n, got)
			}
		}
		if got := len(f.bmc(5).Calls()); got < 10 {
			f.Errorf("a silent BMC was given up after %d polls", got)
		}
	})
}

// A silent BMC does not keep the others waiting.
func TestSilentBMC(t *testing.T) {
	bubble(t, 4, func(f *fixture) {
		f.bmc(1).Inject(fake.Fault{Kind: fake.Die})
		conductortest.Pass(period)
		f.bmc(4).SetPower(off)
		conductortest.Pass(period + 10*time.Second)
		if f.recorded(4) != off {
			f.Error("node 4 was not polled")
		}
	})
}

// With enforce_power the machine is put back by a flow like any other, one at
// a time.
func TestEnforces(t *testing.T) {
	for _, recorded := range []api.PowerState{on, off} {
		bubble(t, 1, func(f *fixture) {
			if recorded == off {
				f.bmc(1).SetPower(off)
				conductortest.Pass(2 * period)
			}
			f.set(1, "enforce_power", &api.Node{EnforcePower: true})
			f.bmc(1).SetPower(on + off - recorded)
			conductortest.Pass(period + 5*time.Second)
			fl := f.c.Store.View().Flow(id(1))
			want := node.StepPowerOn
			if recorded == off {
				want = node.StepPowerOff
			}
			if fl.GetStatus() != api.FlowStatus_FLOW_RUNNING || fl.GetKind() != api.FlowKind_FLOW_POWER || node.IDOf(fl.GetSteps()[0]) != want {
				f.Errorf("flow %v", fl)
			}
			if f.recorded(1) != recorded {
				f.Errorf("recorded %v", f.recorded(1))
			}
			conductortest.Pass(3 * period)
			if now := f.c.Store.View().Flow(id(1)); now.GetId() != fl.GetId() {
				f.Error("a second flow was made")
			}
		})
	}
}

// A slow BMC answers with what was before a power action: it is not recorded.
func TestStaleAnswer(t *testing.T) {
	bubble(t, 1, func(f *fixture) {
		conductortest.Pass(time.Second)
		// The next poll takes 30 s; meanwhile somebody holds the lock and records.
		f.bmc(1).Inject(fake.Fault{Kind: fake.Slow, Delay: 30 * time.Second, Times: 1})
		f.bmc(1).SetPower(off)
		conductortest.Pass(period + 5*time.Second)
		token := f.lock(1)
		f.unlock(1, token)
		conductortest.Pass(40 * time.Second)
		if f.recorded(1) != on {
			f.Errorf("recorded %v from a poll that a lock overtook", f.recorded(1))
		}
		conductortest.Pass(period)
		if f.recorded(1) != off {
			f.Errorf("recorded %v by the next poll", f.recorded(1))
		}
	})
}

// What was being read at the old address while driver_info changed is not of the
// BMC that it leads to now.
func TestAnswerOfTheAddressBefore(t *testing.T) {
	bubble(t, 1, func(f *fixture) {
		conductortest.Pass(time.Second)
		f.set(1, "enforce_power", &api.Node{EnforcePower: true})
		f.drv.BMC("moved").SetPower(on)
		f.bmc(1).Inject(fake.Fault{Kind: fake.Slow, Delay: 30 * time.Second, Times: 1})
		f.bmc(1).SetPower(off)
		conductortest.Pass(period + 5*time.Second)
		f.set(1, "driver_info", &api.Node{DriverInfo: []byte(`{"fake_address":"moved"}`)})
		was := f.c.Store.View().Flow(id(1)).GetId()
		conductortest.Pass(40 * time.Second)
		if f.recorded(1) != on || f.c.Store.View().Flow(id(1)).GetId() != was {
			f.Errorf("recorded %v, flow %v from a poll of the address before", f.recorded(1), f.c.Store.View().Flow(id(1)))
		}
	})
}

// left is what a flow that keeps the agent leaves.
func (f *fixture) left(n int) {
	f.Helper()
	token := f.lock(n)
	f.c.Must(&api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: id(n), Token: token, Fields: []string{"boot", "bmc"}, Node: &api.Node{
		Bmc: &api.BmcFacts{ReadMs: 1}, Boot: &api.Boot{Target: api.BootTarget_BOOT_RAMDISK, Nonce: "0123456789abcdef0123456789abcdef"},
	}}}})
	f.unlock(n, token)
}

// clock moves the cluster clock, then gives the sync time to look.
func (f *fixture) clock(minutes int) {
	f.Helper()
	for range 6 * minutes {
		f.c.Must(&api.Op{Op: &api.Op_Tick{Tick: &api.Tick{Ms: 10_000, Term: f.c.Term()}}})
	}
	conductortest.Pass(2*period + 5*time.Second)
}

// switchedOff says whether there is a flow that ends the boot of an idle machine.
func (f *fixture) switchedOff(n int) bool {
	fl := f.c.Store.View().Flow(id(n))
	return fl.GetKind() == api.FlowKind_FLOW_POWER && node.IDOf(fl.GetSteps()[0]) == node.StepPowerOff &&
		node.IDOf(fl.GetSteps()[1]) == node.StepBootNothing && fl.GetMeta().GetReason() == "nothing came for the machine in the ramdisk"
}

// A machine that was left in the ramdisk is switched off after ten minutes
// without work, and not before; who was not left there stays on.
func TestSwitchesIdleRamdiskOff(t *testing.T) {
	bubble(t, 2, func(f *fixture) {
		f.left(1)
		f.clock(9)
		if f.switchedOff(1) {
			f.Error("too soon")
		}
		f.clock(2)
		if !f.switchedOff(1) || f.switchedOff(2) {
			f.Errorf("flows %v, %v", f.c.Store.View().Flow(id(1)), f.c.Store.View().Flow(id(2)))
		}
	})
}

// Who takes a node over, or begins anew, finds in the record how long the
// machine has been idle. What the last poll saw does not matter.
func TestSwitchesIdleRamdiskOffAfterTakeover(t *testing.T) {
	bubble(t, 1, func(f *fixture) {
		f.left(1)
		f.assign(1, "p2")
		f.bmc(1).SetPower(off)
		f.clock(11)
		if f.switchedOff(1) {
			f.Error("by a peer that does not own it")
		}
		f.bmc(1).SetPower(on)
		f.assign(1, "p1")
		conductortest.Pass(period + 5*time.Second)
		if !f.switchedOff(1) {
			f.Errorf("flow %v", f.c.Store.View().Flow(id(1)))
		}
	})
}

func (f *fixture) assign(n int, owner string) {
	f.Helper()
	f.c.Must(&api.Op{Op: &api.Op_Assign{Assign: &api.Assign{Term: f.c.Term(), Nodes: []*api.Assignment{
		{NodeId: id(n), Conductor: owner, Epoch: f.c.Store.View().Node(id(n)).GetAssignEpoch() + 1},
	}}}})
}

// After a change of driver_info nothing tells whose BMC the address is of:
// nobody has asked to switch that machine off.
func TestIdleMachineOfAnUnknownBMC(t *testing.T) {
	bubble(t, 1, func(f *fixture) {
		f.left(1)
		n := f.c.Store.View().Node(id(1))
		f.c.Must(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{
			NodeId: id(1), Fields: []string{"driver_info"}, Node: &api.Node{DriverInfo: []byte(`{"fake_address":"elsewhere"}`)},
		}}})
		f.clock(30)
		if f.switchedOff(1) {
			f.Errorf("%s was switched off", n.GetId())
		}
	})
}

// What is behind the BMC now must not contradict the record: nobody has asked
// to switch that off. A BMC that is silent is asked again.
func TestIdleMachineOfAnotherBMC(t *testing.T) {
	bubble(t, 2, func(f *fixture) {
		for n := 1; n <= 2; n++ {
			f.left(n)
			token := f.lock(n)
			f.c.Must(&api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: id(n), Token: token, Fields: []string{"bmc"}, Node: &api.Node{Bmc: &api.BmcFacts{SystemUuid: fmt.Sprintf("4a6a2ed2-9d5c-4c6e-8d59-5f0b3f0d000%d", n)}}}}})
			f.unlock(n, token)
		}
		f.bmc(1).SetFacts(&api.BmcFacts{SystemUuid: "4C4C4544-0044-4710-8051-b4c04f4d3132"})
		f.bmc(2).SetFacts(&api.BmcFacts{SystemUuid: "4A6A2ED2-9d5c-4c6e-8d59-5f0b3f0d0002"})
		f.bmc(2).Inject(fake.Fault{Kind: fake.Die})
		f.clock(11)
		if f.switchedOff(1) || f.switchedOff(2) {
			f.Errorf("flows %v, %v", f.c.Store.View().Flow(id(1)), f.c.Store.View().Flow(id(2)))
		}
		f.bmc(2).Heal()
		conductortest.Pass(2 * period)
		if f.switchedOff(1) || !f.switchedOff(2) {
			f.Errorf("flows %v, %v", f.c.Store.View().Flow(id(1)), f.c.Store.View().Flow(id(2)))
		}
	})
}
