package duties

import (
	"context"
	"sync"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// When a server that only listens is caught up.
const (
	PromoteLag   = 250 // entries that "caught up" may be behind
	probeTimeout = 500 * time.Millisecond
)

// servers keeps Raft's configuration in line with the members: who joined is
// added without a vote, gets one once it is caught up while there are fewer
// voters than the settings say, and who was removed is taken out. A voter is
// never removed for being dead: that is an operator's decision.
type servers struct {
	Config
	caughtUp map[string]time.Duration // since when, by this leader's clock
}

func newServers(cfg Config) *servers {
	return &servers{Config: cfg, caughtUp: map[string]time.Duration{}}
}

func (s *servers) name() string { return "servers" }

func (s *servers) round(ctx context.Context) error {
	v := s.Store.View()
	if v.Globals().GetClusterId() == "" || len(v.Members()) == 0 {
		return nil // the cluster is being founded
	}
	have, err := s.Voters.Servers()
	if err != nil {
		return errs.New(errs.Internal, "read raft configuration: %w", err)
	}
	byID := map[string]Server{}
	for _, h := range have {
		byID[h.ID] = h
	}
	// One change a round: each needs the one before it committed.
	for _, m := range v.Members() {
		if _, is := byID[m.GetId()]; !is && m.GetPhase() != api.Member_LEFT {
			s.Logger.Info("adding a member to raft", "peer", m.GetId(), "address", m.GetClusterAddress())
			return s.Voters.AddNonvoter(m.GetId(), m.GetClusterAddress())
		}
	}
	for _, h := range have {
		m := v.Member(h.ID)
		switch {
		case h.ID == s.Self:
		case m == nil || m.GetPhase() == api.Member_LEFT:
			s.Logger.Info("removing a former member from raft", "peer", h.ID)
			return s.Voters.Remove(h.ID)
		case m.GetClusterAddress() != h.Address && m.GetPhase() != api.Member_JOINING:
			return s.update(h, m.GetClusterAddress())
		}
	}
	return s.promote(ctx, have, int(v.Settings().GetMaxVoters()))
}

// update stores a member's new address.
func (s *servers) update(h Server, address string) error {
	s.Logger.Info("a member has a new address", "peer", h.ID, "address", address)
	if h.Voter {
		return s.Voters.AddVoter(h.ID, address)
	}
	return s.Voters.AddNonvoter(h.ID, address)
}

// promote gives a vote to the server that has been caught up for longest.
func (s *servers) promote(ctx context.Context, have []Server, maxVoters int) error {
	voters := 0
	var waiting []Server
	for _, h := range have {
		if h.Voter {
			voters++
		} else {
			waiting = append(waiting, h)
		}
	}
	if voters >= maxVoters || len(waiting) == 0 {
		clear(s.caughtUp)
		return nil
	}
	s.observe(ctx, waiting)
	now := s.Clock.Elapsed()
	var best *Server
	for i, h := range waiting {
		since, ok := s.caughtUp[h.ID]
		if ok && now-since >= s.PromoteAfter && (best == nil || since < s.caughtUp[best.ID]) {
			best = &waiting[i]
		}
	}
	if best == nil {
		return nil
	}
	s.Logger.Info("a member gets a vote", "peer", best.ID, "voters", voters+1)
	return s.Voters.AddVoter(best.ID, best.Address)
}

// observe asks the servers without a vote how far they are.
func (s *servers) observe(ctx context.Context, waiting []Server) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	ok := make([]bool, len(waiting))
	var wg sync.WaitGroup
	for i, h := range waiting {
		wg.Go(func() {
			info, err := s.Probe(ctx, h.ID)
			ok[i] = err == nil && info.GetLeader() == s.Self && info.GetAppliedIndex()+PromoteLag >= s.Voters.LastIndex()
		})
	}
	wg.Wait()
	now := s.Clock.Elapsed()
	for i, h := range waiting {
		if _, known := s.caughtUp[h.ID]; !ok[i] {
			delete(s.caughtUp, h.ID)
		} else if !known {
			s.caughtUp[h.ID] = now
		}
	}
}
