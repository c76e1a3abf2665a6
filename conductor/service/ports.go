package service

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal"
	"github.com/ironring/ironring/node"
)

// newPort checks a port that a client sent, and seals the secrets in it.
func (s *Service) newPort(nodeID string, in *api.Port) (*api.Port, error) {
	p := &api.Port{
		Id: in.GetId(), NodeId: nodeID, Address: in.GetAddress(), PxeEnabled: in.GetPxeEnabled(),
		PhysicalNetwork: in.GetPhysicalNetwork(), Extra: in.GetExtra(),
	}
	if p.Id == "" {
		p.Id = newID()
	}
	if err := node.NormalizePort(p); err != nil {
		return nil, err
	}
	if err := node.CheckPort(p); err != nil {
		return nil, err
	}
	if path := seal.MaskedPath(p.GetExtra()); path != "" {
		return nil, errs.About(errs.Invalid, "extra", "extra/%s is %s, as it is shown: give the secret itself", path, seal.Mask)
	}
	var err error
	if p.Extra, err = s.cfg.Cluster.Keyring().SealDoc(seal.PortAAD(p.GetId(), "extra"), p.GetExtra(), seal.SecretPath); err != nil {
		return nil, errs.About(errs.KindOf(err), "extra", "extra: %w", err)
	}
	return p, node.CheckPort(p) // sealing makes it longer
}

// maskedPort is a port that may leave the peer.
func maskedPort(p *api.Port) *api.Port {
	if p == nil {
		return nil
	}
	c := proto.CloneOf(p)
	c.Extra = seal.MaskDoc(c.Extra)
	return c
}

// CreatePort implements api.IronringServer.
func (s *Service) CreatePort(ctx context.Context, req *api.CreatePortRequest) (*api.PortReply, error) {
	n, err := s.cfg.Cluster.Store().View().NodeByRef(req.GetNode())
	if err != nil {
		return nil, err
	}
	p, err := s.newPort(n.GetId(), req.GetPort())
	if err != nil {
		return nil, err
	}
	res, err := s.propose(ctx, req.GetRequestId(), "create port", &api.Op{Op: &api.Op_PortCreate{PortCreate: &api.PortCreate{Port: p}}})
	if err != nil {
		return nil, err
	}
	return &api.PortReply{Port: maskedPort(s.cfg.Cluster.Store().View().PortByMAC(p.GetAddress())), Index: res.GetIndex()}, nil
}

// ListPorts implements api.IronringServer.
func (s *Service) ListPorts(ctx context.Context, req *api.ListPortsRequest) (*api.ListPortsReply, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	out := &api.ListPortsReply{Index: v.Index()}
	if req.GetNode() != "" {
		n, err := v.NodeByRef(req.GetNode())
		if err != nil {
			return nil, err
		}
		for _, p := range v.PortsOf(n.GetId()) {
			out.Ports = append(out.Ports, maskedPort(p))
		}
		return out, nil
	}
	for p := range v.Ports() {
		out.Ports = append(out.Ports, maskedPort(p))
	}
	return out, nil
}

// DeletePort implements api.IronringServer.
func (s *Service) DeletePort(ctx context.Context, req *api.DeletePortRequest) (*api.WriteReply, error) {
	v := s.cfg.Cluster.Store().View()
	p := v.Port(req.GetPort())
	if p == nil {
		if mac, err := node.NormalizeMAC(req.GetPort()); err == nil {
			p = v.PortByMAC(mac)
		}
	}
	if p == nil {
		return nil, errs.About(errs.NotFound, req.GetPort(), "no port %s", req.GetPort())
	}
	res, err := s.propose(ctx, req.GetRequestId(), "delete port", &api.Op{Op: &api.Op_PortDelete{PortDelete: &api.PortDelete{PortId: p.GetId()}}})
	return &api.WriteReply{Index: res.GetIndex()}, err
}

// SetNetwork implements api.IronringServer.
func (s *Service) SetNetwork(ctx context.Context, req *api.SetNetworkRequest) (*api.WriteReply, error) {
	res, err := s.propose(ctx, req.GetRequestId(), "set network", &api.Op{Op: &api.Op_NetworkSet{NetworkSet: &api.NetworkSet{Network: req.GetNetwork()}}})
	return &api.WriteReply{Index: res.GetIndex()}, err
}

// ListNetworks implements api.IronringServer.
func (s *Service) ListNetworks(context.Context, *api.ListNetworksRequest) (*api.ListNetworksReply, error) {
	v := s.cfg.Cluster.Store().View()
	out := &api.ListNetworksReply{Networks: v.Networks(), Index: v.Index()}
	for a := range v.Addresses() {
		out.Addresses = append(out.Addresses, a)
	}
	return out, nil
}

// DeleteNetwork implements api.IronringServer.
func (s *Service) DeleteNetwork(ctx context.Context, req *api.DeleteNetworkRequest) (*api.WriteReply, error) {
	res, err := s.propose(ctx, req.GetRequestId(), "delete network", &api.Op{Op: &api.Op_NetworkDelete{NetworkDelete: &api.NetworkDelete{Name: req.GetName()}}})
	return &api.WriteReply{Index: res.GetIndex()}, err
}
