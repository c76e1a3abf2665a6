package flow

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
)

// storm lets many takeovers loose on turns and notes what happened.
type storm struct {
	mu      sync.Mutex
	running map[string]int // by subnet
	all     int
	most    map[string]int // at the same time
	mostAll int
	order   []string
	told    []string
}

func (s *storm) enter(node, subnet string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all++
	s.running[subnet]++
	s.mostAll = max(s.mostAll, s.all)
	s.most[subnet] = max(s.most[subnet], s.running[subnet])
	s.order = append(s.order, node)
}

func (s *storm) leave(subnet string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	s.running[subnet]--
}

func (s *storm) tell(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, why)
}

// A peer with many nodes is lost: no more than 64 takeovers at once, no more
// than 8 on a subnet, those that talk to agents only pass by, and all have
// their turn.
func TestTurnsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns, s := newTurns(), &storm{running: map[string]int{}, most: map[string]int{}}
		var all sync.WaitGroup
		const perSubnet = 30
		for i := range 20 * perSubnet {
			subnet := fmt.Sprintf("10.1.%d.0/24", i%20)
			all.Go(func() {
				over := turns.take(t.Context(), nil, fmt.Sprint("n", i), subnet, uint64(i), s.tell)
				s.enter(fmt.Sprint("n", i), subnet)
				time.Sleep(3 * time.Second)
				s.leave(subnet)
				over()
				over()
			})
		}
		for i := range 50 { // agents only
			all.Go(func() {
				turns.take(t.Context(), nil, fmt.Sprint("a", i), "", 1<<40, s.tell)()
			})
		}
		all.Wait()
		if s.mostAll > maxTakeovers || s.mostAll < maxTakeovers-8 {
			t.Errorf("%d at once", s.mostAll)
		}
		for subnet, n := range s.most {
			if n > maxOnSubnet {
				t.Errorf("%d at once on %s", n, subnet)
			}
		}
		if len(s.order) != 20*perSubnet || turns.running != 0 || len(turns.onSubnet) != 0 || len(turns.waiting) != 0 {
			t.Errorf("%d had their turn; left: %d, %v", len(s.order), turns.running, turns.onSubnet)
		}
		if !strings.Contains(strings.Join(s.told, "\n"), "its turn: 64 takeovers on this peer") {
			t.Errorf("told %q", s.told)
		}
	})
}

// One subnet is full: its oldest flow is next, others are not held up.
func TestTurnsByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slow = "10.1.2.0/24"
		turns, s := newTurns(), &storm{running: map[string]int{}, most: map[string]int{}}
		var held []func()
		for i := range maxOnSubnet {
			held = append(held, turns.take(t.Context(), nil, fmt.Sprint("h", i), slow, 0, s.tell))
		}
		if len(s.told) != 0 {
			t.Errorf("told %q", s.told)
		}
		var all sync.WaitGroup
		for _, age := range []uint64{30, 10, 20} { // they come in any order
			all.Go(func() {
				over := turns.take(t.Context(), nil, fmt.Sprint("n", age), slow, age, s.tell)
				s.enter(fmt.Sprint("n", age), slow)
				over()
			})
			synctest.Wait()
		}
		turns.take(t.Context(), nil, "elsewhere", "10.9.9.0/24", 99, func(why string) { t.Errorf("it had to wait for %s", why) })()
		for _, over := range held {
			over()
			time.Sleep(time.Second)
		}
		all.Wait()
		if got := fmt.Sprint(s.order); got != "[n10 n20 n30]" {
			t.Errorf("order %s", got)
		}
		if want := "its turn: 8 takeovers on BMC subnet 10.1.2.0/24"; len(s.told) != 3 || s.told[0] != want {
			t.Errorf("told %q, want %q", s.told, want)
		}
	})
}

// A peer that has its hands full with takeovers takes no lock of one more, and
// says why; a new flow needs no turn.
func TestTakeoverWaitsItsTurn(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		p2 := r.start("p2")
		conductortest.Until(r, time.Minute, "lease of p2", func() bool { return r.c.Store.View().LiveLease("p2") != nil })
		var held []func()
		for i := range maxTakeovers {
			held = append(held, p2.engine.turns.take(r.Context(), nil, fmt.Sprint(i), "", 0, func(string) {}))
		}
		r.begin(api.Event_EV_DEPLOY)
		r.waitStep("write_image")
		r.c.Peer("p1").Kill()
		conductortest.Until(r, time.Minute, "new owner", func() bool { return r.node().GetAssigned() == "p2" })
		conductortest.Pass(10 * time.Second)
		if w := p2.journal.Facts(nodeID).GetWaits(); r.holder() != "" || w != "its turn: 64 takeovers on this peer" {
			r.Errorf("holder %q, waits for %q", r.holder(), w)
		}
		held[0]()
		r.idle(10 * time.Minute)
		if w := p2.journal.Facts(nodeID).GetWaits(); w != "" {
			r.Errorf("it still waits for %q", w)
		}
		r.checkDeploy(0)
		r.create(api.FlowKind_FLOW_POWER, api.PowerAction_POWER_ACTION_OFF, api.Event_EVENT_NONE)
		p2.engine.turns.take(r.Context(), nil, "x", "", 0, func(string) {})
		r.idle(time.Minute)
	})
}

// Whoever gives up, waiting or just let go, leaves no turn behind.
func TestTurnsGivenUp(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			turns := newTurns()
			var all sync.WaitGroup
			for i := range rapid.IntRange(1, 40).Draw(rt, "takeovers") {
				subnet := rapid.SampledFrom([]string{"", "a", "b"}).Draw(rt, "subnet")
				patience := time.Duration(rapid.IntRange(0, 3000).Draw(rt, "patience")) * time.Millisecond
				work := time.Duration(rapid.IntRange(0, 3000).Draw(rt, "work")) * time.Millisecond
				age := uint64(rapid.IntRange(0, 5).Draw(rt, "age"))
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				all.Go(func() {
					defer cancel()
					if over := turns.take(ctx, nil, fmt.Sprint(i), subnet, age, func(string) {}); over != nil {
						time.Sleep(work)
						over()
					}
				})
			}
			all.Wait()
			if turns.running != 0 || len(turns.onSubnet) != 0 || len(turns.waiting) != 0 {
				rt.Fatalf("left: %d, %v, %v", turns.running, turns.onSubnet, turns.waiting)
			}
		})
	})
}
