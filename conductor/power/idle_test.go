package power_test

import (
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/conductor/power"
)

const (
	itsUUID  = "4a6a2ed2-9d5c-4c6e-8d59-5f0b3f0d0001"
	anothers = "4c4c4544-0044-4710-8051-b4c04f4d3132"
)

// readdressed is an idle machine whose node leads to the BMC "moved" now.
func readdressed(f *fixture, uuid string) {
	f.Helper()
	f.left(1)
	token := f.lock(1)
	f.c.Must(&api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: id(1), Token: token, Fields: []string{"bmc"}, Node: &api.Node{Bmc: &api.BmcFacts{SystemUuid: itsUUID}}}}})
	f.unlock(1, token)
	moved := f.drv.BMC("moved")
	moved.SetPower(off)
	moved.SetFacts(&api.BmcFacts{SystemUuid: uuid})
	f.c.Must(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{
		NodeId: id(1), Fields: []string{"driver_info"}, Node: &api.Node{DriverInfo: []byte(`{"fake_address":"moved"}`)},
	}}})
}

// After a change of driver_info the facts of before decide: an idle machine that
// is still the same is switched off, another one is not, and its power is not
// recorded as that of the node.
func TestIdleMachineAtAnotherAddress(t *testing.T) {
	for uuid, same := range map[string]bool{itsUUID: true, anothers: false} {
		bubble(t, 1, func(f *fixture) {
			readdressed(f, uuid)
			f.clock(5)
			if (f.recorded(1) == off) != same {
				f.Errorf("same machine %v: recorded is %v", same, f.recorded(1))
			}
			f.clock(6)
			if f.switchedOff(1) != same {
				f.Errorf("same machine %v: flow %v", same, f.c.Store.View().Flow(id(1)))
			}
		})
	}
}

// fails ends the flow that is under way as its engine does when the BMC stays
// silent.
func (f *fixture) fails(n int) {
	f.Helper()
	token := f.lock(n)
	fl := f.c.Store.View().Flow(id(n))
	f.c.Must(&api.Op{Op: &api.Op_FlowEnd{FlowEnd: &api.FlowEnd{NodeId: id(n), Token: token, FlowId: fl.GetId(), Status: api.FlowStatus_FLOW_FAILED, Error: "silent"}}})
	f.unlock(n, token)
}

// Where switching off comes to nothing it is tried again, later each time.
func TestIdleMachineIsTriedLaterEachTime(t *testing.T) {
	bubble(t, 1, func(f *fixture) {
		f.left(1)
		f.clock(11)
		var pauses []time.Duration
		for range 4 {
			first := f.c.Store.View().Flow(id(1)).GetId()
			if !f.switchedOff(1) {
				f.Fatalf("flow %v", f.c.Store.View().Flow(id(1)))
			}
			f.fails(1)
			since := time.Now()
			conductortest.Until(f, 2*time.Hour, "another try", func() bool { return f.c.Store.View().Flow(id(1)).GetId() != first })
			pauses = append(pauses, time.Since(since))
		}
		for i, p := range pauses[1:] {
			if p < pauses[i]*3/2 {
				f.Errorf("pauses %v", pauses)
			}
		}
	})
}

// Kept is what people are told; it agrees with what is done.
func TestKept(t *testing.T) {
	n := &api.Node{StateSinceTick: 1000, Boot: &api.Boot{Target: api.BootTarget_BOOT_NOTHING}}
	if _, kept := power.Kept(n, 2000); kept {
		t.Error("kept without a boot of the ramdisk")
	}
	n.Boot.Target = api.BootTarget_BOOT_RAMDISK
	for ticks, want := range map[uint64]time.Duration{1000: 10 * time.Minute, 61_000: 9 * time.Minute, 601_000: 0, 661_000: -time.Minute} {
		if left, kept := power.Kept(n, ticks); !kept || left != want {
			t.Errorf("at %d: %v, %v", ticks, left, kept)
		}
	}
}
