package duties

import (
	"cmp"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/node"
	"github.com/ironring/ironring/ring"
)

// Members is how the ring sees the members now. lostLong and flapping are what
// only a leader that has watched for a while knows; nil says no to both.
func Members(v *fsm.View, lostLong, flapping func(id string) bool) []ring.Member {
	ticks, settle := v.Globals().GetTicks(), v.Settings().GetJoinStableMs()
	reach := ReachOf(v)
	var out []ring.Member
	for _, m := range v.Members() {
		r := ring.Member{
			ID: m.GetId(), Group: m.GetGroup(), Zone: m.GetZone(), Drivers: m.GetDrivers(),
			Weight: int(cmp.Or(m.GetWeight(), 1)),
			Ready:  m.GetPhase() == api.Member_READY,
			Lost:   v.LiveLease(m.GetId()) == nil,
			// Who was there in the cluster's first moments is stable at once.
			Stable:  m.GetStableTick() < settle || ticks-m.GetStableTick() >= settle,
			Reaches: reach.member(m.GetId()),
		}
		r.LostLong = r.Lost && lostLong != nil && lostLong(m.GetId())
		if flapping != nil && flapping(m.GetId()) {
			r.Weight = 0
		}
		out = append(out, r)
	}
	return out
}

// Node is how the ring sees a node that is not busy.
func Node(n *api.Node) ring.Node {
	return ring.Node{
		ID: n.GetId(), Group: n.GetConductorGroup(), Driver: n.GetDriver(),
		Owner: n.GetAssigned(), Unassigned: n.GetUnassignedReason(),
	}
}

// ringNodes is how the ring sees all nodes. A node that is locked stays. So
// does one in the middle of work, unless its owner drains or does not reach its
// BMC: then it parked the work for another to take.
func ringNodes(v *fsm.View) []ring.Node {
	busy := map[string]bool{}
	for f := range v.RunningFlows() {
		busy[f.GetNodeId()] = true
	}
	locked := map[string]bool{}
	for k := range v.Locks() {
		locked[k.GetNodeId()] = true
	}
	draining := map[string]bool{}
	for _, m := range v.Members() {
		draining[m.GetId()] = m.GetPhase() == api.Member_DRAINING
	}
	reach := ReachOf(v)
	out := make([]ring.Node, 0, v.NodeCount())
	for n := range v.Nodes() {
		r := Node(n)
		r.NewWork = busy[n.GetId()]
		r.Pinned = locked[n.GetId()] || (busy[n.GetId()] || node.Transient(n.GetState())) && !draining[n.GetAssigned()] && !reach.HandsOver(n)
		r.Subnet = reach.subnet(n)
		out = append(out, r)
	}
	return out
}
