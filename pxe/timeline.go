package pxe

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/journalkind"
)

// Kinds and stages of the events that this package makes.
const (
	kindDHCP = journalkind.DHCP
	kindTFTP = journalkind.TFTP
	kindHTTP = journalkind.HTTP

	stageDHCP      = "dhcp"
	stageTFTP      = "tftp"
	stageScript    = "script"
	stageKernel    = "kernel"
	stageInitramfs = "initramfs"
)

// Bounds of a machine's timeline: a machine that asks without end must not
// push out what else its journal holds.
const (
	eventsPerSecond = 5
	eventsBurst     = 50
	maxLimiters     = 8192
)

// machine is a known machine that an event is about.
type machine struct {
	mac, nodeID, nonce string
}

// timeline hands events of known machines on.
type timeline struct {
	self    string
	now     func() time.Time
	observe func(*api.JournalEvent)

	mu       sync.Mutex
	limiters map[string]*rate.Limiter // by MAC; guarded by mu
}

func (t *timeline) add(m machine, kind, stage, text string) {
	if t.observe != nil {
		t.addAt(t.now(), m, kind, stage, text)
	}
}

// addAt adds an event of another moment than now.
func (t *timeline) addAt(at time.Time, m machine, kind, stage, text string) {
	if t.observe == nil || m.nodeID == "" || !t.allow(m.mac) {
		return
	}
	t.observe(&api.JournalEvent{
		NodeId:    m.nodeID,
		Peer:      t.self,
		AtMs:      at.UnixMilli(),
		Kind:      kind,
		Stage:     stage,
		Text:      text,
		Mac:       m.mac,
		BootNonce: m.nonce,
	})
}

func (t *timeline) allow(mac string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.limiters[mac]
	if l == nil {
		if len(t.limiters) >= maxLimiters {
			clear(t.limiters)
		}
		l = rate.NewLimiter(eventsPerSecond, eventsBurst)
		t.limiters[mac] = l
	}
	return l.AllowN(t.now(), 1)
}

// machineAt is the known machine that has an address; zero when there is none.
func machineAt(v *fsm.View, ip netip.Addr) machine {
	n := v.NetworkFor(ip)
	if n == nil {
		return machine{}
	}
	a := v.AddressByIP(n.GetName(), ip.String())
	if a == nil {
		return machine{}
	}
	return machineOf(v, a.GetMac())
}

// machineOf is the known machine with a MAC; zero when there is none.
func machineOf(v *fsm.View, mac string) machine {
	node := v.Node(v.PortByMAC(mac).GetNodeId())
	if node == nil {
		return machine{}
	}
	return machine{mac: mac, nodeID: node.GetId(), nonce: node.GetBoot().GetNonce()}
}
