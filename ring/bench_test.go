package ring

import (
	"fmt"
	"testing"
)

// The leader plans after every change of a node: a plan without moves is the
// case that must be cheap.
func BenchmarkPlan(b *testing.B) {
	members := peers(10)
	nodes := settled(members, machines(100_000))
	lost := peers(10)
	lost[4].Lost, lost[4].LostLong = true, true
	for _, c := range []struct {
		name    string
		members []Member
		nodes   []Node
	}{
		{"unchanged", members, nodes},
		{"first", members, machines(100_000)},
		{"lost", lost, nodes},
		{"joined", peers(12), nodes},
	} {
		b.Run(fmt.Sprintf("%s/100k-nodes-10-members", c.name), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Plan(Input{Members: c.members, Nodes: c.nodes, MaxVoluntary: 2000})
			}
		})
	}
}

func BenchmarkPlacer(b *testing.B) {
	p := NewPlacer(peers(10))
	nodes := machines(100_000)
	for i := 0; b.Loop(); i++ {
		p.Place(nodes[i%len(nodes)])
	}
}
