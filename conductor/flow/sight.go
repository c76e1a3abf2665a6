package flow

import (
	"context"
	"sync"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/journal"
)

// askPeers is how often the other peers are asked what they saw of a machine
// that boots. What they saw is also copied here at once, best effort; without
// asking, a lost copy could make a machine that boots look dead.
const askPeers = 15 * time.Second

// sight is what is seen of a machine that boots, by this peer and by others.
type sight struct {
	r    *runner
	stop func()

	mu     sync.Mutex
	theirs map[string]glimpse // guarded by mu; by peer
	moved  int                // guarded by mu; how often one of them changed
}

// glimpse is what shows that a boot gets on, and can be compared: times of
// several peers cannot, because their wall clocks differ.
type glimpse struct {
	dhcp, boot, agent int64
	stage             string
	moved             int // how often another peer saw something new
}

func glimpseOf(f *api.LiveFacts) glimpse {
	return glimpse{dhcp: f.GetDhcpContactMs(), boot: f.GetBootContactMs(), agent: f.GetAgentContactMs(), stage: f.GetBootStage()}
}

// watchBoot begins to look; stop must be called.
func (r *runner) watchBoot(ctx context.Context) *sight {
	s := &sight{r: r, stop: func() {}, theirs: map[string]glimpse{}}
	if r.cfg.PeerFacts == nil {
		return s
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	s.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		tick := time.NewTicker(askPeers)
		defer tick.Stop()
		for {
			s.ask(ctx)
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return s
}

func (s *sight) ask(ctx context.Context) {
	answers := s.r.cfg.PeerFacts(ctx, s.r.node)
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, f := range answers {
		if now := glimpseOf(f); now != s.theirs[id] {
			s.theirs[id] = now
			s.moved++
		}
	}
}

// now is what is to be seen at this moment, by whoever saw the most.
func (s *sight) now() glimpse {
	g := glimpseOf(s.r.cfg.Journal.Facts(s.r.node))
	s.mu.Lock()
	defer s.mu.Unlock()
	g.moved = s.moved
	for _, other := range s.theirs {
		g.stage = journal.Furthest(g.stage, other.stage)
	}
	return g
}
