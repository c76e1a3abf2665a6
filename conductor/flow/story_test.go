package flow

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

// past is the history of the node as one text.
func (r *rig) past() string {
	var b strings.Builder
	for _, h := range r.c.Store.View().History(nodeID) {
		b.WriteString(h.GetText() + "\n")
	}
	return b.String()
}

func (r *rig) breakLock() {
	r.Helper()
	l := r.c.Store.View().Lock(nodeID)
	r.c.Must(&api.Op{Op: &api.Op_LockBreak{LockBreak: &api.LockBreak{NodeId: nodeID, Token: l.GetToken(), Term: r.c.Term(), Cause: "test"}}})
}

// waitStep waits until a step is under way.
func (r *rig) waitStep(name string) {
	r.Helper()
	conductortest.Until(r, 10*time.Minute, "step "+name, func() bool {
		f := r.flow()
		return f.GetStarted() && f.GetSteps()[f.GetCursor()].GetName() == name
	})
}

// A broken lock is let go at once, and the flow goes on under the next one: it
// does not fail, and the lease stays.
func TestBrokenLock(t *testing.T) {
	for _, step := range []string{"wait", "write_image"} {
		t.Run(step, func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.properties = bootsAnew
				r.start("p1")
				r.ready("p1")
				lease := r.c.Store.View().LiveLease("p1").GetId()
				r.begin(api.Event_EV_DEPLOY)
				r.waitStep(step)
				old := r.node().GetLastToken()
				r.breakLock()
				conductortest.Until(r, 5*time.Second, "next lock", func() bool { return r.c.Store.View().Lock(nodeID).GetToken() > old })
				r.idle(10 * time.Minute)
				r.checkDeploy(0)
				if r.c.Store.View().LiveLease("p1").GetId() != lease {
					r.Error("the lease was lost")
				}
			})
		})
	}
}

// The lock is broken while the BMC keeps a call waiting: it is let go within
// the time after which the whole lease would be fenced, the intent stays, and
// the next holder waits for it.
func TestBrokenLockDuringCall(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.enrol("p1")
		lease := r.c.Store.View().LiveLease("p1").GetId()
		r.bmc.Inject(fake.Fault{Kind: fake.Slow, Verb: fake.SetPower, Delay: 50 * time.Second, Times: 1})
		r.create(api.FlowKind_FLOW_POWER, api.PowerAction_POWER_ACTION_ON, api.Event_EVENT_NONE)
		conductortest.Until(r, time.Minute, "intent", func() bool { return r.c.Store.View().Intent(nodeID) != nil })
		conductortest.Pass(time.Second)
		r.breakLock()
		conductortest.Until(r, 5*time.Second, "quarantine", func() bool { return r.node().GetQuarantine().GetClass() == api.Quarantine_LONG })
		r.idle(5 * time.Minute)
		r.wants(api.State_ENROLL, api.FlowStatus_FLOW_DONE)
		if r.c.Store.View().LiveLease("p1").GetId() != lease {
			r.Error("the lease was lost")
		}
	})
}

// After a takeover the lock has the limits of the step that runs: a long write
// is not broken off.
func TestTakeoverOfLongWrite(t *testing.T) {
	inBubble(t, func(c *conductortest.MachineConfig) { c.WriteTime = 20 * time.Minute }, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		r.start("p2")
		r.begin(api.Event_EV_DEPLOY)
		r.waitStep("write_image")
		conductortest.Pass(time.Minute)
		r.c.Peer("p1").Kill()
		for end := time.Now().Add(10 * time.Minute); r.holder() != "p2" && time.Now().Before(end); {
			<-time.After(time.Second)
		}
		if l := r.c.Store.View().Lock(nodeID); l.GetClass() != "waiting" || l.GetConductor() != "p2" {
			r.Errorf("in %v the lock is %v", r.state(), l)
		}
		r.idle(time.Hour)
		r.checkDeploy(0)
		if strings.Contains(r.past(), "broken") {
			r.Errorf("the lock was broken:\n%s", r.past())
		}
		if r.flow().GetTakeovers() != 1 {
			r.Errorf("%d takeovers", r.flow().GetTakeovers())
		}
	})
}

