package pxe

import (
	"cmp"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/ironring/ironring/api"
)

// serving says whether a member answers machines.
func serving(m *api.Member) bool {
	return m.GetPhase() == api.Member_READY || m.GetPhase() == api.Member_DRAINING
}

// ranked gives the serving members in the order in which they should answer a
// MAC. Each MAC has an order of its own, the same on all peers, which spreads
// the machines over the peers.
func ranked(members []*api.Member, mac string) []*api.Member {
	type scored struct {
		m     *api.Member
		score uint64
	}
	list := make([]scored, 0, len(members))
	for _, m := range members {
		if serving(m) {
			list = append(list, scored{m, xxhash.Sum64String(mac + "\x00" + m.GetId())})
		}
	}
	slices.SortFunc(list, func(a, b scored) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.m.GetId(), b.m.GetId()))
	})
	out := make([]*api.Member, len(list))
	for i, s := range list {
		out[i] = s.m
	}
	return out
}

// rankOf is the place of a member in an order; past the end when it is not in it.
func rankOf(order []*api.Member, id string) int {
	for i, m := range order {
		if m.GetId() == id {
			return i
		}
	}
	return len(order)
}
