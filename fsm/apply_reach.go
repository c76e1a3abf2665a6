package fsm

import (
	"net/netip"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// reachKey is the key of a record: member "/" subnet.
func reachKey(r *api.Reach) string { return r.GetMember() + "/" + r.GetSubnet() }

// reachSet records whether a member reaches the BMCs of a subnet. Records
// exist only while somebody misses the subnet: a member that says it is
// reachable while nobody misses it changes nothing, and the last one to find
// it again ends all records of it.
func (w *work) reachSet(op *api.ReachSet, out *api.OpResult) error {
	id := op.GetMember()
	if get(w, members, id) == nil {
		return noSuch("member", id)
	}
	p, err := netip.ParsePrefix(op.GetSubnet())
	if err != nil || p != p.Masked() || p.String() != op.GetSubnet() {
		return errs.About(errs.Invalid, "subnet", "%q is not a subnet such as 10.1.2.0/24", clip(op.GetSubnet(), maxID))
	}
	out.Id = id
	sub := op.GetSubnet()
	key := reachKey(&api.Reach{Member: id, Subnet: sub})
	was := get(w, reaches, key)
	if was != nil && was.GetReachable() == op.GetReachable() {
		return nil
	}
	all := all(w, reaches)
	missed := !op.GetReachable()
	for _, r := range all {
		missed = missed || r.GetSubnet() == sub && r.GetMember() != id && !r.GetReachable()
	}
	if !missed {
		w.dropReach(func(r *api.Reach) bool { return r.GetSubnet() == sub })
		return nil
	}
	if was == nil && len(all) >= maxList {
		return errs.New(errs.Busy, "there are %d records of BMC subnets, which is the most", len(all))
	}
	put(w, reaches, &api.Reach{
		Member: id, Subnet: sub, Reachable: op.GetReachable(), SinceTick: w.c.ticks, SinceMs: w.meta.GetWallMs(),
	})
	return nil
}

func (w *work) dropReach(which func(*api.Reach) bool) {
	for _, r := range all(w, reaches) {
		if which(r) {
			drop(w, reaches, reachKey(r))
		}
	}
}

// forgetReach drops what a member has observed, and what is left of subnets
// that nobody else misses.
func (w *work) forgetReach(member string) {
	w.dropReach(func(r *api.Reach) bool { return r.GetMember() == member })
	missed := map[string]bool{}
	for _, r := range all(w, reaches) {
		missed[r.GetSubnet()] = missed[r.GetSubnet()] || !r.GetReachable()
	}
	w.dropReach(func(r *api.Reach) bool { return !missed[r.GetSubnet()] })
}
