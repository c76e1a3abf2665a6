package lab

import (
	"slices"
	"testing"

	"github.com/ironring/ironring/api"
)

// testTimeline: each request of a machine that boots is on its timeline, and
// afterwards nothing is said to be under way.
func testTimeline(t *testing.T, f *fixture) {
	n := f.enrolled(t)
	f.does(t, n, api.Event_EV_MANAGE, nil, api.State_MANAGEABLE)
	f.does(t, n, api.Event_EV_INSPECT, nil, api.State_MANAGEABLE)
	var seen []string
	err := f.client.Journal(within(t), &api.JournalRequest{Node: n.name}, func(ev *api.JournalEvent) error {
		if s := ev.GetStage(); s != "" && !slices.Contains(seen, s) {
			seen = append(seen, s)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"dhcp", "tftp", "script", "kernel", "initramfs", "agent"}; !slices.Equal(seen, want) {
		t.Errorf("stages %v, not %v", seen, want)
	}
	ex, err := f.client.Explain(within(t), &api.ExplainRequest{Node: n.name})
	if err != nil || ex.GetLive().GetProgress() != nil || ex.GetLive().GetBootStage() != "agent" {
		t.Errorf("%v, %v", ex.GetLive(), err)
	}
	if ex.GetLive().GetAgentPeer() == "" || n.bmc.Power() != api.PowerState_POWER_ON {
		t.Errorf("the agent is not kept for the next flow: %v", ex.GetLive())
	}
	// Once the machine is off, its agent's stream ends at once or a little later.
	f.powers(t, n, api.PowerAction_POWER_ACTION_OFF, api.PowerState_POWER_OFF)
	eventually(t, "the agent's stream has ended", func() bool {
		ex, err := f.client.Explain(within(t), &api.ExplainRequest{Node: n.name})
		return err == nil && ex.GetLive().GetAgentPeer() == ""
	})
}