// A peer that stops in order parks its flows and releases its lease: another
// one goes on at once, without a quarantine.
func TestOrderlyStop(t *testing.T) {
	for _, step := range []string{"wait", "write_image"} {
		t.Run(step, func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.properties = bootsAnew
				s := r.start("p1")
				r.ready("p1")
				r.start("p2")
				conductortest.Until(r, time.Minute, "lease of p2", func() bool { return r.c.Store.View().LiveLease("p2") != nil })
				r.begin(api.Event_EV_DEPLOY)
				r.waitStep(step)
				lease := r.c.Store.View().LiveLease("p1").GetId()
				conductortest.Pass(10 * time.Millisecond)
				s.stop()
				if err := <-s.done; err != nil {
					r.Error(err)
				}
				s.done <- nil
				r.mu.Lock()
				delete(r.stacks, "p1")
				r.mu.Unlock()
				if l := r.c.Store.View().Lease(lease); l.GetState() != api.Lease_RELEASED {
					r.Errorf("the lease is %v", l.GetState())
				}
				conductortest.Until(r, 3*time.Second, "p2 goes on", func() bool { return r.holder() == "p2" })
				if q := r.node().GetQuarantine(); q.GetClass() != api.Quarantine_NONE {
					r.Errorf("quarantine %v", q)
				}
				r.idle(10 * time.Minute)
				r.checkDeploy(0)
			})
		})
	}
}

// The peer stops while a BMC call is under way that does not take long: the
// change is brought to its end first.
func TestOrderlyStopDuringCall(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		s := r.start("p1")
		r.enrol("p1")
		r.bmc.Inject(fake.Fault{Kind: fake.Slow, Verb: fake.SetPower, Delay: 2 * time.Second, Times: 1})
		r.create(api.FlowKind_FLOW_POWER, api.PowerAction_POWER_ACTION_ON, api.Event_EVENT_NONE)
		conductortest.Until(r, time.Minute, "intent", func() bool { return r.c.Store.View().Intent(nodeID) != nil })
		s.stop()
		if err := <-s.done; err != nil {
			r.Error(err)
		}
		s.done <- nil
		v := r.c.Store.View()
		if v.Intent(nodeID) != nil || v.Lock(nodeID) != nil || v.LiveLease("p1") != nil || r.bmc.Power() != api.PowerState_POWER_ON {
			r.Errorf("left behind: %s", r.describe())
		}
	})
}

// The peer stops while the BMC does not answer at all: the call is cut, and the
// stop takes no longer than Q after that. Nothing is left behind, so that the
// next one begins without a quarantine.
func TestOrderlyStopDuringHangingCall(t *testing.T) {
	for _, kind := range []fake.FaultKind{fake.Die, fake.DieAfter} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				s := r.start("p1")
				r.enrol("p1")
				r.bmc.Inject(fake.Fault{Kind: kind, Verb: fake.SetPower})
				r.create(api.FlowKind_FLOW_POWER, api.PowerAction_POWER_ACTION_ON, api.Event_EVENT_NONE)
				conductortest.Until(r, time.Minute, "intent", func() bool { return r.c.Store.View().Intent(nodeID) != nil })
				conductortest.Pass(5 * time.Second)
				if kind == fake.Die { // and reading hangs too
					r.bmc.Inject(fake.Fault{Kind: fake.Die})
				}
				begin := time.Now()
				s.stop()
				if err := <-s.done; err != nil {
					r.Error(err)
				}
				s.done <- nil
				v := r.c.Store.View()
				if took := time.Since(begin); took > 15*time.Second {
					r.Errorf("the stop took %v", took)
				}
				if v.Intent(nodeID) != nil || v.Lock(nodeID) != nil || v.LiveLease("p1") != nil || r.node().GetQuarantine() != nil {
					r.Errorf("left behind: %s", r.describe())
				}
			})
		})
	}
}

// The quorum is away for less than a lease: the gate closes and opens again,
// nobody takes over.
func TestShortOutage(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		r.begin(api.Event_EV_DEPLOY)
		r.waitStep("write_image")
		r.c.Peer("p1").Cut(true)
		conductortest.Pass(9 * time.Second)
		r.c.Peer("p1").Cut(false)
		r.idle(10 * time.Minute)
		r.checkDeploy(0)
		if r.flow().GetTakeovers() != 0 {
			r.Errorf("%d takeovers", r.flow().GetTakeovers())
		}
	})
}

// fails runs a deployment that must fail with a text, after which the node is
// deployed again without trouble.
func (r *rig) fails(says string, limit time.Duration, heal func()) {
	r.Helper()
	begin := time.Now()
	r.idle(limit)
	r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
	if !strings.Contains(r.node().GetLastError(), says) {
		r.Errorf("after %v the error is %q, want %q", time.Since(begin), r.node().GetLastError(), says)
	}
	if b := r.node().GetBoot(); b.GetTarget() == api.BootTarget_BOOT_RAMDISK || b.GetNonce() != "" {
		r.Errorf("the boot record is left behind: %v", b)
	}
	if heal == nil {
		return
	}
	heal()
	r.begin(api.Event_EV_DEPLOY)
	r.idle(30 * time.Minute)
	r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
	r.deployed()
}

