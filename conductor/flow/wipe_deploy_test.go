package flow

import (
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

// ourDisk is the disk of the rig's machine, foreign one that somebody put in.
var (
	ourDisk = agentproto.Disk{Name: "/dev/sda", Serial: "S1", WWN: "0x5", SizeBytes: 100 << 30, Tran: "sata"}
	foreign = agentproto.Disk{Name: "/dev/sda", Serial: "T1", WWN: "0x7", Model: "Old Disk", SizeBytes: 8 << 40, Tran: "sata", Contents: []string{"GPT", "ext"}}
)

// deployWiping are the arguments of a deploy that may lose what is on the disk.
var deployWiping = DeployArgs{Image: "http://images/a.raw", Checksum: checksum, WipeExisting: true}

// written is how often the agent began to write an image, and to erase.
func (r *rig) written() (images, erasures int) {
	return len(r.machine.Begun(agentproto.CmdWriteImage)), len(r.machine.Begun(agentproto.CmdEraseMetadata))
}

// says fails the test unless the node's error has each text.
func (r *rig) says(texts ...string) {
	r.Helper()
	for _, w := range texts {
		if e := r.node().GetLastError(); !strings.Contains(e, w) {
			r.Errorf("%q is not in %q", w, e)
		}
	}
}

// A disk that came between clean and deploy and holds data is not written to
// until somebody said that it may be. From then on what lies on it is ours.
func TestDeployHolds(t *testing.T) {
	unread := foreign
	unread.Contents = nil
	bare := agentproto.Disk{Name: "/dev/sda", ByPath: "pci-1", SizeBytes: 100 << 30, Tran: "virtio", Contents: []string{"GPT"}}
	for _, test := range []struct {
		name string
		disk agentproto.Disk
		says string
		asks bool // at the rebuild too: it tells nothing of itself
	}{
		{"data", foreign, "/dev/sda (8.0 TiB, serial T1, wwn 0x7, model Old Disk): GPT, ext", false},
		{"not readable", unread, "model Old Disk): not known what, it could not be read", false},
		{"tells nothing of itself", bare, "/dev/sda (100.0 GiB, serial -, wwn -, model -): GPT", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(c *conductortest.MachineConfig) { c.Unreadable = test.disk.Contents == nil }, func(r *rig) {
				r.start("p1")
				blank := ourDisk
				blank.Contents = []string{}
				r.machine.SetDisks(blank)
				r.ready("p1")
				r.machine.SetDisks(test.disk)
				r.begin(api.Event_EV_DEPLOY)
				r.idle(10 * time.Minute)
				r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
				r.says("nothing was written", test.says, "ironring node deploy "+nodeID, "--wipe-existing")
				if images, _ := r.written(); images != 0 || r.node().GetRootDisk() != nil {
					r.Errorf("%d images were begun, root disk %v", images, r.node().GetRootDisk())
				}
				r.beginWith(api.Event_EV_DEPLOY, deployWiping)
				r.idle(10 * time.Minute)
				r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
				if images, _ := r.written(); images != 1 {
					r.Errorf("%d images were begun, want 1", images)
				}
				r.begin(api.Event_EV_REBUILD)
				r.idle(10 * time.Minute)
				if test.asks {
					r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
					r.says("nothing was written", test.says)
				} else {
					r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
				}
			})
		})
	}
}

// The disk is exchanged between the choice and the write: the agent refuses.
func TestExchangedBeforeWrite(t *testing.T) {
	bare := agentproto.Disk{Name: "/dev/sda", ByPath: "pci-1", SizeBytes: 100 << 30, Tran: "virtio"}
	full := bare
	full.Contents = []string{"ext"}
	for _, test := range []struct {
		name     string
		was, now agentproto.Disk
		says     string
	}{
		{"another disk under the name", ourDisk, foreign, "identity mismatch"},
		{"the same place and size, but data", bare, full, "what it did not hold: ext"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.machine.SetDisks(test.was)
				r.start("p1")
				r.ready("p1")
				r.c.Peer("p1").Decide(func(cmd *api.Command) conductortest.Fate {
					for _, op := range cmd.GetOps() {
						if op.GetNodeWrite().GetNode().GetRootDisk() != nil {
							r.machine.SetDisks(test.now)
						}
					}
					return conductortest.Fate{}
				})
				r.begin(api.Event_EV_DEPLOY)
				r.idle(10 * time.Minute)
				r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
				r.says(test.says)
				if _, image, _ := r.machine.Booted(); image != "" {
					r.Errorf("the image %s was written", image)
				}
			})
		})
	}
}

