package flow

import (
	"slices"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/node"
)

// Each step of each plan has an executor, and no executor is without a plan
// that may name it.
func TestEveryStepHasAnExecutor(t *testing.T) {
	planned := map[node.StepID]bool{}
	for kind := range api.FlowKind_name {
		for action := range api.PowerAction_name {
			steps, err := node.Plan(api.FlowKind(kind), api.PowerAction(action))
			if err != nil {
				continue // no such plan
			}
			for _, s := range steps {
				planned[node.IDOf(s)] = true
				if executors[node.IDOf(s)] == nil {
					t.Errorf("%v has no executor", node.IDOf(s))
				}
				if s.GetHoldLimitMs() == 0 || s.GetPolicy() == api.ResumePolicy_RESUME_UNSPECIFIED {
					t.Errorf("%v has no limit or no policy", node.IDOf(s))
				}
			}
		}
	}
	for _, req := range []*api.ChangeHardwareRequest{insertISO, ejectISO, lightOn, toBIOS, secureOn, fromPXE, clearLog, nmi, accept("x")} {
		step, err := node.HardwareStep(req)
		if err != nil || executors[node.IDOf(step)] == nil {
			t.Errorf("%v has no executor (%v)", node.IDOf(step), err)
		}
		planned[node.IDOf(step)] = true
	}
	for _, policy := range []string{"phone_home", "port:22"} {
		f, a := &api.Flow{}, DeployArgs{Evidence: policy, ConfigDrive: []byte(`{"user_data":"x"}`)}
		if err := AddEvidence(f, &a, &api.Node{}); err != nil || len(f.GetSteps()) != 1 || executors[node.IDOf(f.GetSteps()[0])] == nil {
			t.Fatalf("%v has no executor (%v)", f.GetSteps(), err)
		}
		planned[node.IDOf(f.GetSteps()[0])] = true
	}
	steps, err := node.Plan(api.FlowKind_FLOW_DEPLOY, api.PowerAction_POWER_ACTION_NONE)
	if err != nil {
		t.Fatal(err)
	}
	f := &api.Flow{Steps: steps}
	if err := AddDriveCheck(f, DeployArgs{ConfigDrive: []byte(`"https://h/drive"`)}); err != nil {
		t.Fatal(err)
	}
	before := slices.IndexFunc(f.Steps, func(s *api.Step) bool { return node.IDOf(s) == node.StepCheckDrive })
	if before < 0 || node.IDOf(f.Steps[before+1]) != node.StepWriteImage {
		t.Errorf("the drive is not looked at before the image is written: %v", f.Steps)
	}
	planned[node.StepCheckDrive] = true
	for id := range executors {
		if !planned[id] {
			t.Errorf("no plan has %v", id)
		}
	}
	if len(planned) < 15 {
		t.Errorf("only %d steps are planned", len(planned))
	}
}

func TestLifecycle(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		if e := r.node().GetErasure(); e.GetLevel() != api.Erasure_METADATA || len(e.GetDisks()) != 1 {
			r.Errorf("erasure %v", e)
		}
		r.begin(api.Event_EV_DEPLOY)
		r.idle(10 * time.Minute)
		r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
		r.deployed()
		r.create(api.FlowKind_FLOW_POWER, api.PowerAction_POWER_ACTION_REBOOT, api.Event_EVENT_NONE)
		r.idle(10 * time.Minute)
		r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
		r.create(api.FlowKind_FLOW_POWER, api.PowerAction_POWER_ACTION_SOFT_OFF, api.Event_EVENT_NONE)
		r.idle(10 * time.Minute)
		if r.bmc.Power() != api.PowerState_POWER_OFF || r.node().GetPowerState() != api.PowerState_POWER_OFF {
			r.Errorf("power is %v, recorded %v", r.bmc.Power(), r.node().GetPowerState())
		}
		r.begin(api.Event_EV_REBUILD)
		r.idle(10 * time.Minute)
		r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
		r.deployed()
		r.begin(api.Event_EV_DELETE)
		r.idle(10 * time.Minute)
		r.wants(api.State_AVAILABLE, api.FlowStatus_FLOW_DONE)
		r.begin(api.Event_EV_MANAGE) // no flow
		r.begin(api.Event_EV_INSPECT)
		r.idle(10 * time.Minute)
		r.wants(api.State_MANAGEABLE, api.FlowStatus_FLOW_DONE)
		if _, _, boots := r.machine.Booted(); boots != 3 { // clean and deploy, rebuild, clean and inspect
			r.Errorf("%d boots of the ramdisk", boots)
		}
	})
}

// deployed is how a deployed node must look, whatever happened on the way.
func (r *rig) deployed() {
	r.Helper()
	n := r.node()
	if n.GetBoot().GetTarget() != api.BootTarget_BOOT_LOCAL || n.GetRootDisk().GetSerial() != "S1" || n.GetPowerState() != api.PowerState_POWER_ON {
		r.Errorf("boot %v, root disk %v, power %v", n.GetBoot(), n.GetRootDisk(), n.GetPowerState())
	}
	<-time.After(time.Minute)
	if what, image, _ := r.machine.Booted(); what != "disk" || image != checksum || r.bmc.Power() != api.PowerState_POWER_ON {
		r.Errorf("the machine runs %q with image %q, power %v", what, image, r.bmc.Power())
	}
}