// What the agent says of a command it failed at ends the step: the same cmdID
// would give the same answer for hours.
func TestAgentFails(t *testing.T) {
	for kind, text := range map[errs.Kind]string{
		errs.NotFound: "404 Not Found", errs.Unreachable: "connection refused", errs.Timeout: "the image server does not answer", errs.Invalid: "the digest is another",
	} {
		t.Run(kind.String(), func(t *testing.T) {
			broken := true
			inBubble(t, func(c *conductortest.MachineConfig) {
				c.Script = func(cmd *api.AgentCommand) *api.CommandStatus {
					if broken && cmd.GetName() == agentproto.CmdWriteImage {
						return &api.CommandStatus{State: api.CommandStatus_FAILED, Error: text, ErrorKind: kind.String()}
					}
					return nil
				}
			}, func(r *rig) {
				r.start("p1")
				r.ready("p1")
				r.begin(api.Event_EV_DEPLOY)
				r.fails(text, 2*time.Minute, func() { broken = false })
			})
		})
	}
}

// A machine that dies while it writes fails the flow when nothing has moved
// for the stall limit, not after the six hours of the step.
func TestAgentStalls(t *testing.T) {
	dead := true
	inBubble(t, func(c *conductortest.MachineConfig) {
		c.Script = func(cmd *api.AgentCommand) *api.CommandStatus {
			if dead && cmd.GetName() == agentproto.CmdWriteImage {
				return &api.CommandStatus{State: api.CommandStatus_RUNNING, Percent: 12}
			}
			return nil
		}
	}, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		r.begin(api.Event_EV_DEPLOY)
		r.fails("no progress for 9m45s", 12*time.Minute, func() { dead = false })
		if strings.Contains(r.past(), "broken") {
			r.Errorf("the lock had to be broken:\n%s", r.past())
		}
	})
}

// A machine that never calls is switched off and on a bounded number of times.
func TestMachineNeverCalls(t *testing.T) {
	inBubble(t, func(c *conductortest.MachineConfig) {
		c.BootTime = 24 * time.Hour
	}, func(r *rig) {
		s := r.start("p1")
		r.enrol("p1")
		r.begin(api.Event_EV_MANAGE)
		r.idle(time.Minute)
		r.begin(api.Event_EV_INSPECT)
		r.waitStep("wait")
		first := r.node().GetBoot()
		s.journal.Append(&api.JournalEvent{NodeId: nodeID, Kind: "tftp", Stage: "tftp"})
		r.idle(20 * time.Minute)
		r.wants(api.State_INSPECT_FAILED, api.FlowStatus_FLOW_FAILED)
		if e := r.node().GetLastError(); !strings.Contains(e, "did not call in 3 boots") || !strings.Contains(e, "nothing was heard of the machine") {
			r.Errorf("the error is %q", e)
		}
		on := 0
		for _, c := range r.bmc.Calls() {
			if c.Verb == fake.SetPower && c.Action == api.PowerAction_POWER_ACTION_ON {
				on++
			}
		}
		if on != 3 || r.flow().GetRewinds() != 2 || first.GetNonce() == "" || first.GetTries() != 1 {
			r.Errorf("switched on %d times, %d rewinds, first boot %v", on, r.flow().GetRewinds(), first)
		}
	})
}

// The machine in the ramdisk is not the one behind the BMC: nothing is written.
func TestWrongMachine(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		r.bmc.SetFacts(&api.BmcFacts{SystemUuid: "4c4c4544-0044-4710-8051-b4c04f4d3132"})
		r.begin(api.Event_EV_DEPLOY)
		r.fails("identity mismatch", 5*time.Minute, nil)
		if n := len(r.machine.Begun(agentproto.CmdWriteImage)); n != 0 {
			r.Errorf("the image was written %d times", n)
		}
	})
}

