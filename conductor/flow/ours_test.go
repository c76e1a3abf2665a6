package flow

import (
	"encoding/json"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rootdisk"
)

// with is a disk that holds something.
func with(d agentproto.Disk, contents ...string) agentproto.Disk {
	d.Contents = append([]string{}, contents...)
	return d
}

// secondDisk is another disk beside ourDisk.
var secondDisk = agentproto.Disk{Name: "/dev/sdb", Serial: "S2", WWN: "0x6", SizeBytes: 200 << 30, Tran: "sata"}

// on are the arguments of a deploy to the disk of that serial number.
func on(serial string) DeployArgs {
	return DeployArgs{Image: "http://images/a.raw", Checksum: checksum, RootDevice: json.RawMessage(`{"serial":"` + serial + `"}`)}
}

// Somebody puts data on a disk that a clean of ours had left blank: neither a
// deploy nor the next clean touches it before somebody said that it may go.
func TestFilledAfterClean(t *testing.T) {
	for _, contents := range [][]string{{"GPT", "ext"}, {"unknown data"}, nil} {
		inBubble(t, func(c *conductortest.MachineConfig) { c.Unreadable = contents == nil }, func(r *rig) {
			r.machine.SetDisks(with(ourDisk))
			r.start("p1")
			r.ready("p1")
			filled := with(ourDisk, contents...)
			if contents == nil {
				filled.Contents = nil
			}
			r.machine.SetDisks(filled)
			images, erasures := r.written()
			unwritten := func() {
				r.Helper()
				if i, e := r.written(); i != images || e != erasures {
					r.Errorf("%d images and %d erasures were begun", i-images, e-erasures)
				}
			}
			r.begin(api.Event_EV_DEPLOY)
			r.idle(10 * time.Minute)
			r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
			r.says("nothing was written", "serial S1", rootdisk.Holds(contents), "--wipe-existing")
			unwritten()
			// To undeploy it is no way around the question, nor is another try.
			r.begin(api.Event_EV_DELETE)
			r.idle(10 * time.Minute)
			r.wants(api.State_CLEAN_FAILED, api.FlowStatus_FLOW_FAILED)
			r.says("nothing was erased", "serial S1", rootdisk.Holds(contents), "--wipe-existing")
			for range 2 {
				r.begin(api.Event_EV_MANAGE)
				r.begin(api.Event_EV_PROVIDE)
				r.idle(10 * time.Minute)
				r.wants(api.State_CLEAN_FAILED, api.FlowStatus_FLOW_FAILED)
			}
			unwritten()
			r.begin(api.Event_EV_MANAGE)
			r.beginWith(api.Event_EV_PROVIDE, CleanArgs{WipeExisting: true})
			r.idle(10 * time.Minute)
			r.wants(api.State_AVAILABLE, api.FlowStatus_FLOW_DONE)
			r.begin(api.Event_EV_DEPLOY)
			r.idle(10 * time.Minute)
			r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
		})
	}
}

// A deploy that ended before its first byte leaves the disk as the clean did:
// what is put on it then is not the deploy's.
func TestFilledAfterDeployWithoutWrite(t *testing.T) {
	for name, abort := range map[string]bool{"the image is not there": false, "aborted while the server is silent": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(c *conductortest.MachineConfig) {
				c.Script = func(cmd *api.AgentCommand) *api.CommandStatus {
					switch {
					case cmd.GetName() != agentproto.CmdWriteImage:
						return nil
					case abort:
						return &api.CommandStatus{State: api.CommandStatus_RUNNING}
					}
					return &api.CommandStatus{State: api.CommandStatus_FAILED, Error: "404", ErrorKind: errs.NotFound.String()}
				}
			}, func(r *rig) {
				r.machine.SetDisks(with(ourDisk))
				r.start("p1")
				r.ready("p1")
				r.begin(api.Event_EV_DEPLOY)
				if abort {
					conductortest.Until(r, 10*time.Minute, "the write", func() bool { n, _ := r.written(); return n == 1 })
					if r.node().GetRootDisk().GetBegunCmd() == "" {
						r.Error("a write has begun of which the record says nothing")
					}
					r.c.Must(&api.Op{Op: &api.Op_FlowRequest{FlowRequest: &api.FlowRequest{NodeId: nodeID, Event: api.Event_EV_ABORT}}})
				}
				r.idle(10 * time.Minute)
				r.wants(api.State_DEPLOY_FAILED, map[bool]api.FlowStatus{false: api.FlowStatus_FLOW_FAILED, true: api.FlowStatus_FLOW_ABORTED}[abort])
				r.machine.SetDisks(with(ourDisk, "ntfs"))
				r.begin(api.Event_EV_DEPLOY)
				r.idle(10 * time.Minute)
				r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
				r.says("nothing was written", "ntfs")
				r.begin(api.Event_EV_DELETE)
				r.idle(10 * time.Minute)
				r.wants(api.State_CLEAN_FAILED, api.FlowStatus_FLOW_FAILED)
				r.says("nothing was erased", "ntfs")
				if images, erasures := r.written(); images != 1 || erasures != 1 {
					r.Errorf("%d images and %d erasures were begun", images, erasures)
				}
			})
		})
	}
}

