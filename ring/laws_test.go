package ring

import (
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func drawInput(t *rapid.T, pins bool) Input {
	return Input{
		Members:      anyMembers().Draw(t, "members"),
		Nodes:        anyNodes(pins).Draw(t, "nodes"),
		MaxVoluntary: rapid.SampledFrom([]int{plenty, plenty, 0, 3}).Draw(t, "budget"),
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t, true)
		shuffled := in
		shuffled.Members = rapid.Permutation(in.Members).Draw(t, "members in another order")
		shuffled.Nodes = rapid.Permutation(in.Nodes).Draw(t, "nodes in another order")
		if a, b := Plan(in), Plan(shuffled); !reflect.DeepEqual(a, b) {
			t.Fatalf("%v\n%v", a, b)
		}
	})
}

func TestMoveLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t, true)
		members := map[string]Member{}
		for _, m := range in.Members {
			members[m.ID] = m
		}
		nodes := map[string]Node{}
		for _, n := range in.Nodes {
			nodes[n.ID] = n
		}
		voluntary := 0
		seen := map[string]bool{}
		for _, m := range Plan(in) {
			n := nodes[m.Node]
			owner, known := members[n.Owner]
			to := members[m.To]
			alive := known && !owner.Lost
			switch {
			case seen[m.Node]:
				t.Fatalf("%s moves twice", m.Node)
			case m.To != "" && (!to.Ready || to.Lost || to.Group != n.Group || !contains(to.Drivers, n.Driver)):
				t.Fatalf("%+v: not a candidate: %+v", m, to)
			case m.To == n.Owner && m.To != "":
				t.Fatalf("%+v moves to its owner", m)
			case m.To != "" && misses(to, n) && slices.ContainsFunc(in.Members, func(o Member) bool {
				return o.Ready && !o.Lost && o.Group == n.Group && contains(o.Drivers, n.Driver) && o.Reaches[n.Subnet]
			}):
				t.Fatalf("%+v: to one that does not reach it, though another does", m)
			case m.Reason == "owner does not reach its BMC" && !misses(owner, n):
				t.Fatalf("%+v: it does, or nothing is known: %+v", m, owner)
			case m.Reason == "":
				t.Fatalf("%+v has no reason", m)
			case n.Pinned && alive:
				t.Fatalf("pinned node moves: %+v from %+v", m, owner)
			case known && owner.Lost && !owner.LostLong && !n.Pinned && !n.NewWork:
				t.Fatalf("idle node of a briefly lost member moves: %+v", m)
			case m.Voluntary && !alive:
				t.Fatalf("%+v is not voluntary", m)
			}
			seen[m.Node] = true
			if m.Voluntary {
				voluntary++
			}
		}
		if voluntary > in.MaxVoluntary {
			t.Fatalf("%d voluntary moves of %d", voluntary, in.MaxVoluntary)
		}
	})
}

func misses(m Member, n Node) bool {
	reached, known := m.Reaches[n.Subnet]
	return n.Subnet != "" && known && !reached
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// Once the moves are made there are no more, and, without pins, nobody is
// above its cap and nobody is without an owner who could have one.
func TestPlanSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pins := rapid.Bool().Draw(t, "pins")
		in := drawInput(t, pins)
		in.MaxVoluntary = plenty
		after := in
		after.Nodes = apply(in.Nodes, Plan(in))
		if again := Plan(after); len(again) != 0 {
			t.Fatalf("plans again: %+v", again)
		}
		ref := newReference(after)
		for _, n := range after.Nodes {
			if n.Owner == "" && len(ref.candidates(n)) > 0 {
				t.Fatalf("%s has no owner", n.ID)
			}
			if pins || !ref.isCandidate(n, n.Owner) {
				continue
			}
			if load, limit := ref.load(n, n.Owner), ref.cap(n, n.Owner); load > limit {
				t.Fatalf("%s has %d nodes of a pool, its cap is %d", n.Owner, load, limit)
			}
		}
	})
}

// Losing one of several equal members moves its nodes and no others.
func TestLosingAMemberMovesOnlyItsNodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := peers(rapid.IntRange(2, 8).Draw(t, "members"))
		for i := range members {
			members[i].Weight = rapid.IntRange(1, 3).Draw(t, "weight")
		}
		nodes := settled(members, machines(rapid.IntRange(0, 300).Draw(t, "nodes")))
		lost := rapid.IntRange(0, len(members)-1).Draw(t, "lost")
		members[lost].Lost, members[lost].LostLong = true, true
		moves := Plan(Input{Members: members, Nodes: nodes, MaxVoluntary: plenty})
		if len(moves) != loads(nodes)[members[lost].ID] {
			t.Fatalf("%d moves, it had %d nodes", len(moves), loads(nodes)[members[lost].ID])
		}
		for _, m := range moves {
			if m.Voluntary {
				t.Fatalf("%+v", m)
			}
		}
	})
}

// A joining member only takes: no node moves between those that were there.
func TestJoiningMemberOnlyTakes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := peers(rapid.IntRange(2, 8).Draw(t, "members"))
		before := all[:len(all)-1]
		nodes := settled(before, machines(rapid.IntRange(0, 300).Draw(t, "nodes")))
		moves := Plan(Input{Members: all, Nodes: nodes, MaxVoluntary: plenty})
		toOthers := 0
		for _, m := range moves {
			if m.To != all[len(all)-1].ID {
				toOthers++
			}
		}
		// Bounded loads make a few nodes step over a full member.
		if toOthers > len(nodes)/10+2 {
			t.Fatalf("%d of %d moves are between members that were there", toOthers, len(moves))
		}
	})
}

func TestAgainstTheReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t, true)
		got := Plan(in)
		want := newReference(in).plan()
		if len(got) != len(want) {
			t.Fatalf("got %+v\nwant %+v", got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("got %+v\nwant %+v", got[i], want[i])
			}
		}
	})
}
