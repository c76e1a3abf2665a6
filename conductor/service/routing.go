package service

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/journal"
	"github.com/ironring/ironring/fsm"
)

// What is only in the memory of the holder or owner is asked of it, in one
// hop. The asked peer answers from what it has: it need not still be the one.

const hopTimeout = 2 * time.Second

// keeper is who knows the live facts of a node: the lock's holder, else the owner.
func keeper(v *fsm.View, id string) string {
	if l := v.Lock(id); l != nil {
		return l.GetConductor()
	}
	return v.Node(id).GetAssigned()
}

// facts asks the keeper of a node; from is "" when it could not be asked, and
// the facts are then what this peer knows.
func (s *Service) facts(ctx context.Context, id string) (f *api.LiveFacts, from string) {
	who := keeper(s.cfg.Cluster.Store().View(), id)
	if who == s.cfg.Cluster.ID() {
		return s.cfg.Journal.Facts(id), who
	}
	if who != "" {
		hctx, cancel := context.WithTimeout(ctx, hopTimeout)
		defer cancel()
		if conn, err := s.cfg.Cluster.PeerConn(who); err == nil {
			if f, err := api.NewConductorClient(conn).LocalFacts(hctx, &api.LocalFactsRequest{NodeId: id}); err == nil {
				return f, who
			}
		}
	}
	return s.cfg.Journal.Facts(id), ""
}

// mergeFacts adds what the other peers saw of a node's machine: the one that it
// booted from, or that its agent's stream ends at, need not be the one that
// works on it, least of all after a takeover.
func (s *Service) mergeFacts(ctx context.Context, id string, f *api.LiveFacts) {
	if s.cfg.PeerFacts == nil {
		return
	}
	for _, other := range s.cfg.PeerFacts(ctx, id) {
		journal.Merge(f, other)
	}
	journal.Merge(f, s.cfg.Journal.Facts(id))
}

// LocalFacts implements api.ConductorServer.
func (s *Service) LocalFacts(ctx context.Context, req *api.LocalFactsRequest) (*api.LiveFacts, error) {
	if _, err := member(ctx); err != nil {
		return nil, err
	}
	return s.cfg.Journal.Facts(req.GetNodeId()), nil
}

// AppendJournal implements api.ConductorServer.
func (s *Service) AppendJournal(ctx context.Context, req *api.AppendJournalRequest) (*api.AppendJournalReply, error) {
	if _, err := member(ctx); err != nil {
		return nil, err
	}
	for _, ev := range req.GetEvents() {
		s.cfg.Journal.Store(ev)
	}
	return &api.AppendJournalReply{}, nil
}

// RelayAgent implements api.ConductorServer.
func (s *Service) RelayAgent(stream grpc.BidiStreamingServer[api.AgentUp, api.AgentDown]) error {
	return s.cfg.Endpoint.RelayAgent(stream)
}
