package flow

import (
	"fmt"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/internal/errs"
)

// A flow that fails takes its boot medium out. Where the drive is stuck, the
// record says so, and the next change of the power, or the next boot, does it.
func TestFailedFlowEjectsBootMedium(t *testing.T) {
	for _, stuck := range []bool{false, true} {
		for _, next := range []string{"power", "undeploy", "undeploy by network"} {
			t.Run(fmt.Sprint("stuck ", stuck, " ", next), func(t *testing.T) {
				inBubble(t, nil, func(r *rig) {
					r.properties = `{"fast_track":false,"root_device":{"serial":"nobody has this"}}`
					r.start("p1")
					r.enrol("p1")
					r.bootsFromMedia("p1")
					r.does(api.Event_EV_MANAGE, api.State_MANAGEABLE)
					r.does(api.Event_EV_PROVIDE, api.State_AVAILABLE)
					if stuck {
						r.bmc.Inject(fake.Fault{Kind: fake.Fail, Verb: fake.EjectMedia, Err: errs.New(errs.Internal, "stuck")})
					}
					r.begin(api.Event_EV_DEPLOY)
					r.idle(30 * time.Minute)
					r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
					if boot := r.node().GetBoot(); boot.GetTarget() != api.BootTarget_BOOT_NOTHING || boot.GetMedium() != stuck || (r.bmc.Image() != "") != stuck {
						r.Errorf("boot %v, drive %q: %s", boot, r.bmc.Image(), r.describe())
					}
					r.bmc.Heal()
					if next == "power" {
						r.create(api.FlowKind_FLOW_POWER, api.PowerAction_POWER_ACTION_OFF, api.Event_EVENT_NONE)
					} else {
						if next == "undeploy by network" {
							r.readdress(`{}`)
						}
						r.begin(api.Event_EV_DELETE)
					}
					r.idle(30 * time.Minute)
					if boot := r.node().GetBoot(); r.flow().GetStatus() != api.FlowStatus_FLOW_DONE || boot.GetMedium() || r.bmc.Image() != "" {
						r.Errorf("after the next flow: boot %v, drive %q: %s", boot, r.bmc.Image(), r.describe())
					}
				})
			})
		}
	}
}

// A BMC that falls silent does not keep the failure from being told, nor does a
// conductor that dies as it ejects; the record says that the medium is there.
func TestFailedFlowWithSilentBMC(t *testing.T) {
	for _, dies := range []bool{false, true} {
		t.Run(fmt.Sprint("dies ", dies), func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.properties = `{"fast_track":false,"root_device":{"serial":"nobody has this"}}`
				r.start("p1")
				r.enrol("p1")
				r.bootsFromMedia("p1", "p2")
				r.start("p2")
				conductortest.Until(r, time.Minute, "lease of p2", func() bool { return r.c.Store.View().LiveLease("p2") != nil })
				r.does(api.Event_EV_MANAGE, api.State_MANAGEABLE)
				r.does(api.Event_EV_PROVIDE, api.State_AVAILABLE)
				r.c.Peer("p1").Decide(func(cmd *api.Command) conductortest.Fate {
					for _, op := range cmd.GetOps() {
						if d := op.GetStepDone(); d != nil && d.GetCursor() == 6 && !dies { // identity is checked
							r.bmc.Inject(fake.Fault{Kind: fake.Die})
						}
						if i := op.GetIntentOpen(); i.GetKind() == "eject_media" && dies {
							return conductortest.Fate{Lose: true, Kill: true}
						}
					}
					return conductortest.Fate{}
				})
				r.begin(api.Event_EV_DEPLOY)
				r.idle(time.Hour)
				r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
				if boot := r.node().GetBoot(); !boot.GetMedium() || r.bmc.Image() == "" {
					r.Errorf("boot %v, drive %q: %s", boot, r.bmc.Image(), r.describe())
				}
			})
		})
	}
}
