package flow

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Bounds of takeovers: after the loss of a peer its nodes must not make a
// storm of logins on the management networks.
const (
	maxTakeovers  = 64 // of one conductor at the same time
	maxOnSubnet   = 8  // of those that talk to BMCs of one subnet
	takeoverPause = 500 * time.Millisecond
)

// turns decides which takeovers may go on now: the oldest flow first, but one
// whose subnet is full lets others pass. It knows neither stores nor BMCs.
//
// Nothing starves: a turn that comes free goes to the oldest who may have it,
// and every later flow is younger. Safe for concurrent use.
type turns struct {
	mu       sync.Mutex
	running  int            // guarded by mu
	onSubnet map[string]int // guarded by mu; never 0
	waiting  []*turn        // guarded by mu; oldest first
}

// turn is one takeover that waits or runs.
type turn struct {
	node   string
	subnet string // of the BMC that it will talk to; "": none, or not known
	age    uint64 // when its flow was accepted, in ticks: lower is older
	why    string // what it waits for; guarded by turns.mu
	begin  chan struct{}
}

func newTurns() *turns { return &turns{onSubnet: map[string]int{}} }

// take waits for a turn; over gives it back and may be called more than once.
// told hears what is waited for, once for each reason. over is nil when ctx or
// stopping ended first.
func (t *turns) take(ctx context.Context, stopping <-chan struct{}, node, subnet string, age uint64, told func(why string)) (over func()) {
	me := &turn{node: node, subnet: subnet, age: age, begin: make(chan struct{})}
	t.mu.Lock()
	i, _ := slices.BinarySearchFunc(t.waiting, me, older)
	t.waiting = slices.Insert(t.waiting, i, me)
	t.admitLocked()
	why := me.why
	t.mu.Unlock()
	select {
	case <-me.begin:
	default:
		told(why)
		select {
		case <-me.begin:
		case <-ctx.Done():
			return t.giveUp(me)
		case <-stopping:
			return t.giveUp(me)
		}
	}
	// Those that were let go together do not all log in at the same moment.
	pause := time.NewTimer(rand.N(takeoverPause))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
		return t.giveUp(me)
	case <-stopping:
		return t.giveUp(me)
	}
	return sync.OnceFunc(func() { t.end(me) })
}

// older orders turns; the node's id makes the order of equals stable.
func older(a, b *turn) int {
	switch {
	case a.age != b.age:
		if a.age < b.age {
			return -1
		}
		return 1
	case a.node < b.node:
		return -1
	case a.node > b.node:
		return 1
	}
	return 0
}

// admitLocked lets go whoever may.
func (t *turns) admitLocked() {
	rest := t.waiting[:0]
	for _, w := range t.waiting {
		switch {
		case t.running >= maxTakeovers:
			w.why = fmt.Sprintf("its turn: %d takeovers on this peer", t.running)
		case w.subnet != "" && t.onSubnet[w.subnet] >= maxOnSubnet:
			w.why = fmt.Sprintf("its turn: %d takeovers on BMC subnet %s", t.onSubnet[w.subnet], w.subnet)
		default:
			t.running++
			if w.subnet != "" {
				t.onSubnet[w.subnet]++
			}
			close(w.begin)
			continue
		}
		rest = append(rest, w)
	}
	clear(t.waiting[len(rest):])
	t.waiting = rest
}

func (t *turns) end(w *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running--
	if w.subnet != "" {
		if t.onSubnet[w.subnet]--; t.onSubnet[w.subnet] == 0 {
			delete(t.onSubnet, w.subnet)
		}
	}
	t.admitLocked()
}

// giveUp takes back a turn that nobody wants any more.
func (t *turns) giveUp(w *turn) (over func()) {
	t.mu.Lock()
	i := slices.Index(t.waiting, w)
	if i >= 0 {
		t.waiting = slices.Delete(t.waiting, i, i+1)
	}
	t.mu.Unlock()
	if i < 0 { // it was let go meanwhile
		t.end(w)
	}
	return nil
}