// What a clean asked about is what it erases: a disk that comes after the
// inventory, and one that goes, end it before the first byte, with their names.
func TestDisksChangeWithinClean(t *testing.T) {
	second := foreign
	second.Name = "/dev/sdb"
	for _, test := range []struct {
		name string
		now  []agentproto.Disk
		says []string
		next []string // what the next clean says; empty: it is done
	}{
		{"one more", []agentproto.Disk{ourDisk, second},
			[]string{"nothing was erased", "/dev/sdb (8.0 TiB, serial T1, wwn 0x7, model Old Disk) was not there then and holds: GPT, ext", "ironring node provide " + nodeID + " --wait"},
			[]string{"nothing was erased", "/dev/sdb (8.0 TiB, serial T1, wwn 0x7, model Old Disk): GPT, ext", "--wipe-existing"}},
		{"gone", nil, []string{"nothing was erased", "(100.0 GiB, serial S1, wwn 0x5, model -) is not there any more"}, []string{"no disk that may be erased"}},
		{"another under the name", []agentproto.Disk{foreign}, []string{"nothing was erased", "serial S1", "is not there any more", "serial T1", "was not there then"}, []string{"serial T1", "--wipe-existing"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.start("p1")
				r.enrol("p1")
				r.begin(api.Event_EV_MANAGE)
				r.idle(time.Minute)
				r.c.Peer("p1").Decide(func(cmd *api.Command) conductortest.Fate {
					for _, op := range cmd.GetOps() {
						if op.GetInventorySet() != nil {
							r.machine.SetDisks(test.now...)
						}
					}
					return conductortest.Fate{}
				})
				// Also when all that was asked about may go.
				r.beginWith(api.Event_EV_PROVIDE, CleanArgs{WipeExisting: true})
				r.idle(10 * time.Minute)
				r.wants(api.State_CLEAN_FAILED, api.FlowStatus_FLOW_FAILED)
				r.says(test.says...)
				if e := r.node().GetErasure(); e != nil {
					r.Errorf("the record says that %v was erased", e)
				}
				r.begin(api.Event_EV_MANAGE)
				r.begin(api.Event_EV_PROVIDE)
				r.idle(10 * time.Minute)
				r.wants(api.State_CLEAN_FAILED, api.FlowStatus_FLOW_FAILED)
				r.says(test.next...)
			})
		})
	}
}

// The agent is given just the disks that were judged, with what lay on them,
// and the record keeps all that they are known by.
func TestCleanNamesItsDisks(t *testing.T) {
	inBubble(t, func(c *conductortest.MachineConfig) {
		usb := agentproto.Disk{Name: "/dev/sdc", Serial: "U", SizeBytes: 1 << 30, Tran: "usb"}
		c.Disks = []agentproto.Disk{ourDisk, foreign, usb}
		c.Disks[1].Name = "/dev/sdb"
	}, func(r *rig) {
		r.start("p1")
		r.enrol("p1")
		r.begin(api.Event_EV_MANAGE)
		r.idle(time.Minute)
		r.beginWith(api.Event_EV_PROVIDE, CleanArgs{WipeExisting: true})
		r.idle(10 * time.Minute)
		r.wants(api.State_AVAILABLE, api.FlowStatus_FLOW_DONE)
		var args agentproto.EraseArgs
		if err := json.Unmarshal(r.machine.Begun(agentproto.CmdEraseMetadata)[0].GetArgs(), &args); err != nil {
			r.Fatal(err)
		}
		if len(args.Disks) != 2 || args.Disks[0].Serial != "S1" || args.Disks[0].Contents == nil || args.Disks[1].WWN != "0x7" || len(args.Disks[1].Contents) != 2 {
			r.Errorf("the agent was told %+v", args)
		}
		if e := r.node().GetErasure().GetErased(); len(e) != 2 || e[0].GetSerial() != "S1" || e[0].GetWwn() != "0x5" || e[1].GetModel() != "Old Disk" || e[1].GetSizeBytes() != 8<<40 {
			r.Errorf("the record is %v", e)
		}
	})
}

