package ring

import (
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
)

func TestFirstAssignmentIsBalanced(t *testing.T) {
	members := peers(3)
	nodes := settled(members, machines(300))
	for _, m := range members {
		if n := loads(nodes)[m.ID]; n < 80 || n > 110 { // cap: 1.10 * 100
			t.Errorf("%s owns %d of 300", m.ID, n)
		}
	}
}

func TestWeights(t *testing.T) {
	members := peers(3)
	members[2].Weight = 4
	n := loads(settled(members, machines(600)))
	if n["p3"] > 440 || n["p3"] < 360 || n["p1"] > 110 || n["p2"] > 110 {
		t.Errorf("%v", n)
	}
}

func TestLostMember(t *testing.T) {
	members := peers(4)
	nodes := settled(members, machines(400))
	nodes[0].Owner, nodes[1].Owner, nodes[2].Owner = "p2", "p2", "p2"
	nodes[0].Pinned, nodes[1].NewWork = true, true
	members[1].Lost = true

	moves := Plan(Input{Members: members, Nodes: nodes, MaxVoluntary: plenty})
	for _, m := range moves {
		if m.Voluntary {
			continue // p2 was filled above by hand
		}
		if m.Node != nodes[0].ID && m.Node != nodes[1].ID || m.To == "p2" || m.Reason != "owner lost" {
			t.Errorf("%+v", m)
		}
	}
	if len(moves) < 2 {
		t.Errorf("%v", moves)
	}

	members[1].LostLong = true
	moves = Plan(Input{Members: members, Nodes: nodes})
	if len(moves) != loads(nodes)["p2"] {
		t.Errorf("%d moves, p2 had %d nodes", len(moves), loads(nodes)["p2"])
	}
}

func TestLeftMemberAndDrain(t *testing.T) {
	members := peers(3)
	nodes := settled(members, machines(90))
	nodes[0].Owner, nodes[0].Pinned = "p3", true
	had := loads(nodes)["p3"]
	drained := peers(3)
	drained[2].Ready = false
	if got := Plan(Input{Members: drained, Nodes: nodes}); len(got) != had-1 || got[0].Reason != "owner drains" {
		t.Errorf("drain: %d moves of %d: %v", len(got), had, got)
	}
	if got := Plan(Input{Members: members[:2], Nodes: nodes}); len(got) != had || got[0].Reason != "owner left" {
		t.Errorf("left: %d moves of %d", len(got), had)
	}
	// Nobody else is there: a draining owner is better than none.
	nodes = settled(members[:1], machines(5))
	members[0].Ready = false
	if got := Plan(Input{Members: members[:1], Nodes: nodes}); len(got) != 0 {
		t.Errorf("alone: %v", got)
	}
}

func TestNoCandidate(t *testing.T) {
	nodes := []Node{
		{ID: "a", Driver: "redfish", Group: "rack1"},
		{ID: "b", Driver: "redfish", Owner: "p1"},
		{ID: "c", Driver: "ipmi"},
	}
	moves := Plan(Input{Members: peers(1), Nodes: nodes})
	want := []Move{
		{Node: "a", Reason: "no conductor with driver redfish in group rack1"},
		{Node: "b", Reason: "no conductor with driver redfish in the default group"},
		{Node: "c", To: "p1", Reason: "no owner yet"},
	}
	if !reflect.DeepEqual(moves, want) {
		t.Errorf("%+v", moves)
	}
	if again := Plan(Input{Members: peers(1), Nodes: apply(nodes, moves)}); len(again) != 0 {
		t.Errorf("said twice: %+v", again)
	}
	if moves := Plan(Input{Nodes: nodes}); len(moves) != 3 {
		t.Errorf("no members: %+v", moves)
	}
}

