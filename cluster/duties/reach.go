package duties

import (
	"slices"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/node"
)

// probeTicks is how long, on the cluster clock, peers that have said nothing of
// a missed subnet are waited for: a node must not go from one who does not
// reach its BMC to another who has not looked yet.
const probeTicks = 90_000

// Reach is which members reach which subnets of BMCs, as far as it counts for
// who should own a node. It is empty most of the time.
type Reach struct {
	v       *fsm.View
	missed  map[string]bool            // subnets that somebody does not reach
	settled map[string]bool            // those of them of which all have spoken
	of      map[string]map[string]bool // by member, then subnet
}

// ReachOf reads it from the replicated state.
func ReachOf(v *fsm.View) Reach {
	r := Reach{v: v, missed: map[string]bool{}, settled: map[string]bool{}, of: map[string]map[string]bool{}}
	since := map[string]uint64{}
	for _, rec := range v.Reaches() {
		m, s := rec.GetMember(), rec.GetSubnet()
		if r.of[m] == nil {
			r.of[m] = map[string]bool{}
		}
		r.of[m][s] = rec.GetReachable()
		if at, seen := since[s]; !rec.GetReachable() && (!seen || rec.GetSinceTick() < at) {
			since[s] = rec.GetSinceTick()
		}
	}
	ticks := v.Globals().GetTicks()
	for s, at := range since {
		r.missed[s] = true
		r.settled[s] = ticks-at >= probeTicks || !slices.ContainsFunc(v.Members(), func(m *api.Member) bool {
			_, spoke := r.of[m.GetId()][s]
			return !spoke && m.GetPhase() == api.Member_READY && v.LiveLease(m.GetId()) != nil
		})
	}
	return r
}

// member is what the ring should know of a member.
func (r Reach) member(id string) map[string]bool {
	var out map[string]bool
	for s, reached := range r.of[id] {
		if r.settled[s] {
			if out == nil {
				out = map[string]bool{}
			}
			out[s] = reached
		}
	}
	return out
}

// subnet is the missed subnet that a node's BMC is in, "" for none.
func (r Reach) subnet(n *api.Node) string {
	if len(r.missed) == 0 {
		return ""
	}
	if s := node.BMCSubnet(n); r.missed[s] {
		return s
	}
	return ""
}

// HandsOver says whether a node's owner should let go of it at the next step
// boundary: it does not reach the node's BMC, and another one, that could own
// the node, does. The leader gives the node away once it is not locked.
func (r Reach) HandsOver(n *api.Node) bool {
	s := r.subnet(n)
	if s == "" || !r.settled[s] {
		return false
	}
	if reached, known := r.of[n.GetAssigned()][s]; !known || reached {
		return false
	}
	return slices.ContainsFunc(r.v.Members(), func(m *api.Member) bool {
		return r.of[m.GetId()][s] && m.GetPhase() == api.Member_READY && r.v.LiveLease(m.GetId()) != nil &&
			m.GetGroup() == n.GetConductorGroup() && slices.Contains(m.GetDrivers(), n.GetDriver())
	})
}
