package service

import (
	"fmt"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/bmc"
	"github.com/ironring/ironring/conductor/power"
	"github.com/ironring/ironring/node"
)

// machineNotes say what is not as it was, or not as one would think: whose BMC
// it is, a machine that is kept on, a medium that is left. Pure. n is the record
// as it is stored.
func machineNotes(n *api.Node, f *api.Flow, live *api.LiveFacts, ticks uint64, now time.Time) []string {
	var notes []string
	if was, _ := node.Machine(n.GetBmc()); n.GetBmc() != nil && node.BMCChanged(n) {
		notes = append(notes, "driver or driver_info have changed: before anything is done at the BMC it must show that it is still that of "+was)
	}
	running := f != nil && f.GetStatus() == api.FlowStatus_FLOW_RUNNING
	if left, kept := power.Kept(n, ticks); kept && !running {
		notes = append(notes, "its machine is kept on in the ramdisk for its next flow (properties/fast_track), "+keptUntil(n, live, left, now))
	}
	if n.GetBoot().GetMedium() {
		notes = append(notes, "its boot medium may still be in the drive of the BMC, since a flow that failed could not eject it: the next flow or power action does")
	}
	return notes
}

// keptUntil says for how long a machine stays on that is kept for its next flow.
func keptUntil(n *api.Node, live *api.LiveFacts, left time.Duration, now time.Time) string {
	switch {
	case n.GetMaintenance():
		return "and stays so: in maintenance no machine is switched off"
	case bmc.Parked(n) != nil:
		return "and stays so while its BMC is left alone"
	case n.GetAssigned() == "":
		return "and stays so while no peer looks after the node"
	case n.GetBmc() == nil:
		return "and stays so: whose BMC it is was never verified"
	case left > 0:
		return fmt.Sprintf("and is switched off in %v, at about %s, if nothing comes", left.Round(time.Second), now.Add(left).UTC().Format(time.TimeOnly+" MST"))
	case live.GetBmcError() != "":
		return "and is to be switched off; the BMC does not let us: " + live.GetBmcError() + ". It is tried again, later each time"
	}
	return "and is about to be switched off: its owner looks every two minutes, and later each time after a try that failed"
}
