package service

import (
	"context"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// What a BMC tells is asked of it by the holder of the node's lock, else by its
// owner, and by nobody else. What an operator changes there becomes a committed
// flow, on whatever peer was asked.

const (
	// hardwareTries is how often the keeper is looked up again when it has
	// changed meanwhile.
	hardwareTries = 3
	hardwarePause = 200 * time.Millisecond // before the next look
	// hardwareTimeout bounds a question to a BMC where the client sets no
	// deadline: sensors of a slow one take most of a minute.
	hardwareTimeout = 90 * time.Second
)

// GetHardware implements api.IronringServer.
func (s *Service) GetHardware(ctx context.Context, req *api.GetHardwareRequest) (*api.GetHardwareReply, error) {
	n, err := s.cfg.Cluster.Store().View().NodeByRef(req.GetNode())
	if err != nil {
		return nil, err
	}
	if len(req.GetParts()) == 0 || len(req.GetParts()) > len(api.HardwarePart_name) {
		return nil, errs.About(errs.Invalid, "parts", "name the parts of the hardware that are wanted")
	}
	ctx, cancel := context.WithTimeout(ctx, hardwareTimeout)
	defer cancel()
	for try := 1; ; try++ {
		rep, err := s.askKeeper(ctx, n.GetId(), req.GetParts())
		if errs.KindOf(err) != errs.NotOwner || try == hardwareTries {
			return rep, err
		}
		if clock.Pause(ctx, hardwarePause) != nil {
			return nil, err
		}
	}
}

// askKeeper has the node's holder or owner ask the BMC.
func (s *Service) askKeeper(ctx context.Context, id string, parts []api.HardwarePart) (*api.GetHardwareReply, error) {
	v := s.cfg.Cluster.Store().View()
	who := keeper(v, id)
	switch {
	case who == s.cfg.Cluster.ID():
		return s.readHardware(ctx, id, parts)
	case who == "":
		return nil, errs.About(errs.NotOwner, id, "no peer looks after node %s, so that nobody may ask its BMC: see `ironring node explain %s`", id, id)
	}
	conn, err := s.cfg.Cluster.PeerConn(who)
	if err != nil {
		return nil, errs.About(errs.NotOwner, id, "peer %s, which looks after the node, cannot be reached: %w", who, err)
	}
	return api.NewConductorClient(conn).LocalHardware(ctx, &api.LocalHardwareRequest{NodeId: id, Parts: parts, Index: v.Index()})
}

// LocalHardware implements api.ConductorServer: only the keeper asks the BMC.
func (s *Service) LocalHardware(ctx context.Context, req *api.LocalHardwareRequest) (*api.GetHardwareReply, error) {
	if _, err := member(ctx); err != nil {
		return nil, err
	}
	if _, err := s.view(ctx, &api.ReadOptions{MinIndex: req.GetIndex()}); err != nil {
		return nil, err
	}
	if who := keeper(s.cfg.Cluster.Store().View(), req.GetNodeId()); who != s.cfg.Cluster.ID() {
		return nil, errs.About(errs.NotOwner, req.GetNodeId(), "%q looks after the node, not this peer", who)
	}
	return s.readHardware(ctx, req.GetNodeId(), req.GetParts())
}

func (s *Service) readHardware(ctx context.Context, id string, parts []api.HardwarePart) (*api.GetHardwareReply, error) {
	if s.cfg.Hardware == nil {
		return nil, errs.About(errs.Unsupported, id, "this peer asks no BMCs")
	}
	rep, err := s.cfg.Hardware(ctx, id, parts)
	switch errs.KindOf(err) {
	case errs.Unreachable, errs.Timeout:
		if err != nil {
			// It is the BMC that does not answer: to ask another peer helps nobody.
			return nil, errs.About(errs.Busy, id, "%v", err)
		}
	}
	return rep, err
}

// ChangeHardware implements api.IronringServer.
func (s *Service) ChangeHardware(ctx context.Context, req *api.ChangeHardwareRequest) (*api.FlowReply, error) {
	n, err := s.cfg.Cluster.Store().View().NodeByRef(req.GetNode())
	if err != nil {
		return nil, err
	}
	step, err := node.HardwareStep(req)
	if err != nil {
		return nil, err
	}
	if err := s.capable(n, step); err != nil {
		return nil, err
	}
	if node.IDOf(step) == node.StepAcceptMachine && n.GetState() == api.State_ENROLL {
		return nil, errs.About(errs.WrongState, n.GetId(), "node %s is in enroll, so that no machine is its own yet: `ironring node manage %s` takes the one that is there", node.Label(n), node.Label(n))
	}
	return s.create(ctx, req.GetRequestId(), n.GetId(), strings.ReplaceAll(step.GetName(), "_", " "), &api.FlowCreate{
		NodeId: n.GetId(), Rev: req.GetRev(),
		Flow: &api.Flow{Id: uuid.NewString(), NodeId: n.GetId(), Kind: api.FlowKind_FLOW_HARDWARE, Steps: []*api.Step{step}},
	})
}

// capable refuses at once what the node's driver can never do.
func (s *Service) capable(n *api.Node, step *api.Step) error {
	d, err := s.cfg.Registry.Get(n.GetDriver())
	if err != nil {
		return err
	}
	c := d.Capabilities()
	can := map[node.StepID]bool{
		node.StepSetBootDevice: c.BootDeviceSet, node.StepSetBootMode: c.BootMode, node.StepSetSecureBoot: c.SecureBoot,
		node.StepInsertMedia: c.Media, node.StepEjectMedia: c.Media, node.StepSetIndicator: c.Indicator,
		node.StepSendNMI: c.NMI, node.StepClearEvents: c.ClearEvents, node.StepAcceptMachine: true,
	}
	if !can[node.IDOf(step)] {
		return errs.About(errs.Unsupported, n.GetId(), "driver %s cannot %s", d.Name(), strings.ReplaceAll(step.GetName(), "_", " "))
	}
	return nil
}

// AcceptBmcCertificate implements api.IronringServer.
func (s *Service) AcceptBmcCertificate(ctx context.Context, req *api.AcceptBmcCertificateRequest) (*api.NodeReply, error) {
	n, err := s.cfg.Cluster.Store().View().NodeByRef(req.GetNode())
	if err != nil {
		return nil, err
	}
	accepted, ok := drivers.Fingerprint(req.GetFingerprint())
	if !ok {
		return nil, errs.About(errs.Invalid, "fingerprint", "fingerprint: sha256: and 64 hexadecimal digits are needed")
	}
	res, err := s.propose(ctx, req.GetRequestId(), "accept the BMC's certificate", &api.Op{Op: &api.Op_BmcTrust{BmcTrust: &api.BmcTrust{
		NodeId: n.GetId(), How: api.BmcTrust_ACCEPT, Fingerprint: accepted,
	}}})
	if err != nil {
		return nil, err
	}
	return &api.NodeReply{Node: masked(s.cfg.Cluster.Store().View().Node(n.GetId())), Index: res.GetIndex()}, nil
}
