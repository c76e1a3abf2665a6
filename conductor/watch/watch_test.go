package watch_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/conductor/watch"
	"github.com/ironring/ironring/fsm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func id(n int) string { return fmt.Sprintf("%08x-0000-4000-8000-000000000000", n) }

func create(n int) *api.Op {
	return &api.Op{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{Id: id(n), Driver: "fake", DriverInfo: []byte("{}")}}}}
}

func touch(n int, text string) *api.Op {
	return &api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{NodeId: id(n), Fields: []string{"description"}, Node: &api.Node{Description: text}}}}
}

// run gives a broker that works until the test ends.
func run(t *testing.T, src watch.Source, after uint64) *watch.Broker {
	t.Helper()
	b := watch.New(src, after)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return b
}

func signalled(s *watch.Signal) bool {
	synctest.Wait()
	select {
	case <-s.C:
		return true
	default:
		return false
	}
}

func TestSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := conductortest.New(t, "p1")
		c.Must(create(1))
		c.Must(create(2))
		b := run(t, c.Store, c.Store.Index())
		one, stopOne := b.Subscribe(id(1))
		all, stopAll := b.Subscribe(watch.All)
		defer stopAll()
		if !signalled(one) || !signalled(all) {
			t.Fatal("no first signal: a change before the subscription would be missed")
		}
		if nodes, everything := all.Take(); !everything || len(nodes) != 0 {
			t.Errorf("first Take gives %v, %v", nodes, everything)
		}
		c.Must(touch(2, "a"))
		if signalled(one) {
			t.Error("a signal about another node")
		}
		c.Must(touch(1, "a"))
		c.Must(touch(1, "b"))
		if !signalled(one) || signalled(one) {
			t.Error("changes are not merged into one signal")
		}
		if !signalled(all) {
			t.Error("no signal for All")
		}
		if nodes, everything := all.Take(); everything || len(nodes) != 2 {
			t.Errorf("changed are %v, %v", nodes, everything)
		}
		if nodes, everything := all.Take(); everything || len(nodes) != 0 {
			t.Errorf("a second Take gives %v, %v", nodes, everything)
		}
		// What is not about a node wakes nobody.
		c.Must(&api.Op{Op: &api.Op_NetworkSet{NetworkSet: &api.NetworkSet{Network: &api.Network{
			Name: "n", Cidr: "10.0.0.0/24", RangeStart: "10.0.0.10", RangeEnd: "10.0.0.20",
		}}}})
		if signalled(all) || signalled(one) {
			t.Error("a network is not a node")
		}
		stopOne()
		c.Must(touch(1, "c"))
		if signalled(one) {
			t.Error("a signal after stop")
		}
	})
}

// Every change reaches a receiver that is slow, merged but not lost.
func TestNothingIsLost(t *testing.T) {
	c := conductortest.New(t, "p1")
	const nodes, rounds = 20, 30
	for n := range nodes {
		c.Must(create(n))
	}
	b := run(t, c.Store, c.Store.Index())
	s, stop := b.Subscribe(watch.All)
	defer stop()
	var writers sync.WaitGroup
	for n := range nodes {
		writers.Go(func() {
			for r := range rounds {
				c.Must(touch(n, fmt.Sprint(r)))
			}
		})
	}
	last := map[string]string{}
	final := func() bool {
		for n := range nodes {
			if last[id(n)] != fmt.Sprint(rounds-1) {
				return false
			}
		}
		return true
	}
	limit := time.After(20 * time.Second)
	for !final() {
		select {
		case <-s.C:
		case <-limit:
			t.Fatalf("changes were lost; seen last: %v", last)
		}
		changed, all := s.Take()
		v := c.Store.View()
		if all {
			changed = slices.Collect(func(yield func(string) bool) {
				for n := range v.Nodes() {
					if !yield(n.GetId()) {
						return
					}
				}
			})
		}
		for _, n := range changed {
			last[n] = v.Node(n).GetDescription()
		}
	}
	writers.Wait()
}

// source is a feed of changes by hand.
type source struct {
	mu      sync.Mutex
	changes []fsm.Change
	upTo    uint64
	more    chan struct{}
	lost    bool
	asked   []uint64
}

func (s *source) Changes(after uint64) ([]fsm.Change, uint64, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, after)
	if s.lost {
		s.lost = false
		return nil, s.upTo, s.more, fsm.ErrCompacted
	}
	var out []fsm.Change
	for _, c := range s.changes {
		if c.Index > after {
			out = append(out, c)
		}
	}
	return out, s.upTo, s.more, nil
}

func (s *source) add(lost bool, upTo uint64, changes ...fsm.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost, s.upTo = lost, upTo
	s.changes = append(s.changes, changes...)
	close(s.more)
	s.more = make(chan struct{})
}

// A reader that fell behind has everybody look at everything, and goes on from
// there.
func TestFallingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &source{more: make(chan struct{}), upTo: 5}
		b := run(t, src, 5)
		one, stopOne := b.Subscribe(id(1))
		all, stopAll := b.Subscribe(watch.All)
		defer stopOne()
		defer stopAll()
		signalled(one)
		signalled(all)
		all.Take()
		src.add(true, 90_000)
		if !signalled(one) || !signalled(all) {
			t.Error("nobody was told that changes were lost")
		}
		if _, everything := all.Take(); !everything {
			t.Error("All was not told to look at everything")
		}
		src.add(false, 90_001, fsm.Change{Index: 90_001, Table: fsm.TableLocks, Key: id(1)})
		if !signalled(one) {
			t.Error("no signal after the resync")
		}
		if last := src.asked[len(src.asked)-1]; last != 90_000 {
			t.Errorf("asked for changes after %d", last)
		}
	})
}
