package ring

import (
	"fmt"

	"pgregory.net/rapid"
)

// peers are n equal members.
func peers(n int) []Member {
	ms := make([]Member, n)
	for i := range ms {
		ms[i] = Member{ID: fmt.Sprintf("p%d", i+1), Drivers: []string{"ipmi", "fake"}, Weight: 1, Ready: true, Stable: true}
	}
	return ms
}

// machines are n nodes without owners.
func machines(n int) []Node {
	ns := make([]Node, n)
	for i := range ns {
		ns[i] = Node{ID: fmt.Sprintf("n%06d", i), Driver: "ipmi"}
	}
	return ns
}

// reach notes what a member knows of a subnet.
func (m *Member) reach(subnet string, reached bool) {
	if m.Reaches == nil {
		m.Reaches = map[string]bool{}
	}
	m.Reaches[subnet] = reached
}

// apply makes the moves in a copy of the nodes.
func apply(nodes []Node, moves []Move) []Node {
	to := map[string]Move{}
	for _, m := range moves {
		to[m.Node] = m
	}
	out := make([]Node, len(nodes))
	for i, n := range nodes {
		if m, ok := to[n.ID]; ok {
			n.Owner, n.Unassigned = m.To, ""
			if m.To == "" {
				n.Unassigned = m.Reason
			}
		}
		out[i] = n
	}
	return out
}

const plenty = 1 << 30

// settled are nodes as Plan likes them.
func settled(members []Member, nodes []Node) []Node {
	return apply(nodes, Plan(Input{Members: members, Nodes: nodes, MaxVoluntary: plenty}))
}

func loads(nodes []Node) map[string]int {
	n := map[string]int{}
	for _, node := range nodes {
		n[node.Owner]++
	}
	return n
}

func anyMembers() *rapid.Generator[[]Member] {
	return rapid.Custom(func(t *rapid.T) []Member {
		ms := make([]Member, rapid.IntRange(0, 6).Draw(t, "members"))
		for i := range ms {
			odd := func(label string) bool { return rapid.IntRange(0, 5).Draw(t, label) == 0 }
			ms[i] = Member{
				ID:      fmt.Sprintf("p%d", i+1),
				Group:   rapid.SampledFrom([]string{"", "", "", "rack1"}).Draw(t, "group"),
				Zone:    rapid.SampledFrom([]string{"a", "b"}).Draw(t, "zone"),
				Drivers: rapid.SampledFrom([][]string{{"ipmi"}, {"ipmi", "fake"}, {"fake"}, nil}).Draw(t, "drivers"),
				Weight:  rapid.SampledFrom([]int{1, 1, 1, 2, 5, 0, -1, 1000}).Draw(t, "weight"),
				Ready:   !odd("draining"),
				Stable:  !odd("new"),
			}
			for _, subnet := range []string{"a", "b"} {
				switch rapid.IntRange(0, 7).Draw(t, "reach") {
				case 0:
					ms[i].reach(subnet, false)
				case 1, 2:
					ms[i].reach(subnet, true)
				}
			}
			if odd("lost") {
				ms[i].Lost = true
				ms[i].LostLong = rapid.Bool().Draw(t, "long")
			}
		}
		return ms
	})
}

func anyNodes(pins bool) *rapid.Generator[[]Node] {
	return rapid.Custom(func(t *rapid.T) []Node {
		ns := make([]Node, rapid.IntRange(0, 60).Draw(t, "nodes"))
		for i := range ns {
			ns[i] = Node{
				ID:      fmt.Sprintf("n%d", i),
				Group:   rapid.SampledFrom([]string{"", "", "", "rack1"}).Draw(t, "group"),
				Driver:  rapid.SampledFrom([]string{"ipmi", "ipmi", "fake"}).Draw(t, "driver"),
				Zone:    rapid.SampledFrom([]string{"", "", "a", "b"}).Draw(t, "zone"),
				Subnet:  rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "subnet"),
				Owner:   rapid.SampledFrom([]string{"", "p1", "p2", "p3", "p4", "gone"}).Draw(t, "owner"),
				Pinned:  pins && rapid.IntRange(0, 4).Draw(t, "pinned") == 0,
				NewWork: pins && rapid.IntRange(0, 4).Draw(t, "work") == 0,
			}
		}
		return ns
	})
}
