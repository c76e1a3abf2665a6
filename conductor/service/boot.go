package service

import (
	"context"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// describeTimeout is for another peer to read its boot files through once.
const describeTimeout = 20 * time.Second

// BootRecord implements api.IronringServer. Unlike other questions about a
// node it is answered by the peer that is named, since peers may differ in
// what they have on disk.
func (s *Service) BootRecord(ctx context.Context, req *api.BootRecordRequest) (*api.BootRecordReply, error) {
	v := s.cfg.Cluster.Store().View()
	n, err := v.NodeByRef(req.GetNode())
	if err != nil {
		return nil, err
	}
	peer := req.GetPeer()
	if peer == "" || peer == s.cfg.Cluster.ID() {
		return s.describe(n.GetId())
	}
	if v.Member(peer) == nil {
		return nil, errs.About(errs.NotFound, peer, "no peer %s", peer)
	}
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	conn, err := s.cfg.Cluster.PeerConn(peer)
	if err != nil {
		return nil, err
	}
	return api.NewConductorClient(conn).LocalBootRecord(ctx, &api.BootRecordRequest{Node: n.GetId()})
}

// LocalBootRecord implements api.ConductorServer.
func (s *Service) LocalBootRecord(ctx context.Context, req *api.BootRecordRequest) (*api.BootRecordReply, error) {
	if _, err := member(ctx); err != nil {
		return nil, err
	}
	n, err := s.cfg.Cluster.Store().View().NodeByRef(req.GetNode())
	if err != nil {
		return nil, err
	}
	return s.describe(n.GetId())
}

func (s *Service) describe(id string) (*api.BootRecordReply, error) {
	if s.cfg.DescribeBoot == nil {
		return nil, errs.New(errs.Unsupported, "this peer has no boot services")
	}
	return s.cfg.DescribeBoot(id)
}
