// Package watch tells parts of the conductor that something about a node has
// changed in the replicated state: one reader of the change feed for all of
// them.
//
// A signal carries nothing: the receiver looks at a fresh view. Signals are
// merged while a receiver is busy, never lost.
package watch

import (
	"context"
	"sync"

	"github.com/ironring/ironring/fsm"
)

// Source is where changes come from; *fsm.Store is one.
type Source interface {
	Changes(after uint64) (changes []fsm.Change, upTo uint64, more <-chan struct{}, err error)
}

// ofNode are the tables whose key is a node's id.
var ofNode = map[string]bool{
	fsm.TableNodes: true, fsm.TableFlows: true, fsm.TableLocks: true, fsm.TableIntents: true,
}

// All is the key of those who want to hear of every node.
const All = ""

// Broker fans changes out.
type Broker struct {
	src   Source
	after uint64 // first change of interest lies behind it

	mu   sync.Mutex
	subs map[string]map[*Signal]bool
}

// Signal is one subscription. C receives after a change; for All, Take gives
// the nodes that changed since the last Take.
type Signal struct {
	C chan struct{}

	mu    sync.Mutex
	nodes map[string]bool
	lost  bool
}

// New makes a broker; Run makes it work.
func New(src Source, after uint64) *Broker {
	return &Broker{src: src, after: after, subs: map[string]map[*Signal]bool{}}
}

// Subscribe asks for signals about a node, or about All. The first signal is
// there at once, so that the receiver looks at the state before it waits.
func (b *Broker) Subscribe(node string) (s *Signal, stop func()) {
	s = &Signal{C: make(chan struct{}, 1), nodes: map[string]bool{}, lost: true}
	s.C <- struct{}{}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subs[node] == nil {
		b.subs[node] = map[*Signal]bool{}
	}
	b.subs[node][s] = true
	return s, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.subs[node], s)
		if len(b.subs[node]) == 0 {
			delete(b.subs, node)
		}
	}
}

// Run reads changes until ctx ends.
func (b *Broker) Run(ctx context.Context) error {
	after := b.after
	for {
		changes, upTo, more, err := b.src.Changes(after)
		if err != nil { // we fell behind: everybody must look again
			b.signalAll(true, nil)
		} else if len(changes) > 0 {
			nodes := map[string]bool{}
			for _, c := range changes {
				if ofNode[c.Table] {
					nodes[c.Key] = true
				}
			}
			b.signalAll(false, nodes)
		}
		after = max(after, upTo)
		if more == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		}
	}
}

func (b *Broker) signalAll(lost bool, nodes map[string]bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, subs := range b.subs {
		if !lost && key != All && !nodes[key] {
			continue
		}
		if key == All && !lost && len(nodes) == 0 {
			continue
		}
		for s := range subs {
			s.signal(lost, nodes)
		}
	}
}

func (s *Signal) signal(lost bool, nodes map[string]bool) {
	s.mu.Lock()
	s.lost = s.lost || lost
	for n := range nodes {
		s.nodes[n] = true
	}
	s.mu.Unlock()
	select {
	case s.C <- struct{}{}:
	default:
	}
}

// Take gives the nodes that changed since the last Take; all is true when
// everything must be looked at again.
func (s *Signal) Take() (nodes []string, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.nodes {
		nodes = append(nodes, n)
	}
	clear(s.nodes)
	all, s.lost = s.lost, false
	return nodes, all
}
