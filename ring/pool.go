package ring

import (
	"slices"
	"strings"
)

// layout is what follows from the members alone, and the loads of the pools.
type layout struct {
	members []Member // sorted by ID
	index   map[string]int
	classes map[classKey]*class
	pools   map[string]*pool // by candidates
	missed  map[string]bool  // subnets that a member does not reach

	lastKey   classKey // memo: neighbours tend to be of one class
	lastClass *class
}

// classKey is what the candidates of a node depend on. subnet is "" unless a
// member misses it.
type classKey struct{ group, driver, zone, subnet string }

// class is what all nodes of one key have in common.
type class struct {
	pool     *pool  // nil: there is no candidate
	reason   string // why there is none
	capable  []bool // by member: has the group and the driver
	eligible []bool // by member: capable, ready and not lost, and reaches its BMC
}

// pool is the nodes with the same candidates.
type pool struct {
	candidate []bool   // by member
	weight    []uint64 // by member: as a receiver, 0 for the others
	settling  []uint64 // by member: weight of candidates that are not stable yet and receive nothing
	total     uint64   // sum of weight
	nodes     uint64
	load      []uint64 // by member
	ring      []point  // of the receivers; made when first needed
}

func newLayout(members []Member) *layout {
	l := &layout{
		members: slices.Clone(members),
		index:   make(map[string]int, len(members)),
		classes: map[classKey]*class{},
		pools:   map[string]*pool{},
		missed:  map[string]bool{},
	}
	slices.SortFunc(l.members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	for i, m := range l.members {
		l.index[m.ID] = i
		for subnet, reached := range m.Reaches {
			if !reached {
				l.missed[subnet] = true
			}
		}
	}
	return l
}

// owner is the index of a node's owner, -1 when it has none or an unknown one.
func (l *layout) owner(n *Node) int {
	if i, ok := l.index[n.Owner]; ok && n.Owner != "" {
		return i
	}
	return -1
}

func (l *layout) class(n *Node) *class {
	key := classKey{group: n.Group, driver: n.Driver, zone: n.Zone}
	if n.Subnet != "" && l.missed[n.Subnet] {
		key.subnet = n.Subnet
	}
	if l.lastClass != nil && key == l.lastKey {
		return l.lastClass
	}
	c := l.classes[key]
	if c == nil {
		c = l.newClass(key)
		l.classes[key] = c
	}
	l.lastKey, l.lastClass = key, c
	return c
}

func (l *layout) newClass(key classKey) *class {
	c := &class{capable: make([]bool, len(l.members)), eligible: make([]bool, len(l.members))}
	inZone := make([]bool, len(l.members))
	for i, m := range l.members {
		c.capable[i] = m.Group == key.group && slices.Contains(m.Drivers, key.driver)
		c.eligible[i] = c.capable[i] && m.Ready && !m.Lost
	}
	if key.subnet != "" {
		l.keepReaching(c.eligible, key.subnet)
	}
	for i, m := range l.members {
		inZone[i] = c.eligible[i] && key.zone != "" && m.Zone == key.zone
	}
	candidates := c.eligible
	if slices.Contains(inZone, true) {
		candidates = inZone
	}
	if !slices.Contains(candidates, true) {
		c.reason = "no conductor with driver " + key.driver + " in group " + key.group
		if key.group == "" {
			c.reason = "no conductor with driver " + key.driver + " in the default group"
		}
		return c
	}
	name := make([]byte, len(candidates))
	for i, is := range candidates {
		if is {
			name[i] = 1
		}
	}
	c.pool = l.pools[string(name)]
	if c.pool == nil {
		c.pool = l.newPool(candidates)
		l.pools[string(name)] = c.pool
	}
	return c
}

// keepReaching takes those out who do not reach a subnet, if there is one who
// does: where nobody does, moving a node would gain nothing.
func (l *layout) keepReaching(eligible []bool, subnet string) {
	for i, m := range l.members {
		if eligible[i] && m.Reaches[subnet] {
			for k, other := range l.members {
				reached, known := other.Reaches[subnet]
				eligible[k] = eligible[k] && (reached || !known)
			}
			return
		}
	}
}

// newPool chooses the receivers: stable candidates with a weight if there are
// any, else those with a weight, else all.
func (l *layout) newPool(candidates []bool) *pool {
	p := &pool{
		candidate: candidates,
		weight:    make([]uint64, len(l.members)),
		settling:  make([]uint64, len(l.members)),
		load:      make([]uint64, len(l.members)),
	}
	for _, rule := range []func(Member) bool{
		func(m Member) bool { return m.Stable && m.Weight > 0 },
		func(m Member) bool { return m.Weight > 0 },
		func(m Member) bool { return m.Stable },
		func(Member) bool { return true },
	} {
		for i, m := range l.members {
			if candidates[i] && rule(m) {
				p.weight[i] = uint64(min(max(m.Weight, 1), maxWeight))
				p.total += p.weight[i]
			}
		}
		if p.total > 0 {
			break
		}
	}
	for i, m := range l.members {
		if candidates[i] && p.weight[i] == 0 {
			p.settling[i] = uint64(min(max(m.Weight, 0), maxWeight))
		}
	}
	return p
}

// cap is the most nodes of the pool that member i should own. A candidate that
// is not stable yet keeps what it would be allowed if it were; one without a
// weight keeps nothing.
func (p *pool) cap(i int) uint64 {
	w, total := p.weight[i], p.total
	if w == 0 {
		w = p.settling[i]
		total += w
	}
	return (110*p.nodes*w + 100*total - 1) / (100 * total)
}

// place finds the receiver for a hash. The caps add up to more than all nodes,
// so there is one below its cap; should there be none, the first one takes it.
func (p *pool) place(members []Member, hash uint64) int {
	if p.ring == nil {
		p.ring = points(members, p.weight)
	}
	start := first(p.ring, hash)
	for k := range p.ring {
		i := start + k
		if i >= len(p.ring) {
			i -= len(p.ring)
		}
		if m := p.ring[i].member; p.load[m] < p.cap(m) {
			return m
		}
	}
	return p.ring[start].member
}

// home is the receiver that a hash would go to if there were no caps.
func (p *pool) home(members []Member, hash uint64) int {
	if p.ring == nil {
		p.ring = points(members, p.weight)
	}
	return p.ring[first(p.ring, hash)].member
}