func TestNewMemberTakesItsShareWhenStable(t *testing.T) {
	nodes := settled(peers(2), machines(200))
	members := peers(3)
	members[2].Stable = false
	if got := Plan(Input{Members: members, Nodes: nodes, MaxVoluntary: plenty}); len(got) != 0 {
		t.Fatalf("moved before it was stable: %v", got)
	}
	members[2].Stable = true
	if got := Plan(Input{Members: members, Nodes: nodes}); len(got) != 0 {
		t.Fatalf("moved without a budget: %v", got)
	}
	if got := Plan(Input{Members: members, Nodes: nodes, MaxVoluntary: 7}); len(got) != 7 {
		t.Fatalf("%d moves, the budget was 7", len(got))
	}
	moves := Plan(Input{Members: members, Nodes: nodes, MaxVoluntary: plenty})
	for _, m := range moves {
		if m.To != "p3" || !m.Voluntary {
			t.Errorf("%+v", m)
		}
	}
	n := loads(apply(nodes, moves))
	if n["p1"] > 74 || n["p2"] > 74 || n["p3"] < 52 { // cap: ceil(1.10 * 200 / 3)
		t.Errorf("%v", n)
	}
}

// A restart: lost for a while, then back but not stable yet. Nothing moves.
func TestRestartCostsNoMove(t *testing.T) {
	members := peers(3)
	nodes := settled(members, machines(100))
	members[1].Lost = true
	if got := Plan(Input{Members: members, Nodes: nodes, MaxVoluntary: plenty}); len(got) != 0 {
		t.Errorf("while lost: %v", got)
	}
	members[1].Lost, members[1].Stable = false, false
	if got := Plan(Input{Members: members, Nodes: nodes, MaxVoluntary: plenty}); len(got) != 0 {
		t.Errorf("when back: %v", got)
	}
}

func TestPreferencesNeverLeaveANodeAlone(t *testing.T) {
	for _, c := range []struct {
		weight int
		stable bool
	}{{0, true}, {1, false}, {0, false}} {
		members := peers(2)
		for i := range members {
			members[i].Weight, members[i].Stable = c.weight, c.stable
		}
		n := loads(settled(members, machines(40)))
		if n[""] != 0 || n["p1"] > 22 || n["p2"] > 22 {
			t.Errorf("%+v: %v", c, n)
		}
	}
	// Where others have a weight, one without gives its idle nodes away.
	members := peers(3)
	nodes := settled(members, machines(90))
	members[0].Weight = 0
	if n := loads(settled(members, nodes)); n["p1"] != 0 {
		t.Errorf("%v", n)
	}
}

func TestZonePreference(t *testing.T) {
	members := peers(4)
	members[0].Zone, members[1].Zone, members[2].Zone = "a", "a", "b"
	nodes := machines(60)
	for i := range nodes {
		nodes[i].Zone = []string{"a", "b", "c"}[i%3]
	}
	nodes = settled(members, nodes)
	for _, n := range nodes {
		if ok := map[string]bool{"a": n.Owner == "p1" || n.Owner == "p2", "b": n.Owner == "p3", "c": n.Owner != ""}[n.Zone]; !ok {
			t.Errorf("node of zone %s at %s", n.Zone, n.Owner)
		}
	}
	// The only one of zone b goes and comes back: its nodes go elsewhere and return.
	members[2].Lost, members[2].LostLong = true, true
	away := settled(members, nodes)
	members[2].Lost, members[2].LostLong = false, false
	back := settled(members, away)
	for i, n := range back {
		if n.Zone == "b" && (away[i].Owner == "p3" || n.Owner != "p3") {
			t.Errorf("away %s, back %s", away[i].Owner, n.Owner)
		}
	}
}

func TestPinnedAboveCapStays(t *testing.T) {
	nodes := machines(50)
	for i := range nodes {
		nodes[i].Owner, nodes[i].Pinned = "p1", i < 45
	}
	moves := Plan(Input{Members: peers(3), Nodes: nodes, MaxVoluntary: plenty})
	if len(moves) != 5 {
		t.Errorf("%d moves", len(moves))
	}
	for _, m := range moves {
		if m.Node < nodes[45].ID {
			t.Errorf("pinned %s moved", m.Node)
		}
	}
}

func TestVersion(t *testing.T) {
	if CheckVersion(0) != nil || CheckVersion(1) != nil || CheckVersion(2) == nil {
		t.Error("CheckVersion")
	}
	if got := Plan(Input{Version: 2, Members: peers(1), Nodes: machines(1)}); got != nil {
		t.Errorf("planned for version 2: %v", got)
	}
}

// Where nodes go under version 1 must never change: a peer of another release
// may be the next leader.
func TestVersion1IsFixed(t *testing.T) {
	var b strings.Builder
	members := peers(5)
	members[1].Weight = 3
	for _, n := range settled(members, machines(200)) {
		b.WriteString(n.Owner)
	}
	if got, want := xxhash.Sum64String(b.String()), uint64(0x67a483e80739ea39); got != want {
		t.Errorf("assignment digest %#x, want %#x", got, want)
	}
}

