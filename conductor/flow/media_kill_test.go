package flow

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/internal/errs"
)

var _ drivers.MediaAttacher = (*cable)(nil)

func (c *cable) Media(ctx context.Context, t drivers.Target) ([]*api.VirtualMedia, error) {
	if err := c.cut(); err != nil {
		return nil, err
	}
	return c.Driver.Media(ctx, t)
}

func (c *cable) InsertMedia(ctx context.Context, t drivers.Target, g drivers.Grant, slot, image string) error {
	return c.around(func() error { return c.Driver.InsertMedia(ctx, t, g, slot, image) })
}

func (c *cable) EjectMedia(ctx context.Context, t drivers.Target, g drivers.Grant, slot string) error {
	return c.around(func() error { return c.Driver.EjectMedia(ctx, t, g, slot) })
}

// bootsFromMedia has the node boot from virtual media, which each peer serves
// at an address of its own.
func (r *rig) bootsFromMedia(peers ...string) {
	r.Helper()
	r.c.Must(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{NodeId: nodeID, Fields: []string{"driver_info"}, Node: &api.Node{
		DriverInfo: []byte(`{"boot_interface":"virtual-media"}`),
	}}}})
	for i, id := range peers {
		m := r.c.Store.View().Member(id)
		r.c.Must(&api.Op{Op: &api.Op_MemberSet{MemberSet: &api.MemberSet{Member: &api.Member{
			Id: m.GetId(), Drivers: m.GetDrivers(), Phase: m.GetPhase(), FeatureLevel: m.GetFeatureLevel(), Weight: m.GetWeight(), AgentAddress: m.GetAgentAddress(),
			BootAddress: fmt.Sprintf("192.0.2.%d:7484", i+1),
		}}}})
	}
}

// mediaDeploys deploys a node from virtual media with conductors p1 and p2, of
// which p1 begins, with what arm does to it.
func mediaDeploys(t *testing.T, arm func(r *rig), check func(r *rig)) {
	t.Helper()
	inBubble(t, nil, func(r *rig) {
		r.properties = `{"fast_track":false}` // a deployment boots
		r.start("p1")
		r.enrol("p1")
		r.bootsFromMedia("p1", "p2")
		r.does(api.Event_EV_MANAGE, api.State_MANAGEABLE)
		r.does(api.Event_EV_PROVIDE, api.State_AVAILABLE)
		r.start("p2")
		conductortest.Until(r, time.Minute, "lease of p2", func() bool { return r.c.Store.View().LiveLease("p2") != nil })
		before, boots := r.node().GetLastToken(), r.boots()
		arm(r)
		r.begin(api.Event_EV_DEPLOY)
		r.idle(30 * time.Minute)
		r.checkDeploy(before)
		r.checkMedia(before, boots)
		if check != nil {
			check(r)
		}
	})
}

// checkMedia checks what the BMC was asked for in a deployment: no older token
// after a newer one, one medium for each boot of the ramdisk at least, none
// left in the drive, and never one put in upon another.
func (r *rig) checkMedia(since uint64, boots int) {
	r.Helper()
	var last uint64
	inserted, in := 0, ""
	for _, c := range r.bmc.Calls() {
		switch {
		case c.Token <= since || c.Effective.IsZero():
			continue
		case c.Token < last:
			r.Errorf("%s with token %d after token %d", c.Verb, c.Token, last)
		}
		last = c.Token
		switch c.Verb {
		case fake.InsertMedia:
			if in != "" && in != c.Image {
				r.Errorf("%s was inserted upon %s", c.Image, in)
			}
			in = c.Image
			inserted++
		case fake.EjectMedia:
			in = ""
		case fake.SetBootDevice:
			if c.Device == api.BootDevice_BOOT_DEVICE_PXE {
				r.Error("it was to boot from the network")
			}
		}
	}
	if in != "" || r.bmc.Image() != "" {
		r.Errorf("the drive holds %q", r.bmc.Image())
	}
	if n := r.boots() - boots; n == 0 || inserted < n {
		r.Errorf("%d media for %d boots of the ramdisk", inserted, n)
	}
}

// The conductor is killed at each commit and each BMC change of a deployment
// from virtual media, from its begin to the boot of the ramdisk and from the
// end of the writing on: another one finishes it, and the drive is empty.
func TestKilledWithMedia(t *testing.T) {
	var commits []bool // whether it is one around the drive, the boot device or the power
	changes := 0
	open := false
	mediaDeploys(t, func(r *rig) {
		r.c.Peer("p1").Decide(func(cmd *api.Command) conductortest.Fate {
			if ofWork(cmd) {
				was := open
				for _, op := range cmd.GetOps() {
					open = op.GetIntentOpen() != nil || open && op.GetIntentClose() == nil
				}
				commits = append(commits, was || open)
			}
			return conductortest.Fate{}
		})
		r.setOnChange(func(_ string, after bool) {
			if after {
				changes++
			}
		})
	}, func(r *rig) {
		if in, out := r.count(fake.InsertMedia), r.count(fake.EjectMedia); in != 2 || out != 2 { // clean, deploy
			r.Errorf("%d media inserted, %d ejected", in, out)
		}
	})
	if changes != 7 || len(commits) < 20 {
		t.Fatalf("a deployment has %d commits and %d changes", len(commits), changes)
	}
	for _, after := range []bool{false, true} {
		for n, bmc := range commits {
			if bmc { // TestKilledAtEachPoint has the others
				killedWithMedia(t, point{false, n + 1, after})
			}
		}
		for n := range changes {
			killedWithMedia(t, point{true, n + 1, after})
		}
	}
}

func killedWithMedia(t *testing.T, at point) {
	t.Run(at.String(), func(t *testing.T) {
		mediaDeploys(t, func(r *rig) { r.killAt("p1", at) }, func(r *rig) {
			if r.alive("p1") {
				r.Error("it was not killed")
			}
		})
	})
}

// A machine that was left in the ramdisk and is switched off leaves no medium
// in its drive; a drive that is stuck does not keep the power on.
func TestPowerEjectsBootMedium(t *testing.T) {
	for _, stuck := range []bool{false, true} {
		t.Run(fmt.Sprint("stuck ", stuck), func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.properties = `{"fast_track":true}`
				r.start("p1")
				r.enrol("p1")
				r.bootsFromMedia("p1")
				r.does(api.Event_EV_MANAGE, api.State_MANAGEABLE)
				r.does(api.Event_EV_INSPECT, api.State_MANAGEABLE)
				if r.bmc.Image() == "" {
					r.Fatal("the drive is empty while the agent is kept")
				}
				if stuck {
					r.bmc.Inject(fake.Fault{Kind: fake.Fail, Verb: fake.EjectMedia, Err: errs.New(errs.Internal, "stuck")})
				}
				r.create(api.FlowKind_FLOW_POWER, api.PowerAction_POWER_ACTION_OFF, api.Event_EVENT_NONE)
				r.idle(10 * time.Minute)
				r.wants(api.State_MANAGEABLE, api.FlowStatus_FLOW_DONE)
				if r.bmc.Power() != api.PowerState_POWER_OFF || (r.bmc.Image() != "") != stuck || r.node().GetBoot().GetTarget() != api.BootTarget_BOOT_NOTHING {
					r.Errorf("power %v, drive %q, boot %v", r.bmc.Power(), r.bmc.Image(), r.node().GetBoot())
				}
			})
		})
	}
}
