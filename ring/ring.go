package ring

import (
	"cmp"
	"slices"
	"strings"
)

// Member is a peer as the ring sees it. IDs are unique.
type Member struct {
	ID      string
	Group   string
	Zone    string
	Drivers []string
	// Weight is the member's share in relation to others, at most 100. With 0 it
	// receives no nodes and gives away its idle ones while others can take them.
	Weight int
	Ready  bool // takes part; false while it drains
	Lost   bool // it has no live lease
	// LostLong: lost for so long that its idle nodes move too.
	LostLong bool
	Stable   bool // ready for so long that it may receive nodes
	// Reaches says of subnets of BMCs whether the member reaches them. Of a
	// subnet that is not named nothing is known against it.
	Reaches map[string]bool
}

// Node is a machine as the ring sees it. IDs are unique.
type Node struct {
	ID     string
	Group  string
	Driver string
	Zone   string // preferred zone, "" for none
	Subnet string // of its BMC, "" where it does not matter
	Owner  string // assigned member, "" for none
	// Unassigned is the reason that is stored for having no owner; a Move that
	// would only repeat it is left out.
	Unassigned string
	Pinned     bool // locked, in a transient state, or with an unfinished flow
	NewWork    bool // a request waits for an owner that is alive
}

// Input of Plan.
type Input struct {
	Version uint32 // ring version, see CheckVersion
	Members []Member
	Nodes   []Node
	// MaxVoluntary is how many moves may be made for balance alone.
	MaxVoluntary int
}

// Move gives a node to another owner, or to nobody.
type Move struct {
	Node      string
	To        string // "": nobody can have it
	Reason    string // why; with To "" it is what the node's record should say
	Voluntary bool   // for balance alone
}

// Plan says which nodes should change their owner, forced moves first, each
// part in the order of node ids. A call that finds nothing to do is one pass
// over the nodes.
func Plan(in Input) []Move {
	if CheckVersion(in.Version) != nil {
		return nil
	}
	l := newLayout(in.Members)
	forced, homeless, misplaced := l.scan(in.Nodes)
	moves := homeless
	slices.SortFunc(forced, func(a, b task) int { return strings.Compare(a.node.ID, b.node.ID) })
	for _, t := range forced {
		to := t.class.pool.place(l.members, hashNode(t.node.ID))
		t.class.pool.load[to]++
		moves = append(moves, Move{Node: t.node.ID, To: l.members[to].ID, Reason: t.reason})
	}
	sortMoves(moves)
	if in.MaxVoluntary > 0 {
		voluntary := l.balance(in.Nodes, misplaced, in.MaxVoluntary)
		sortMoves(voluntary)
		moves = append(moves, voluntary...)
	}
	return moves
}

func sortMoves(moves []Move) {
	slices.SortFunc(moves, func(a, b Move) int { return strings.Compare(a.Node, b.Node) })
}

// task is a node that should move.
type task struct {
	node   *Node
	class  *class
	reason string
	hash   uint64
	rank   int // lower moves first
}

// scan counts the loads and finds the nodes that must move (forced), those
// that nobody can have (homeless), and those that live outside their preferred
// zone although it has candidates (misplaced).
func (l *layout) scan(nodes []Node) (forced []task, homeless []Move, misplaced []task) {
	for i := range nodes {
		n := &nodes[i]
		c := l.class(n)
		if c.pool != nil {
			c.pool.nodes++
		}
		o := l.owner(n)
		switch reason := l.mustMove(n, c, o); {
		case reason != "" && c.pool == nil:
			if n.Owner != "" || n.Unassigned != c.reason {
				homeless = append(homeless, Move{Node: n.ID, Reason: c.reason})
			}
		case reason != "":
			forced = append(forced, task{node: n, class: c, reason: reason})
		case c.pool == nil:
		case c.pool.candidate[o]:
			c.pool.load[o]++
		case c.eligible[o] && !n.Pinned:
			misplaced = append(misplaced, task{node: n, class: c, reason: "preferred zone", hash: hashNode(n.ID)})
		}
	}
	return forced, homeless, misplaced
}

// mustMove says why a node cannot stay with its owner, "" when it can.
func (l *layout) mustMove(n *Node, c *class, o int) string {
	switch {
	case n.Owner == "":
		return "no owner yet"
	case o < 0:
		return "owner left"
	case l.members[o].Lost:
		if l.members[o].LostLong || n.Pinned || n.NewWork {
			return "owner lost"
		}
	case n.Pinned || c.eligible[o]:
	case !c.capable[o]:
		return "owner cannot serve it"
	case c.pool == nil:
	case !l.members[o].Ready: // and somebody else is there
		return "owner drains"
	default: // only this makes a member that is ready and not lost no candidate
		return "owner does not reach its BMC"
	}
	return ""
}

// balance moves idle nodes from members above their cap, at most limit, and
// misplaced nodes before them. Nodes whose home on the ring is elsewhere go
// first: they would have to move one day anyway.
func (l *layout) balance(nodes []Node, misplaced []task, limit int) []Move {
	tasks := slices.Concat(misplaced, l.surplus(nodes))
	slices.SortFunc(tasks, byRank)
	var moves []Move
	for _, t := range tasks[:min(limit, len(tasks))] {
		p, from := t.class.pool, l.owner(t.node)
		if p.candidate[from] {
			p.load[from]--
		}
		to := p.place(l.members, t.hash)
		p.load[to]++
		if to != from {
			moves = append(moves, Move{Node: t.node.ID, To: l.members[to].ID, Reason: t.reason, Voluntary: true})
		}
	}
	return moves
}

func byRank(a, b task) int {
	return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.hash, b.hash), strings.Compare(a.node.ID, b.node.ID))
}

// surplus picks from each member above its cap as many idle nodes as it has
// too many.
func (l *layout) surplus(nodes []Node) []task {
	type holding struct {
		pool  *pool
		owner int
	}
	excess := map[holding]uint64{}
	for _, p := range l.pools {
		for i, load := range p.load {
			if p.candidate[i] && load > p.cap(i) {
				excess[holding{p, i}] = load - p.cap(i)
			}
		}
	}
	if len(excess) == 0 {
		return nil
	}
	movable := map[holding][]task{}
	for i := range nodes {
		n := &nodes[i]
		if n.Pinned || n.Owner == "" {
			continue
		}
		c, o := l.class(n), l.owner(n)
		h := holding{c.pool, o}
		if excess[h] == 0 { // also where there is no pool or no such owner
			continue
		}
		t := task{node: n, class: c, reason: "owner above its share", hash: hashNode(n.ID), rank: 1}
		if c.pool.home(l.members, t.hash) == o {
			t.rank = 2
		}
		movable[h] = append(movable[h], t)
	}
	var tasks []task
	for h, some := range movable {
		slices.SortFunc(some, byRank)
		tasks = append(tasks, some[:min(uint64(len(some)), excess[h])]...)
	}
	return tasks
}
