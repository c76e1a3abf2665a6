package cluster

import (
	"context"

	"google.golang.org/grpc"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
)

// peerService answers other peers. Connections come from members only
// (admit); the leader checks each call again, because it knows best.
type peerService struct {
	api.UnimplementedClusterServer
	c *Cluster
}

// Propose implements api.ClusterServer. It never forwards: the caller asked
// the leader.
func (s peerService) Propose(ctx context.Context, req *api.ProposeRequest) (*api.Result, error) {
	if len(req.GetCommand()) > maxCommand {
		return nil, errs.New(errs.Invalid, "the command has %d bytes, at most %d are allowed", len(req.GetCommand()), maxCommand)
	}
	// A command of a newer peer that this one does not understand would stop
	// every peer of its version once it is committed.
	e, err := fsm.Decode(packEntry([][]byte{req.GetCommand()}))
	if err != nil {
		return nil, errs.New(errs.Unsupported, "command of another peer: %w", err)
	}
	return s.c.submit(ctx, command{req.GetCommand(), newNodes(e.GetCommands()[0])})
}

// ReadIndex implements api.ClusterServer.
func (s peerService) ReadIndex(ctx context.Context, _ *api.ReadIndexRequest) (*api.ReadIndexReply, error) {
	index, err := s.c.leaderIndex(ctx)
	if err != nil {
		return nil, err
	}
	_, term := s.c.Leader()
	return &api.ReadIndexReply{Index: index, Term: term}, nil
}

// PeerInfo implements api.ClusterServer.
func (s peerService) PeerInfo(context.Context, *api.PeerInfoRequest) (*api.PeerInfoReply, error) {
	return s.c.peerInfo(), nil
}

// RemoveServer implements api.ClusterServer: the caller's member record is
// gone already, now its vote goes.
func (s peerService) RemoveServer(ctx context.Context, req *api.RemoveServerRequest) (*api.WriteReply, error) {
	if m := s.c.store.View().Member(req.GetId()); m != nil && !gone(m) {
		return nil, errs.About(errs.WrongState, req.GetId(), "%s is still a member", req.GetId())
	}
	index, err := s.c.removeServer(ctx, req.GetId())
	return &api.WriteReply{Index: index}, err
}

// membersOnly refuses calls of those who are no longer members but still have
// a connection.
func (c *Cluster) membersOnly(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := c.checkCaller(ctx); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (c *Cluster) membersOnlyStream(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := c.checkCaller(s.Context()); err != nil {
		return err
	}
	return next(srv, s)
}

func (c *Cluster) checkCaller(ctx context.Context) error {
	cert, err := pki.CertificateFromContext(ctx)
	if err != nil {
		return err
	}
	id, err := pki.ParseIdentity(cert)
	if err != nil {
		return err
	}
	return c.admit(id, pki.KeyDigest(cert.RawSubjectPublicKeyInfo))
}

func (c *Cluster) peerInfo() *api.PeerInfoReply {
	leader, term := c.Leader()
	info := &api.PeerInfoReply{
		Id: c.ID(), Leader: leader, Term: term, Version: c.cfg.Advertised.GetVersion(),
		Disk: c.storage.disk.status(), Ticks: c.store.View().Globals().GetTicks(), KeysGeneration: c.creds.keyring.Generation(),
	}
	if r := c.raft.Load(); r != nil {
		info.AppliedIndex, info.LastIndex = r.AppliedIndex(), r.LastIndex()
	}
	return info
}