// Two disks and no hint: refused before a byte is written, with the hints to
// paste.
func TestTwoDisks(t *testing.T) {
	inBubble(t, func(c *conductortest.MachineConfig) {
		c.Disks = append(c.Disks, agentproto.Disk{Name: "/dev/sdb", Serial: "S2", SizeBytes: 200 << 30, Tran: "sata"})
	}, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		r.begin(api.Event_EV_DEPLOY)
		r.fails("S2", 5*time.Minute, func() {
			r.c.Must(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{NodeId: nodeID, Fields: []string{"properties"},
				Node: &api.Node{Properties: []byte(`{"root_device":{"serial":"S1"}}`)}}}})
		})
		if n := len(r.machine.Begun(agentproto.CmdWriteImage)); n != 1 {
			r.Errorf("%d writes", n)
		}
	})
}

// An abort ends a flow that waits, also under a lock that was taken over.
func TestAbort(t *testing.T) {
	inBubble(t, func(c *conductortest.MachineConfig) { c.WriteTime = time.Hour }, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		r.begin(api.Event_EV_DEPLOY)
		r.waitStep("write_image")
		r.c.Must(&api.Op{Op: &api.Op_FlowRequest{FlowRequest: &api.FlowRequest{NodeId: nodeID, Event: api.Event_EV_ABORT}}})
		r.idle(10 * time.Second)
		r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_ABORTED)
		if !strings.Contains(r.node().GetLastError(), "aborted") {
			r.Errorf("%q", r.node().GetLastError())
		}
	})
}

// Undeploy during a deploy that waits tears down and cleans.
func TestUndeployWhileDeploying(t *testing.T) {
	inBubble(t, func(c *conductortest.MachineConfig) { c.WriteTime = time.Hour }, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		r.begin(api.Event_EV_DEPLOY)
		r.waitStep("write_image")
		r.c.Must(&api.Op{Op: &api.Op_FlowRequest{FlowRequest: &api.FlowRequest{NodeId: nodeID, Event: api.Event_EV_DELETE}}})
		r.idle(10 * time.Minute)
		r.wants(api.State_AVAILABLE, api.FlowStatus_FLOW_DONE)
		if f := r.flow(); f.GetKind() != api.FlowKind_FLOW_CLEAN {
			r.Errorf("the last flow is %v, not a clean", f.GetKind())
		}
	})
}

// A result that the state does not take ends the flow; it is not asked for for
// ever.
func TestResultTooLarge(t *testing.T) {
	inBubble(t, func(c *conductortest.MachineConfig) {
		c.Script = func(cmd *api.AgentCommand) *api.CommandStatus {
			if cmd.GetName() != agentproto.CmdBootEntry {
				return nil
			}
			b, err := json.Marshal(agentproto.BootEntryResult{Mode: "uefi", Entry: "Boot0001", Order: slices.Repeat([]string{"0001"}, 10_000)})
			if err != nil {
				panic(err)
			}
			return &api.CommandStatus{State: api.CommandStatus_DONE, Result: b}
		}
	}, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		r.begin(api.Event_EV_DEPLOY)
		r.fails("step result has", 5*time.Minute, nil)
	})
}

// The agent erased fewer disks than it was told: the clean fails and says so.
func TestEraseLeavesADisk(t *testing.T) {
	inBubble(t, func(c *conductortest.MachineConfig) {
		c.Script = func(cmd *api.AgentCommand) *api.CommandStatus {
			if cmd.GetName() == agentproto.CmdEraseMetadata {
				return &api.CommandStatus{State: api.CommandStatus_DONE, Result: []byte(`{"disks":[]}`)}
			}
			return nil
		}
	}, func(r *rig) {
		r.start("p1")
		r.enrol("p1")
		r.begin(api.Event_EV_MANAGE)
		r.idle(time.Minute)
		r.begin(api.Event_EV_PROVIDE)
		r.idle(10 * time.Minute)
		r.wants(api.State_CLEAN_FAILED, api.FlowStatus_FLOW_FAILED)
		if e := r.node().GetErasure(); e.GetLevel() != api.Erasure_NONE {
			r.Errorf("recorded as erased: %v", e)
		}
	})
}

// Steps that wait for machines take no place from others.
func TestWaitingStepsLeaveTheirPlace(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		e := New(Config{})
		for range maxTasks - 1 {
			e.slots <- struct{}{}
		}
		e.slots <- struct{}{} // ours
		run := &runner{Engine: e}
		took := false
		_, err := run.execute(r.Context(), func(*runner, context.Context, position) (outcome, error) {
			select {
			case e.slots <- struct{}{}:
				<-e.slots
				took = true
			default:
			}
			return outcome{}, nil
		}, position{step: &api.Step{Waits: true}})
		if err != nil || !took || len(e.slots) != maxTasks {
			r.Errorf("%v, %v, %d places taken", err, took, len(e.slots))
		}
	})
}
