package form

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// world is some peers, what they have on disk, the rounds that they drive, and
// the messages under way, which may be lost, repeated and overtaken.
type world struct {
	quorum int
	disk   []Acceptor
	rounds []*Round
	flight []message
	chosen map[Founder]bool // some driver saw a quorum of acceptances
	took   map[Ballot]map[string]Founder
}

type message struct {
	to      int // acceptor, or driver for answers
	from    int
	kind    string // prepare, promise, accept, accepted
	ballot  Ballot
	promise Promise
	value   Founder
}

func newWorld(n, quorum int) *world {
	w := &world{quorum: quorum, rounds: make([]*Round, n), chosen: map[Founder]bool{}, took: map[Ballot]map[string]Founder{}}
	for i := range n {
		w.disk = append(w.disk, Acceptor{Self: Founder{ID: fmt.Sprintf("p%d", (i*7)%n), Instance: fmt.Sprintf("i%d", i)}})
	}
	return w
}

// drive begins a round at a peer: its own promise goes to disk first.
func (w *world) drive(i int) {
	b := Ballot{N: w.disk[i].Promised.N + 1, By: w.disk[i].Self.Instance}
	w.disk[i], _ = w.disk[i].Prepare(b)
	w.rounds[i] = NewRound(b, w.quorum)
	for to := range w.disk {
		w.flight = append(w.flight, message{to: to, from: i, kind: "prepare", ballot: b})
	}
}

func (w *world) deliver(m message) {
	switch m.kind {
	case "prepare":
		var p Promise
		w.disk[m.to], p = w.disk[m.to].Prepare(m.ballot)
		w.flight = append(w.flight, message{to: m.from, from: m.to, kind: "promise", ballot: m.ballot, promise: p})
	case "promise":
		r := w.rounds[m.to]
		if r == nil || r.Ballot != m.ballot {
			return
		}
		_, was := r.Promised(Promise{})
		if v, ok := r.Promised(m.promise); ok && !was {
			for to := range w.disk {
				w.flight = append(w.flight, message{to: to, from: m.to, kind: "accept", ballot: m.ballot, value: v})
			}
		}
	case "accept":
		next, ok := w.disk[m.to].Accept(m.ballot, m.value)
		w.disk[m.to] = next
		if !ok {
			return
		}
		if w.took[m.ballot] == nil {
			w.took[m.ballot] = map[string]Founder{}
		}
		w.took[m.ballot][next.Self.Instance] = m.value
		w.flight = append(w.flight, message{to: m.from, from: m.to, kind: "accepted", ballot: m.ballot})
	case "accepted":
		r := w.rounds[m.to]
		if r == nil || r.Ballot != m.ballot {
			return
		}
		if v, ok := r.Accepted(w.disk[m.from].Self.Instance); ok {
			w.chosen[v] = true
		}
	}
}

// check: whatever some driver saw, and whatever a quorum of acceptors took
// without anybody seeing it, is one founder.
func (w *world) check(t *rapid.T) {
	all := map[Founder]bool{}
	for v := range w.chosen {
		all[v] = true
	}
	for b, by := range w.took {
		values := map[Founder]int{}
		for _, v := range by {
			values[v]++
		}
		if len(values) > 1 {
			t.Fatalf("ballot %v was used for %v", b, values)
		}
		for v, n := range values {
			if n >= w.quorum {
				all[v] = true
			}
		}
	}
	if len(all) > 1 {
		t.Fatalf("more than one founder: %v", all)
	}
}

func TestAtMostOneFounder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "peers")
		w := newWorld(n, rapid.IntRange(n/2+1, n).Draw(t, "expect"))
		for range rapid.IntRange(0, 150).Draw(t, "steps") {
			switch what := rapid.IntRange(0, 9).Draw(t, "what"); {
			case what == 0 || len(w.flight) == 0:
				w.drive(rapid.IntRange(0, n-1).Draw(t, "driver"))
			case what == 1: // killed: what is not on disk is gone
				w.rounds[rapid.IntRange(0, n-1).Draw(t, "killed")] = nil
			case what == 2: // lost
				i := rapid.IntRange(0, len(w.flight)-1).Draw(t, "lost")
				w.flight = append(w.flight[:i:i], w.flight[i+1:]...)
			case what == 3: // delivered, and will be again
				w.deliver(w.flight[rapid.IntRange(0, len(w.flight)-1).Draw(t, "repeated")])
			default: // in any order
				i := rapid.IntRange(0, len(w.flight)-1).Draw(t, "next")
				m := w.flight[i]
				w.flight = append(w.flight[:i:i], w.flight[i+1:]...)
				w.deliver(m)
			}
			w.check(t)
		}
		// Left alone, a driver ends it, with what was chosen if anything was.
		w.flight = nil
		for try := 0; try < 2*n+10; try++ {
			w.drive(0)
			for len(w.flight) > 0 {
				m := w.flight[0]
				w.flight = w.flight[1:]
				w.deliver(m)
			}
			w.check(t)
			if len(w.chosen) == 1 {
				return
			}
			// Refused: somebody promised a later ballot; the driver goes past it.
			for _, a := range w.disk {
				w.disk[0].Promised.N = max(w.disk[0].Promised.N, a.Promised.N)
			}
		}
		t.Fatal("nobody is ever chosen")
	})
}

// The test above can fail: with quorums that need not overlap there are two.
func TestSmallQuorumsDisagree(t *testing.T) {
	w := newWorld(4, 2)
	for _, side := range [][]int{{0, 1}, {2, 3}} {
		w.drive(side[0])
		for len(w.flight) > 0 {
			m := w.flight[0]
			w.flight = w.flight[1:]
			if (m.to == side[0] || m.to == side[1]) && (m.from == side[0] || m.from == side[1]) {
				w.deliver(m)
			}
		}
	}
	if len(w.chosen) != 2 {
		t.Errorf("%d founders", len(w.chosen))
	}
}

func TestSmallestIDFounds(t *testing.T) {
	w := newWorld(3, 3)
	w.drive(2)
	for len(w.flight) > 0 {
		m := w.flight[0]
		w.flight = w.flight[1:]
		w.deliver(m)
	}
	for v := range w.chosen {
		if v.ID != "p0" {
			t.Errorf("chosen %v", v)
		}
	}
	if len(w.chosen) != 1 {
		t.Errorf("chosen %v", w.chosen)
	}
}
