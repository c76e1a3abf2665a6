package journal

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/journalkind"
)

// Kinds of journal events.
const (
	KindDHCP  = journalkind.DHCP
	KindTFTP  = journalkind.TFTP
	KindHTTP  = journalkind.HTTP
	KindAgent = journalkind.Agent
	KindLog   = journalkind.Log
	KindBMC   = journalkind.BMC
	KindStep  = journalkind.Step
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
	if p := f.GetProgress(); ev.GetKind() == KindStep && p.GetAtMs() <= ev.GetAtMs() {
		f.Progress = nil // of a step that has ended
	}
	if ev.GetStage() != "" {
		j.reachedLocked(ev.GetNodeId(), ev.GetBootNonce(), ev.GetStage(), ev.GetAtMs())
	}
}

// stages are those of a boot in their order.
var stages = []string{"dhcp", "tftp", "script", "kernel", "initramfs", "agent"}

// boot is the one that a node's stage is of.
type boot struct {
	nonce string // "": not into the ramdisk
	atMs  int64  // when it was first heard of
}

// reachedLocked keeps the furthest stage of the newest boot. Events come late
// and in any order: offers are delayed by rank, iPXE asks for an address once
// more, and copies come from other peers.
func (j *Journal) reachedLocked(node, nonce, stage string, atMs int64) {
	f, b := j.factsLocked(node), j.boots[node]
	switch {
	case b.nonce != nonce && atMs < b.atMs: // of a boot before
	case b.nonce != nonce || b.atMs == 0:
		j.boots[node], f.BootStage = boot{nonce, atMs}, stage
	case slices.Index(stages, stage) > slices.Index(stages, f.GetBootStage()):
		f.BootStage = stage
	}
}

// Furthest is the later of two stages of one boot.
func Furthest(a, b string) string {
	if slices.Index(stages, b) > slices.Index(stages, a) {
		return b
	}
	return a
}

// Reached notes a stage of a boot that leaves no event.
func (j *Journal) Reached(node, nonce, stage string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.reachedLocked(node, nonce, stage, j.cfg.Clock.Now().UnixMilli())
}

// NewBoot says that the machine is off and what comes is a boot of its own,
// even when the nonce is that of the one before.
func (j *Journal) NewBoot(node, nonce string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f := j.factsLocked(node)
	j.boots[node], f.BootStage, f.Progress = boot{nonce, j.cfg.Clock.Now().UnixMilli()}, "", nil
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
	delete(j.boots, node)
}