// What a tenant put on the other disks of its machine goes with an undeploy. A
// rebuild that chooses such a disk asks: it was not named.
func TestDataDisksOfTenants(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.machine.SetDisks(with(ourDisk), with(secondDisk))
		r.start("p1")
		r.ready("p1")
		r.beginWith(api.Event_EV_DEPLOY, on("S1"))
		r.idle(10 * time.Minute)
		r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
		r.machine.SetDisks(with(ourDisk, "GPT"), with(secondDisk, "xfs"))
		r.beginWith(api.Event_EV_REBUILD, on("S2"))
		r.idle(10 * time.Minute)
		r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
		r.says("nothing was written", "serial S2", "xfs")
		r.beginWith(api.Event_EV_DEPLOY, on("S1"))
		r.idle(10 * time.Minute)
		r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
		args := on("S2")
		args.WipeExisting = true
		r.beginWith(api.Event_EV_REBUILD, args)
		r.idle(10 * time.Minute)
		r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
		// Back to the first one, on which the image of before lies.
		r.beginWith(api.Event_EV_REBUILD, on("S1"))
		r.idle(10 * time.Minute)
		r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
		r.begin(api.Event_EV_DELETE)
		r.idle(10 * time.Minute)
		r.wants(api.State_AVAILABLE, api.FlowStatus_FLOW_DONE)
		if n := r.node(); n.GetRootDisk() != nil || len(n.GetErasure().GetErased()) != 2 {
			r.Errorf("the record is %v, %v", n.GetRootDisk(), n.GetErasure())
		}
		// From here on they are nobody's.
		r.machine.SetDisks(with(ourDisk), with(secondDisk, "xfs"))
		r.begin(api.Event_EV_MANAGE)
		r.begin(api.Event_EV_PROVIDE)
		r.idle(10 * time.Minute)
		r.wants(api.State_CLEAN_FAILED, api.FlowStatus_FLOW_FAILED)
		r.says("serial S2", "xfs")
	})
}

// An agent that loses its memory right after it has written cannot say what it
// did. An undeploy finds the image, and knows it for ours.
func TestUnheardOfImageIsOurs(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.machine.SetDisks(with(ourDisk))
		r.start("p1")
		r.ready("p1")
		r.begin(api.Event_EV_DEPLOY)
		conductortest.Until(r, 10*time.Minute, "the write", func() bool { n, _ := r.written(); return n == 1 })
		r.machine.SetDisks(with(ourDisk, "GPT"))
		r.machine.ForgetAll()
		r.c.Must(&api.Op{Op: &api.Op_FlowRequest{FlowRequest: &api.FlowRequest{NodeId: nodeID, Event: api.Event_EV_DELETE}}})
		r.idle(20 * time.Minute)
		r.wants(api.State_AVAILABLE, api.FlowStatus_FLOW_DONE)
		if images, _ := r.written(); images != 1 {
			r.Errorf("%d images were begun", images)
		}
	})
}

// The conductor is killed around each commit that says what was done to a disk,
// in a deploy and in the undeploy that follows it: nobody is ever asked about
// what they left.
func TestOwnLeavingsSurviveKills(t *testing.T) {
	run := func(t *testing.T, arm func(r *rig)) {
		inBubble(t, nil, func(r *rig) {
			r.machine.SetDisks(with(ourDisk))
			r.start("p1")
			r.ready("p1")
			r.start("p2")
			conductortest.Until(r, time.Minute, "lease of p2", func() bool { return r.c.Store.View().LiveLease("p2") != nil })
			arm(r)
			r.begin(api.Event_EV_DEPLOY)
			r.idle(30 * time.Minute)
			r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
			r.begin(api.Event_EV_DELETE)
			r.idle(30 * time.Minute)
			r.wants(api.State_AVAILABLE, api.FlowStatus_FLOW_DONE)
		})
	}
	var mu sync.Mutex
	commits := 0
	at := map[int]bool{} // the commits that say of disks what was done to them, and those beside
	run(t, func(r *rig) {
		r.c.Peer("p1").Decide(func(cmd *api.Command) conductortest.Fate {
			mu.Lock()
			defer mu.Unlock()
			if !ofWork(cmd) {
				return conductortest.Fate{}
			}
			commits++
			for _, op := range cmd.GetOps() {
				if slices.Contains(op.GetNodeWrite().GetFields(), "root_disk") {
					at[commits-1], at[commits], at[commits+1] = true, true, true
				}
			}
			return conductortest.Fate{}
		})
	})
	if len(at) < 8 {
		t.Fatalf("%v of %d commits", at, commits)
	}
	for n := range at {
		for _, after := range []bool{false, true} {
			p := point{false, n, after}
			t.Run(p.String(), func(t *testing.T) { run(t, func(r *rig) { r.killAt("p1", p) }) })
		}
	}
}