// The conductor is killed at each commit of a flow that meets foreign data,
// before and after it: whoever goes on asks too, and writes nothing. With the
// permission it is written once.
func TestQuestionSurvivesKills(t *testing.T) {
	for _, flow := range []struct {
		name    string
		verb    api.Event
		args    any // with the permission
		refused api.State
		done    api.State
	}{
		{"clean", api.Event_EV_PROVIDE, CleanArgs{WipeExisting: true}, api.State_CLEAN_FAILED, api.State_AVAILABLE},
		{"deploy", api.Event_EV_DEPLOY, deployWiping, api.State_DEPLOY_FAILED, api.State_ACTIVE},
	} {
		t.Run(flow.name, func(t *testing.T) {
			run := func(t *testing.T, allowed bool, arm func(r *rig)) {
				inBubble(t, nil, func(r *rig) {
					r.start("p1")
					r.ready("p1")
					if flow.verb == api.Event_EV_PROVIDE {
						r.begin(api.Event_EV_MANAGE)
					}
					r.machine.SetDisks(foreign)
					r.start("p2")
					conductortest.Until(r, time.Minute, "lease of p2", func() bool { return r.c.Store.View().LiveLease("p2") != nil })
					images, erasures := r.written()
					arm(r)
					if allowed {
						r.beginWith(flow.verb, flow.args)
					} else {
						r.begin(flow.verb)
					}
					r.idle(30 * time.Minute)
					nowImages, nowErasures := r.written()
					n := nowImages - images + nowErasures - erasures
					switch {
					case allowed:
						r.wants(flow.done, api.FlowStatus_FLOW_DONE)
						if n != 1 {
							r.Errorf("%d commands that write were begun, want 1", n)
						}
					default:
						r.wants(flow.refused, api.FlowStatus_FLOW_FAILED)
						r.says("serial T1", "GPT, ext", "--wipe-existing")
						if n != 0 {
							r.Errorf("%d commands that write were begun", n)
						}
					}
				})
			}
			for _, allowed := range []bool{false, true} {
				var mu sync.Mutex
				commits, from := 0, 0
				run(t, allowed, func(r *rig) {
					r.c.Peer("p1").Decide(func(cmd *api.Command) conductortest.Fate {
						mu.Lock()
						defer mu.Unlock()
						if ofWork(cmd) {
							commits++
							for _, op := range cmd.GetOps() {
								if op.GetInventorySet() != nil {
									from = commits
								}
							}
						}
						return conductortest.Fate{}
					})
				})
				if from == 0 || commits < from+2 {
					t.Fatalf("%d commits, the inventory is the %d.", commits, from)
				}
				last := commits
				if allowed {
					last = from + 4 // past the choice and the start of what writes
				}
				for n := from; n <= min(last, commits); n++ {
					for _, after := range []bool{false, true} {
						at := point{false, n, after}
						name := at.String()
						if allowed {
							name += ", allowed"
						}
						t.Run(name, func(t *testing.T) {
							run(t, allowed, func(r *rig) {
								r.killAt("p1", at)
								t.Cleanup(func() {
									if r.alive("p1") {
										t.Error("it was not killed")
									}
								})
							})
						})
					}
				}
			}
		})
	}
}

// The agent loses its memory in the middle of a write. What lies on the disk
// then is this flow's own, also where the disk tells nothing of itself; of
// another flow it would be asked about, and so is another disk.
func TestHalfAnImageIsOfTheFlow(t *testing.T) {
	bare := agentproto.Disk{Name: "/dev/sda", Model: "V", ByPath: "pci-1", SizeBytes: 100 << 30, Tran: "virtio"}
	half, larger := bare, bare
	half.Contents = []string{"unknown data"}
	larger.Contents, larger.SizeBytes = []string{"unknown data"}, 200<<30
	for _, test := range []struct {
		name string
		now  agentproto.Disk
		args any
		want api.State
	}{
		{"the same", half, nil, api.State_ACTIVE},
		{"another", larger, nil, api.State_DEPLOY_FAILED},
		{"another, where the first might be lost", larger, deployWiping, api.State_DEPLOY_FAILED},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(c *conductortest.MachineConfig) { c.Disks = []agentproto.Disk{bare} }, func(r *rig) {
				r.start("p1")
				r.ready("p1")
				r.beginWith(api.Event_EV_DEPLOY, test.args)
				conductortest.Until(r, 10*time.Minute, "the write", func() bool { n, _ := r.written(); return n == 1 })
				conductortest.Pass(5 * time.Second)
				r.machine.SetDisks(test.now)
				r.machine.ForgetAll()
				r.idle(20 * time.Minute)
				images, _ := r.written()
				if r.state() != test.want || test.want == api.State_DEPLOY_FAILED && images != 1 {
					r.Errorf("%d images were begun: %s", images, r.describe())
				}
				if test.want != api.State_ACTIVE {
					r.says("nothing was written", "200.0 GiB", "unknown data")
					return
				}
				r.begin(api.Event_EV_REBUILD)
				r.idle(20 * time.Minute)
				r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
				r.says("nothing was written", "GPT")
			})
		})
	}
}

// A deploy that may overwrite what others left, and that fails before it wrote
// anything, does not make the disk ours.
func TestChosenIsNotWritten(t *testing.T) {
	var fail atomic.Bool
	fail.Store(true)
	inBubble(t, func(c *conductortest.MachineConfig) {
		c.Script = func(cmd *api.AgentCommand) *api.CommandStatus {
			if cmd.GetName() == agentproto.CmdWriteImage && fail.Load() {
				return &api.CommandStatus{State: api.CommandStatus_FAILED, Error: "404", ErrorKind: errs.NotFound.String()}
			}
			return nil
		}
	}, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		r.machine.SetDisks(foreign)
		r.beginWith(api.Event_EV_DEPLOY, deployWiping)
		r.idle(10 * time.Minute)
		r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
		r.says("404")
		r.begin(api.Event_EV_DELETE)
		r.idle(10 * time.Minute)
		r.wants(api.State_CLEAN_FAILED, api.FlowStatus_FLOW_FAILED)
		r.says("nothing was erased", "serial T1", "--wipe-existing")
		r.begin(api.Event_EV_MANAGE)
		r.beginWith(api.Event_EV_PROVIDE, CleanArgs{WipeExisting: true})
		r.idle(10 * time.Minute)
		fail.Store(false)
		r.begin(api.Event_EV_DEPLOY)
		r.idle(10 * time.Minute)
		r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
		if !r.node().GetRootDisk().GetWritten() {
			r.Errorf("the record of the disk is %v", r.node().GetRootDisk())
		}
	})
}
