package journal

import (
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
)

// Merge adds to what one peer knows of a node what another has seen of its
// machine: the later contact of each kind, the stage of the boot that was heard
// of last, the newest progress, where the agent's stream ends. What concerns
// the BMC and the turn of a flow is the keeper's alone and stays. Times are
// those of the peers' wall clocks: good enough to show, not to decide by.
func Merge(f, other *api.LiveFacts) {
	switch mine, theirs := lastBoot(f), lastBoot(other); {
	case theirs > mine && other.GetBootStage() != "":
		f.BootStage = other.GetBootStage()
	case theirs == mine:
		f.BootStage = Furthest(f.GetBootStage(), other.GetBootStage())
	}
	f.DhcpContactMs = max(f.GetDhcpContactMs(), other.GetDhcpContactMs())
	f.BootContactMs = max(f.GetBootContactMs(), other.GetBootContactMs())
	if other.GetAgentPeer() != "" && (f.GetAgentPeer() == "" || other.GetAgentContactMs() > f.GetAgentContactMs()) {
		f.AgentPeer = other.GetAgentPeer()
	}
	f.AgentContactMs = max(f.GetAgentContactMs(), other.GetAgentContactMs())
	if p := other.GetProgress(); p.GetAtMs() > f.GetProgress().GetAtMs() {
		f.Progress = proto.CloneOf(p)
	}
}

func lastBoot(f *api.LiveFacts) int64 {
	return max(f.GetDhcpContactMs(), f.GetBootContactMs(), f.GetAgentContactMs())
}
