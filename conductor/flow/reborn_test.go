package flow

import (
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/internal/agentproto"
)

// An agent that has lost its memory within one boot counts as another boot's:
// inventory and identity come first again, and the image is written anew under
// another id, also when a new holder is the one who notices.
func TestAgentBeginsAnew(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(map[bool]string{false: "same holder", true: "new holder"}[killed], func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.start("p1")
				r.ready("p1")
				r.start("p2")
				r.begin(api.Event_EV_DEPLOY)
				r.waitStep("write_image")
				conductortest.Pass(5 * time.Second)
				inventories := len(r.machine.Begun(agentproto.CmdInventory))
				if killed {
					r.c.Peer("p1").Kill()
				}
				r.machine.ForgetAll()
				r.idle(30 * time.Minute)
				r.wants(api.State_ACTIVE, api.FlowStatus_FLOW_DONE)
				writes := r.machine.Begun(agentproto.CmdWriteImage)
				if len(writes) != 2 || writes[0].GetCmdId() == writes[1].GetCmdId() {
					r.Errorf("writes: %v", writes)
				}
				if n := len(r.machine.Begun(agentproto.CmdInventory)); n != inventories+1 {
					r.Errorf("%d inventories after it began anew", n-inventories)
				}
				if _, _, boots := r.machine.Booted(); boots != 1 { // that of the clean
					r.Errorf("%d boots of the ramdisk", boots)
				}
			})
		})
	}
}

// One that forgets each time ends the flow.
func TestAgentBeginsAnewTooOften(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		r.begin(api.Event_EV_DEPLOY)
		for n := 1; r.flow().GetStatus() == api.FlowStatus_FLOW_RUNNING && n < 9; n++ {
			conductortest.Until(r, 10*time.Minute, "write", func() bool {
				return len(r.machine.Begun(agentproto.CmdWriteImage)) == n || r.flow().GetStatus() != api.FlowStatus_FLOW_RUNNING
			})
			conductortest.Pass(time.Second)
			r.machine.ForgetAll()
			conductortest.Pass(time.Second)
		}
		r.idle(10 * time.Minute)
		r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
		if n := len(r.machine.Begun(agentproto.CmdWriteImage)); n != 3 {
			r.Errorf("%d writes", n)
		}
	})
}
