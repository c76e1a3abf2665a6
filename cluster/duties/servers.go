package duties

import (
	"cmp"
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
	lookPeriod   = time.Second
)

// servers keeps Raft's configuration in line with the members: who joined is
// added without a vote, gets one once it is caught up while there are fewer
// voters than the settings say, and who was removed is taken out.
//
// A voter that has been silent for long gives its vote to a peer that is alive
// and caught up, where there is one; it stays a member and is a candidate for
// the next vote. The new voter comes first, then the old one goes, so that at
// no moment fewer are alive than before. Without a peer to replace it nothing
// changes: to remove a member is an operator's decision.
type servers struct {
	Config
	caughtUp map[string]time.Duration // since when, by this leader's clock
	heard    map[string]time.Duration // when a voter answered last
	looked   time.Duration            // when voters were asked last
}

func newServers(cfg Config) *servers {
	return &servers{Config: cfg, caughtUp: map[string]time.Duration{}, heard: map[string]time.Duration{}, looked: cfg.Clock.Elapsed() - lookPeriod}
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

// promote gives a vote to a server that has been caught up for long enough, or
// takes one that is too many.
func (s *servers) promote(ctx context.Context, have []Server, maxVoters int) error {
	var voters, waiting []Server
	for _, h := range have {
		if h.Voter {
			voters = append(voters, h)
		} else {
			waiting = append(waiting, h)
		}
	}
	if len(voters) > maxVoters || len(waiting) > 0 {
		s.listen(ctx, voters)
	}
	if len(voters) > maxVoters {
		return s.demote(voters)
	}
	room := maxVoters - len(voters)
	if room == 0 && s.silent(voters) {
		room = 1 // the silent one goes once its successor votes
	}
	if room == 0 || len(waiting) == 0 {
		clear(s.caughtUp)
		return nil
	}
	s.observe(ctx, waiting)
	best := s.best(voters, waiting)
	if best == nil {
		return nil
	}
	s.Logger.Info("a member gets a vote", "peer", best.ID, "voters", len(voters)+1)
	return s.Voters.AddVoter(best.ID, best.Address)
}

// best is the candidate whose zone has the fewest votes, then the one that has
// been caught up for longest.
func (s *servers) best(voters, waiting []Server) *Server {
	v := s.Store.View()
	inZone := map[string]int{}
	for _, h := range voters {
		inZone[v.Member(h.ID).GetZone()]++
	}
	now := s.Clock.Elapsed()
	var best *Server
	for i, h := range waiting {
		since, ok := s.caughtUp[h.ID]
		if !ok || now-since < s.PromoteAfter {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(inZone[v.Member(h.ID).GetZone()], inZone[v.Member(best.ID).GetZone()]), cmp.Compare(since, s.caughtUp[best.ID])) < 0 {
			best = &waiting[i]
		}
	}
	return best
}

// demote takes a vote: of a silent server rather than of one that answers,
// never of this one.
func (s *servers) demote(voters []Server) error {
	var least *Server
	for i, h := range voters {
		if h.ID != s.Self && (least == nil || s.heard[h.ID] < s.heard[least.ID]) {
			least = &voters[i]
		}
	}
	if least == nil {
		return nil
	}
	s.Logger.Info("a member gives its vote back", "peer", least.ID, "voters", len(voters)-1)
	return s.Voters.Demote(least.ID)
}

// silent reports whether one of the voters has not answered for long.
func (s *servers) silent(voters []Server) bool {
	now := s.Clock.Elapsed()
	for _, h := range voters {
		if h.ID != s.Self && now-s.heard[h.ID] >= s.ReplaceAfter {
			return true
		}
	}
	return false
}

// listen asks the voters whether they are there, not more often than every
// lookPeriod. One that was never asked counts as heard now.
func (s *servers) listen(ctx context.Context, voters []Server) {
	now := s.Clock.Elapsed()
	for _, h := range voters {
		if _, known := s.heard[h.ID]; !known {
			s.heard[h.ID] = now
		}
	}
	if now-s.looked < lookPeriod {
		return
	}
	s.looked = now
	answered := s.ask(ctx, voters, func(info *api.PeerInfoReply) bool { return info != nil })
	for i, h := range voters {
		if answered[i] {
			s.heard[h.ID] = s.Clock.Elapsed()
		}
	}
}

// observe asks the servers without a vote how far they are.
func (s *servers) observe(ctx context.Context, waiting []Server) {
	ok := s.ask(ctx, waiting, func(info *api.PeerInfoReply) bool {
		return info.GetLeader() == s.Self && info.GetAppliedIndex()+PromoteLag >= s.Voters.LastIndex()
	})
	now := s.Clock.Elapsed()
	for i, h := range waiting {
		if _, known := s.caughtUp[h.ID]; !ok[i] {
			delete(s.caughtUp, h.ID)
		} else if !known {
			s.caughtUp[h.ID] = now
		}
	}
}

// ask asks servers at the same time, and says of which the answer is good.
func (s *servers) ask(ctx context.Context, who []Server, good func(*api.PeerInfoReply) bool) []bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	ok := make([]bool, len(who))
	var wg sync.WaitGroup
	for i, h := range who {
		wg.Go(func() {
			info, err := s.Probe(ctx, h.ID)
			ok[i] = err == nil && good(info)
		})
	}
	wg.Wait()
	return ok
}
