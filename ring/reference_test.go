package ring

import (
	"math"
	"reflect"
	"sort"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// reference is the rules of the package comment written down again in the
// dumbest way: no pools, no counters, everything is counted anew each time.
type reference struct {
	in    Input
	nodes []Node // as moved so far; forced nodes wait without an owner
}

func newReference(in Input) *reference {
	r := &reference{in: in, nodes: append([]Node(nil), in.Nodes...)}
	sort.Slice(r.nodes, func(i, j int) bool { return r.nodes[i].ID < r.nodes[j].ID })
	return r
}

func (r *reference) member(id string) (Member, bool) {
	for _, m := range r.in.Members {
		if m.ID == id {
			return m, true
		}
	}
	return Member{}, false
}

func (r *reference) able(n Node, m Member) bool {
	return m.Ready && !m.Lost && m.Group == n.Group && contains(m.Drivers, n.Driver)
}

func (r *reference) eligible(n Node, m Member) bool {
	if reached, known := m.Reaches[n.Subnet]; n.Subnet != "" && known && !reached {
		for _, other := range r.in.Members {
			if r.able(n, other) && other.Reaches[n.Subnet] {
				return false
			}
		}
	}
	return r.able(n, m)
}

func (r *reference) candidates(n Node) []Member {
	var all, zone []Member
	for _, m := range r.in.Members {
		if r.eligible(n, m) {
			all = append(all, m)
			if n.Zone != "" && m.Zone == n.Zone {
				zone = append(zone, m)
			}
		}
	}
	if len(zone) > 0 {
		all = zone
	}
	sort.Slice(all, func(i, j int) bool { return all[i].ID < all[j].ID })
	return all
}

func (r *reference) isCandidate(n Node, id string) bool {
	for _, m := range r.candidates(n) {
		if m.ID == id {
			return true
		}
	}
	return false
}

func (r *reference) samePool(a, b Node) bool {
	return reflect.DeepEqual(r.candidates(a), r.candidates(b))
}

func (r *reference) receivers(n Node) map[string]int {
	for _, rule := range []func(Member) bool{
		func(m Member) bool { return m.Stable && m.Weight > 0 },
		func(m Member) bool { return m.Weight > 0 },
		func(m Member) bool { return m.Stable },
		func(Member) bool { return true },
	} {
		found := map[string]int{}
		for _, m := range r.candidates(n) {
			if rule(m) {
				found[m.ID] = min(max(m.Weight, 1), 100)
			}
		}
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

func (r *reference) load(n Node, owner string) int {
	count := 0
	for _, other := range r.nodes {
		if other.Owner == owner && r.samePool(n, other) {
			count++
		}
	}
	return count
}

func (r *reference) cap(n Node, id string) int {
	weights := r.receivers(n)
	sum := 0
	for _, w := range weights {
		sum += w
	}
	w, is := weights[id]
	if !is {
		m, _ := r.member(id)
		w = min(max(m.Weight, 0), 100)
		sum += w
	}
	count := 0
	for _, other := range r.nodes {
		if r.samePool(n, other) {
			count++
		}
	}
	return int(math.Ceil(float64(110*count*w) / float64(100*sum)))
}

// walk lists the receivers in the order in which the node meets their points.
func (r *reference) walk(n Node) []string {
	type place struct {
		hash uint64
		id   string
	}
	var ring []place
	for id, w := range r.receivers(n) {
		for k := range 256 * w {
			ring = append(ring, place{xxhash.Sum64String(id + "/" + strconv.Itoa(k)), id})
		}
	}
	sort.Slice(ring, func(i, j int) bool {
		if ring[i].hash != ring[j].hash {
			return ring[i].hash < ring[j].hash
		}
		return ring[i].id < ring[j].id
	})
	h := xxhash.Sum64String(n.ID)
	var after, before []string
	for _, p := range ring {
		if p.hash >= h {
			after = append(after, p.id)
		} else {
			before = append(before, p.id)
		}
	}
	return append(after, before...)
}

func (r *reference) place(n Node) string {
	walk := r.walk(n)
	room := map[string]bool{}
	for id := range r.receivers(n) {
		room[id] = r.load(n, id) < r.cap(n, id)
	}
	for _, id := range walk {
		if room[id] {
			return id
		}
	}
	return walk[0]
}

func (r *reference) plan() []Move {
	var moves []Move
	var waiting []int
	reasons := map[int]string{}
	for i, n := range r.nodes {
		m, known := r.member(n.Owner)
		nobody := len(r.candidates(n)) == 0
		capable := m.Group == n.Group && contains(m.Drivers, n.Driver)
		reason := ""
		switch {
		case n.Owner == "":
			reason = "no owner yet"
		case !known:
			reason = "owner left"
		case m.Lost && (m.LostLong || n.Pinned || n.NewWork):
			reason = "owner lost"
		case m.Lost, n.Pinned:
		case !capable:
			reason = "owner cannot serve it"
		case nobody:
		case !m.Ready:
			reason = "owner drains"
		case !r.eligible(n, m):
			reason = "owner does not reach its BMC"
		}
		if reason == "" {
			continue
		}
		if nobody {
			group := "the default group"
			if n.Group != "" {
				group = "group " + n.Group
			}
			why := "no conductor with driver " + n.Driver + " in " + group
			if n.Owner != "" || n.Unassigned != why {
				moves = append(moves, Move{Node: n.ID, Reason: why})
			}
			continue
		}
		r.nodes[i].Owner = ""
		waiting = append(waiting, i)
		reasons[i] = reason
	}
	for _, i := range waiting {
		r.nodes[i].Owner = r.place(r.nodes[i])
		moves = append(moves, Move{Node: r.nodes[i].ID, To: r.nodes[i].Owner, Reason: reasons[i]})
	}
	sortMoves(moves)
	voluntary := r.voluntary(reasons)
	sortMoves(voluntary)
	return append(moves, voluntary...)
}

func (r *reference) voluntary(forced map[int]string) []Move {
	type pick struct {
		i, rank int
		hash    uint64
		reason  string
	}
	var picks []pick
	surplus := map[int][]pick{} // by the first node of the same pool and owner
	for i, n := range r.nodes {
		m, known := r.member(n.Owner)
		if _, moved := forced[i]; moved || n.Pinned || !known || len(r.candidates(n)) == 0 {
			continue
		}
		p := pick{i: i, hash: xxhash.Sum64String(n.ID), rank: 1, reason: "owner above its share"}
		switch {
		case r.eligible(n, m) && !r.isCandidate(n, n.Owner):
			p.rank, p.reason = 0, "preferred zone"
			picks = append(picks, p)
		case r.isCandidate(n, n.Owner) && r.load(n, n.Owner) > r.cap(n, n.Owner):
			if r.walk(n)[0] == n.Owner {
				p.rank = 2
			}
			key := i
			for j := range i {
				if r.nodes[j].Owner == n.Owner && r.samePool(r.nodes[j], n) {
					key = j
					break
				}
			}
			surplus[key] = append(surplus[key], p)
		}
	}
	order := func(ps []pick) {
		sort.Slice(ps, func(a, b int) bool {
			x, y := ps[a], ps[b]
			if x.rank != y.rank {
				return x.rank < y.rank
			}
			return x.hash < y.hash
		})
	}
	for _, ps := range surplus {
		n := r.nodes[ps[0].i]
		order(ps)
		picks = append(picks, ps[:min(len(ps), r.load(n, n.Owner)-r.cap(n, n.Owner))]...)
	}
	order(picks)
	var moves []Move
	for _, p := range picks[:min(len(picks), max(r.in.MaxVoluntary, 0))] {
		n := &r.nodes[p.i]
		from := n.Owner
		n.Owner = ""
		n.Owner = r.place(*n)
		if n.Owner != from {
			moves = append(moves, Move{Node: n.ID, To: n.Owner, Reason: p.reason, Voluntary: true})
		}
	}
	return moves
}
