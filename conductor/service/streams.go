package service

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/journal"
	"github.com/ironring/ironring/internal/errs"
)

// progressEvery is how often a watcher is told of progress.
const progressEvery = 500 * time.Millisecond

// WatchNode implements api.IronringServer: the node now and after each change,
// progress in between.
func (s *Service) WatchNode(req *api.WatchNodeRequest, stream grpc.ServerStreamingServer[api.NodeEvent]) error {
	ctx := stream.Context()
	n, err := s.cfg.Cluster.Store().View().NodeByRef(req.GetNode())
	if err != nil {
		return err
	}
	id := n.GetId()
	sig, stop := s.cfg.Watch.Subscribe(id)
	defer stop()
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	sent := req.GetAfterIndex()
	var last *api.Progress
	var token uint64 // of the lock that was sent last
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sig.C:
			v := s.cfg.Cluster.Store().View()
			n, f, l := v.Node(id), v.Flow(id), v.Lock(id)
			if n == nil {
				return stream.Send(&api.NodeEvent{Index: v.Index(), Deleted: true})
			}
			// A lock that is released leaves no record with a new index.
			if at := max(n.GetIndex(), f.GetIndex(), l.GetIndex()); at <= sent && (token == 0 || l.GetToken() == token) {
				continue
			}
			sent, token = v.Index(), l.GetToken()
			if err := stream.Send(&api.NodeEvent{Node: masked(n), Flow: maskedFlow(f), Lock: l, Index: v.Index()}); err != nil {
				return err
			}
		case <-tick.C:
			v := s.cfg.Cluster.Store().View()
			f := v.Flow(id)
			if f.GetStatus() != api.FlowStatus_FLOW_RUNNING || f == nil || !f.GetStarted() {
				continue
			}
			facts, _ := s.facts(ctx, id)
			p := facts.GetProgress()
			if p == nil || p.GetCmdId() != f.GetCmdId() || proto.Equal(p, last) {
				continue
			}
			last = p
			if err := stream.Send(&api.NodeEvent{Progress: p, Index: v.Index()}); err != nil {
				return err
			}
		}
	}
}

// LocalJournal implements api.ConductorServer.
func (s *Service) LocalJournal(req *api.JournalRequest, stream grpc.ServerStreamingServer[api.JournalEvent]) error {
	if _, err := member(stream.Context()); err != nil {
		return err
	}
	return s.localJournal(stream.Context(), req, stream.Send)
}

