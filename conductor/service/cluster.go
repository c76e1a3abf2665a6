package service

import (
	"context"
	"math"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
	"github.com/ironring/ironring/node"
)

// ClusterStatus implements api.IronringServer.
func (s *Service) ClusterStatus(ctx context.Context, _ *api.ClusterStatusRequest) (*api.ClusterStatusReply, error) {
	out := s.cfg.Cluster.Status(ctx)
	v := s.cfg.Cluster.Store().View()
	out.NodesByState = map[string]uint64{}
	out.Nodes, out.Unassigned = 0, 0
	for n := range v.Nodes() {
		out.Nodes++
		out.NodesByState[node.StateName(n.GetState())]++
		if n.GetAssigned() == "" {
			out.Unassigned++
		}
	}
	out.AnsweredBy = s.cfg.Cluster.ID()
	return out, nil
}

// Bounds of a join token's life.
const (
	defaultTokenTTL = time.Hour
	maxTokenTTL     = 7 * 24 * time.Hour
)

// CreateJoinToken implements api.IronringServer.
func (s *Service) CreateJoinToken(ctx context.Context, req *api.CreateJoinTokenRequest) (*api.CreateJoinTokenReply, error) {
	ttl := seconds(req.GetTtlSeconds(), defaultTokenTTL)
	if ttl < time.Minute || ttl > maxTokenTTL {
		return nil, errs.About(errs.Invalid, "ttl", "a join token lives between one minute and seven days, not %v", ttl)
	}
	token, expires, err := s.cfg.Cluster.CreateJoinToken(ctx, ttl)
	if err != nil {
		return nil, err
	}
	return &api.CreateJoinTokenReply{Token: token, ExpiresMs: expires.UnixMilli()}, nil
}

// Leave implements api.IronringServer.
func (s *Service) Leave(ctx context.Context, req *api.LeaveRequest) (*api.WriteReply, error) {
	c := s.cfg.Cluster
	id := req.GetMember()
	switch {
	case id == "" || id == c.ID():
		return &api.WriteReply{Index: c.Store().View().Index()}, s.cfg.Leave(ctx)
	case c.Store().View().Member(id) == nil:
		return nil, errs.About(errs.NotFound, id, "no member %s", id)
	case c.Alive(id):
		return nil, errs.About(errs.WrongState, id, "member %s is alive: run `ironring cluster leave %s` on its host", id, id)
	}
	err := c.Remove(ctx, id)
	v := c.Store().View()
	return &api.WriteReply{Index: v.Index(), Notes: cluster.FormNotes(v)}, err
}

// Bounds of a client certificate's life.
const (
	defaultCertTTL = 90 * 24 * time.Hour
	maxCertTTL     = 2 * 365 * 24 * time.Hour
)

// CreateClientCert implements api.IronringServer.
func (s *Service) CreateClientCert(ctx context.Context, req *api.CreateClientCertRequest) (*api.CreateClientCertReply, error) {
	ttl := seconds(req.GetTtlSeconds(), defaultCertTTL)
	if ttl < time.Minute || ttl > maxCertTTL {
		return nil, errs.About(errs.Invalid, "ttl", "a client certificate lives between one minute and two years, not %v", ttl)
	}
	ca := s.cfg.Cluster.CA()
	cert, err := ca.Issue(req.GetCsrDer(), pki.Identity{Cluster: ca.Cluster(), Role: pki.RoleClient, Name: req.GetName()}, ttl, s.cfg.Clock.Now())
	if err != nil {
		return nil, err
	}
	principal, source := caller(ctx)
	s.cfg.Logger.Info("client certificate issued", "name", req.GetName(), "principal", principal, "source", source)
	return &api.CreateClientCertReply{CertDer: cert, CaDer: ca.CertDER()}, nil
}

// seconds is a time that a client gave, or what 0 stands for. It does not
// overflow: what is out of all bounds stays so.
func seconds(n uint64, zero time.Duration) time.Duration {
	if n == 0 {
		return zero
	}
	return time.Duration(min(n, math.MaxInt64/uint64(time.Second))) * time.Second
}

// Version implements api.IronringServer.
func (s *Service) Version(context.Context, *api.VersionRequest) (*api.VersionReply, error) {
	return &api.VersionReply{
		Version: s.cfg.Version, Peer: s.cfg.Cluster.ID(), ClusterId: s.cfg.Cluster.ClusterID(),
		FeatureLevel: s.cfg.Cluster.Store().View().Globals().GetFeatureLevel(),
	}, nil
}
