package pxe

import (
	"net/netip"
	"sync"

	"github.com/ironring/ironring/fsm"
)

// maxSeen bounds the addresses that a peer remembers of foreign servers.
const maxSeen = 4096

// seen remembers which machine uses an address that a foreign DHCP server
// gave, so that what it asks for next is on its timeline. Nothing is allowed
// by it that strangers may not do: anybody can send such a packet. In a crowd
// of TFTP requests, its go first.
type seen struct {
	mu sync.Mutex
	at map[netip.Addr]string // MACs; guarded by mu
}

func (s *seen) saw(ip netip.Addr, mac string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.at) >= maxSeen {
		clear(s.at) // some lines are missing from timelines then
	}
	s.at[ip] = mac
}

// machine is the known machine at an address; zero when there is none.
func (s *seen) machine(v *fsm.View, ip netip.Addr) machine {
	if m := machineAt(v, ip); m.nodeID != "" {
		return m
	}
	s.mu.Lock()
	mac := s.at[ip]
	s.mu.Unlock()
	if mac == "" {
		return machine{}
	}
	return machineOf(v, mac)
}
