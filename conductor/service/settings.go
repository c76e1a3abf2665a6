package service

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/internal/errs"
)

// GetSettings implements api.IronringServer.
func (s *Service) GetSettings(ctx context.Context, req *api.GetSettingsRequest) (*api.SettingsReply, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	return &api.SettingsReply{Settings: v.Settings(), Index: v.Index()}, nil
}

// SetSettings implements api.IronringServer. The timing of leases is settled
// when the cluster is founded: leases that are held were given under it.
func (s *Service) SetSettings(ctx context.Context, req *api.SetSettingsRequest) (*api.SettingsReply, error) {
	set, is := req.GetSettings(), s.cfg.Cluster.Store().View().Settings()
	if err := cluster.CheckSettings(set); err != nil {
		return nil, err
	}
	if is != nil && !proto.Equal(set.GetTiming(), is.GetTiming()) {
		return nil, errs.About(errs.Unsupported, "timing", "the timing of leases is settled when a cluster is founded (profile in its founder's file) and cannot be changed")
	}
	res, err := s.propose(ctx, req.GetRequestId(), "set settings", &api.Op{Op: &api.Op_SettingsSet{SettingsSet: &api.SettingsSet{Settings: set}}})
	if err != nil {
		return nil, err
	}
	v := s.cfg.Cluster.Store().View()
	return &api.SettingsReply{Settings: v.Settings(), Index: res.GetIndex()}, nil
}

// RotateKeys implements api.IronringServer.
func (s *Service) RotateKeys(ctx context.Context, req *api.RotateKeysRequest) (*api.WriteReply, error) {
	reason := req.GetReason()
	if reason == "" {
		principal, _ := caller(ctx)
		reason = principal + " asked for them"
	}
	res, err := s.propose(ctx, req.GetRequestId(), "new keys", &api.Op{Op: &api.Op_KeysRequest{KeysRequest: &api.KeysRequest{Reason: reason}}})
	return &api.WriteReply{Index: res.GetIndex()}, err
}