// localJournal sends what this peer has, then what comes.
func (s *Service) localJournal(ctx context.Context, req *api.JournalRequest, send func(*api.JournalEvent) error) error {
	var live <-chan *api.JournalEvent
	if req.GetFollow() {
		ch, stop := s.cfg.Journal.Follow(req.GetNode())
		defer stop()
		live = ch
	}
	past, err := s.cfg.Journal.Read(ctx, req.GetNode())
	if err != nil {
		return err
	}
	for _, ev := range past {
		if wanted(ev, req) {
			if err := send(ev); err != nil {
				return err
			}
		}
	}
	for live != nil {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-live:
			if wanted(ev, req) {
				if err := send(ev); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func wanted(ev *api.JournalEvent, req *api.JournalRequest) bool {
	return ev.GetAtMs() >= req.GetSinceMs() && (len(req.GetKinds()) == 0 || slices.Contains(req.GetKinds(), ev.GetKind()))
}

// pastLimit is how long a silent peer may hold up the past of a journal.
const pastLimit = 3 * time.Second

// Journal implements api.IronringServer: the journals of all live peers as one.
// The past is sorted; what follows is sent as it comes.
func (s *Service) Journal(req *api.JournalRequest, stream grpc.ServerStreamingServer[api.JournalEvent]) error {
	v := s.cfg.Cluster.Store().View()
	n, err := v.NodeByRef(req.GetNode())
	if err != nil {
		return err
	}
	local := proto.CloneOf(req)
	local.Node, local.Follow = n.GetId(), false
	seen := newDedup(dedupWindow)
	past, err := s.gather(stream.Context(), local)
	if err != nil {
		return err
	}
	for _, ev := range past {
		seen.fresh(ev)
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
	if !req.GetFollow() {
		return nil
	}
	local.Follow = true
	return s.follow(stream.Context(), local, func(ev *api.JournalEvent) error {
		if seen.fresh(ev) {
			return stream.Send(ev)
		}
		return nil
	})
}

// source identifies an event over all copies of it.
type source struct {
	peer string
	seq  uint64
}

func sourceOf(ev *api.JournalEvent) source { return source{ev.GetPeer(), ev.GetSeq()} }

// gather merges the past of all live peers.
func (s *Service) gather(ctx context.Context, req *api.JournalRequest) ([]*api.JournalEvent, error) {
	ctx, cancel := context.WithTimeout(ctx, pastLimit)
	defer cancel()
	var mu sync.Mutex
	merged := map[source]*api.JournalEvent{}
	add := func(ev *api.JournalEvent) error {
		mu.Lock()
		defer mu.Unlock()
		merged[sourceOf(ev)] = ev
		return nil
	}
	var all sync.WaitGroup
	for _, id := range s.others(req) {
		all.Go(func() {
			if err := s.remoteJournal(ctx, id, req, add); err != nil {
				s.cfg.Logger.Debug("journal of a peer not read", "peer", id, "err", err)
			}
		})
	}
	err := s.localJournal(ctx, req, add)
	all.Wait()
	out := make([]*api.JournalEvent, 0, len(merged))
	for _, ev := range merged {
		out = append(out, ev)
	}
	slices.SortFunc(out, journal.Compare)
	return out, err
}

// peersEvery is how often a follower looks for peers that came.
const peersEvery = 2 * time.Second

// follow sends what all peers see from now on, until ctx ends: those that are
// alive now, and those that come later.
func (s *Service) follow(ctx context.Context, req *api.JournalRequest, send func(*api.JournalEvent) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := make(chan *api.JournalEvent)
	put := func(ev *api.JournalEvent) error {
		select {
		case events <- ev:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	ended := make(chan string)
	following := map[string]bool{}
	look := func() {
		for _, id := range s.others(req) {
			if following[id] {
				continue
			}
			following[id] = true
			all.Go(func() {
				err := s.remoteJournal(ctx, id, req, put)
				s.cfg.Logger.Debug("journal of a peer ended", "peer", id, "err", err)
				select {
				case ended <- id: // it is tried again while it is a live member
				case <-ctx.Done():
				}
			})
		}
	}
	look()
	peers := time.NewTicker(peersEvery)
	defer peers.Stop()
	localErr := make(chan error, 1)
	all.Go(func() { localErr <- s.localJournal(ctx, req, put) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-localErr:
			return err
		case id := <-ended:
			delete(following, id)
		case <-peers.C:
			look()
		case ev := <-events:
			if err := send(ev); err != nil {
				return err
			}
		}
	}
}

// others are the peers whose journals are asked for besides our own.
func (s *Service) others(req *api.JournalRequest) []string {
	if req.GetLocal() {
		return nil
	}
	var out []string
	for _, m := range s.cfg.Cluster.Store().View().Members() {
		if m.GetId() != s.cfg.Cluster.ID() && s.cfg.Cluster.Alive(m.GetId()) {
			out = append(out, m.GetId())
		}
	}
	return out
}

func (s *Service) remoteJournal(ctx context.Context, id string, req *api.JournalRequest, add func(*api.JournalEvent) error) error {
	conn, err := s.cfg.Cluster.PeerConn(id)
	if err != nil {
		return err
	}
	stream, err := api.NewConductorClient(conn).LocalJournal(ctx, req)
	if err != nil {
		return err
	}
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errs.New(errs.Unreachable, "journal of peer %s: %w", id, err)
		}
		if err := add(ev); err != nil {
			return err
		}
	}
}
