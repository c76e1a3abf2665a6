package journal

import (
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
)

// Kinds of journal events.
const (
	KindDHCP  = "dhcp"
	KindTFTP  = "tftp"
	KindHTTP  = "http"
	KindAgent = "agent" // enrolment, streams
	KindLog   = "log"   // a line that the agent logged
	KindBMC   = "bmc"
	KindStep  = "step"
)

// note keeps the newest facts about a node. Called with mu held.
func (j *Journal) note(ev *api.JournalEvent) {
	f := j.factsLocked(ev.GetNodeId())
	switch ev.GetKind() {
	case KindDHCP:
		f.DhcpContactMs = max(f.DhcpContactMs, ev.GetAtMs())
	case KindTFTP, KindHTTP:
		f.BootContactMs = max(f.BootContactMs, ev.GetAtMs())
	case KindAgent, KindLog:
		f.AgentContactMs = max(f.AgentContactMs, ev.GetAtMs())
	}
	if ev.GetStage() != "" {
		f.BootStage = ev.GetStage()
	}
}

func (j *Journal) factsLocked(node string) *api.LiveFacts {
	f := j.facts[node]
	if f == nil {
		f = &api.LiveFacts{}
		j.facts[node] = f
	}
	return f
}

// Facts is a copy of what is known here about a node at this moment.
func (j *Journal) Facts(node string) *api.LiveFacts {
	j.mu.Lock()
	defer j.mu.Unlock()
	if f := j.facts[node]; f != nil {
		return proto.CloneOf(f)
	}
	return &api.LiveFacts{}
}

// Update changes the facts about a node: contacts that leave no event, such as
// progress and answers of the BMC.
func (j *Journal) Update(node string, change func(*api.LiveFacts)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change(j.factsLocked(node))
}

// Forget drops what is held in memory about a node that is gone.
func (j *Journal) Forget(node string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.facts, node)
}