func TestShares(t *testing.T) {
	members := peers(5)
	members[1].Weight = 2
	members[2].Ready = false
	members[3].Group = "rack1"
	members[4].Stable = false
	s := Shares(members)
	if math.Abs(s["p1"]+s["p2"]-1) > 1e-9 || s["p2"] < 0.55 || s["p2"] > 0.78 {
		t.Errorf("%v", s)
	}
	if s["p3"] != 0 || s["p5"] != 0 || math.Abs(s["p4"]-1) > 1e-9 || len(s) != 5 {
		t.Errorf("%v", s)
	}
}

func TestPlacer(t *testing.T) {
	members := peers(4)
	p := NewPlacer(members)
	var nodes []Node
	for _, n := range machines(500) {
		n.Owner, _ = p.Place(n)
		nodes = append(nodes, n)
	}
	if moves := Plan(Input{Members: members, Nodes: nodes, MaxVoluntary: plenty}); len(moves) != 0 {
		t.Errorf("Plan moves what the Placer placed: %v", moves)
	}
	if owner, reason := p.Place(Node{ID: "x", Driver: "none"}); owner != "" || reason == "" {
		t.Errorf("%q, %q", owner, reason)
	}
	q := NewPlacer(members)
	for _, n := range nodes {
		q.Add(n)
	}
	for _, n := range nodes[250:] {
		q.Remove(n)
		p.Remove(n)
	}
	for _, n := range nodes[250:] {
		a, _ := p.Place(n)
		b, _ := q.Place(n)
		if a != b {
			t.Fatalf("Placers disagree on %s: %s, %s", n.ID, a, b)
		}
	}
}

// An owner that loses a subnet of BMCs gives its nodes there to those that
// reach it, and no others; where nobody reaches it nothing moves; work that is
// locked stays.
func TestReach(t *testing.T) {
	const lost, fine = "10.1.2.0/24", "10.1.3.0/24"
	nodes := machines(90)
	for i := range nodes {
		nodes[i].Subnet = []string{lost, fine}[i%2]
	}
	nodes = settled(peers(3), nodes)
	plan := func(change func(ms []Member)) []Move {
		ms := peers(3)
		change(ms)
		return Plan(Input{Members: ms, Nodes: nodes, MaxVoluntary: 0})
	}
	if moves := plan(func(ms []Member) { ms[0].reach(lost, false) }); len(moves) != 0 {
		t.Errorf("nobody is known to reach it: %v", moves)
	}
	if moves := plan(func(ms []Member) { ms[0].reach(lost, false); ms[1].reach(lost, false); ms[2].reach(lost, false) }); len(moves) != 0 {
		t.Errorf("nobody reaches it: %v", moves)
	}
	pinned := ""
	for i := range nodes {
		if nodes[i].Owner == "p1" && nodes[i].Subnet == lost {
			nodes[i].Pinned, pinned = true, nodes[i].ID
			break
		}
	}
	want := -1 // the pinned one
	from, subnets := map[string]string{}, map[string]string{}
	for _, n := range nodes {
		from[n.ID], subnets[n.ID] = n.Owner, n.Subnet
		if n.Owner == "p1" && n.Subnet == lost {
			want++
		}
	}
	moves := plan(func(ms []Member) { ms[0].reach(lost, false); ms[1].reach(lost, true); ms[2].reach(lost, false) })
	fromOthers := 0
	for _, m := range moves {
		if m.Node == pinned || subnets[m.Node] != lost || m.To != "p2" || m.Reason != "owner does not reach its BMC" {
			t.Errorf("%+v", m)
		}
		if from[m.Node] == "p3" { // which misses it too
			fromOthers++
		}
	}
	if len(moves)-fromOthers != want || fromOthers == 0 {
		t.Errorf("%d moves, %d of them from p3; p1 had %d to give", len(moves), fromOthers, want)
	}
	// What is not known of p3 is not held against it.
	moves = plan(func(ms []Member) { ms[0].reach(lost, false); ms[1].reach(lost, true) })
	if len(moves) != want {
		t.Errorf("%d moves, p1 had %d to give", len(moves), want)
	}
}
