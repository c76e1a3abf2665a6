package service

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/google/uuid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/bmc"
	"github.com/ironring/ironring/conductor/flow"
	"github.com/ironring/ironring/internal/canon"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rootdisk"
	"github.com/ironring/ironring/internal/seal"
	"github.com/ironring/ironring/node"
)

// Provision implements api.IronringServer: a verb becomes a committed flow
// here, on whatever peer was asked; the owner finds it in the log.
func (s *Service) Provision(ctx context.Context, req *api.ProvisionRequest) (*api.FlowReply, error) {
	v := s.cfg.Cluster.Store().View()
	n, err := v.NodeByRef(req.GetNode())
	if err != nil {
		return nil, err
	}
	verb := req.GetVerb()
	if !node.IsVerb(verb) {
		return nil, errs.About(errs.Invalid, n.GetId(), "%v is not a verb", verb)
	}
	if err := node.CheckVerb(n, verb); err != nil {
		return nil, errs.About(errs.KindOf(err), n.GetId(), "node %s: %w", node.Label(n), err)
	}
	f := v.Flow(n.GetId())
	busy := f != nil && f.GetStatus() == api.FlowStatus_FLOW_RUNNING
	if verb == api.Event_EV_ABORT || verb == api.Event_EV_DELETE && busy {
		return s.request(ctx, n, req)
	}
	to, _, err := node.Next(n.GetState(), verb, n.GetTargetState())
	if err != nil {
		return nil, err
	}
	op := &api.FlowCreate{NodeId: n.GetId(), Rev: req.GetRev(), Event: verb}
	if node.Transient(to) {
		if op.Flow, err = s.newFlow(n, verb, req.GetArgs()); err != nil {
			return nil, err
		}
	} else if err := noArgs(n, verb, req.GetArgs()); err != nil {
		return nil, err
	}
	return s.create(ctx, req.GetRequestId(), n.GetId(), node.VerbName(verb), op)
}

// newFlow makes the flow that a verb starts.
func (s *Service) newFlow(n *api.Node, verb api.Event, args []byte) (*api.Flow, error) {
	kind, ok := node.FlowOf(verb)
	if !ok {
		return nil, errs.About(errs.Unsupported, n.GetId(), "%s is not supported by this version", node.VerbName(verb))
	}
	steps, err := node.Plan(kind, api.PowerAction_POWER_ACTION_NONE)
	if err != nil {
		return nil, err
	}
	f := &api.Flow{Id: uuid.NewString(), NodeId: n.GetId(), Kind: kind, Steps: steps}
	if needsNetwork(kind) {
		if err := s.bootable(n); err != nil {
			return nil, err
		}
	}
	if kind == api.FlowKind_FLOW_DEPLOY {
		return f, s.deployArgs(f, n, args)
	}
	if kind == api.FlowKind_FLOW_CLEAN {
		f.Args, err = cleanArgs(args)
		return f, err
	}
	return f, noArgs(n, verb, args)
}

// cleanArgs checks the arguments of a clean and brings them into canonical form.
func cleanArgs(doc []byte) ([]byte, error) {
	if len(doc) == 0 {
		return nil, nil
	}
	if _, err := flow.ParseCleanArgs(doc); err != nil {
		return nil, err
	}
	return canon.Object(doc, node.MaxDocument)
}

func noArgs(n *api.Node, verb api.Event, args []byte) error {
	if len(args) > 0 && string(args) != "{}" && string(args) != "null" {
		return errs.About(errs.Invalid, n.GetId(), "%s takes no arguments", node.VerbName(verb))
	}
	return nil
}

// needsNetwork says whether a flow boots the ramdisk.
func needsNetwork(kind api.FlowKind) bool {
	switch kind {
	case api.FlowKind_FLOW_DEPLOY, api.FlowKind_FLOW_INSPECT, api.FlowKind_FLOW_CLEAN, api.FlowKind_FLOW_TEARDOWN:
		return true
	}
	return false
}

// bootable refuses work that could only end in a time-out.
func (s *Service) bootable(n *api.Node) error {
	if node.VirtualMedia(n) {
		return s.mediaBootable(n)
	}
	for _, p := range s.cfg.Cluster.Store().View().PortsOf(n.GetId()) {
		if p.GetPxeEnabled() {
			return nil
		}
	}
	return errs.About(errs.Invalid, n.GetId(), "node %s has no port to boot from: add one with `ironring port create %s MAC`", node.Label(n), node.Label(n))
}

// deployArgs checks the arguments of a deploy and seals what is secret in them:
// an image URL with a user or a query is sealed whole, and so is the config
// drive. The flow gets them, and the steps that they ask for.
func (s *Service) deployArgs(f *api.Flow, n *api.Node, doc []byte) error {
	if len(doc) == 0 {
		doc = []byte("{}")
	}
	c, err := canon.Object(doc, node.MaxDocument)
	if err != nil {
		return errs.About(errs.Invalid, "args", "arguments of deploy: %w", err)
	}
	var a flow.DeployArgs
	dec := json.NewDecoder(strings.NewReader(string(c)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&a); err != nil {
		return errs.About(errs.Invalid, "args", "arguments of deploy: %w", err)
	}
	u, err := url.Parse(a.Image)
	switch {
	case a.Image == "":
		return errs.About(errs.Invalid, "image", "deploy needs an image: --image URL")
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return errs.About(errs.Invalid, "image", "image: an http or https URL is needed")
	case a.ImageShown != "":
		return errs.About(errs.Invalid, "image_shown", "arguments of deploy: image_shown is not taken from requests")
	}
	if err := flow.CheckChecksum("checksum", a.Checksum); err != nil {
		return err
	}
	switch a.Compress {
	case "", "gzip", "zstd":
	default:
		return errs.About(errs.Invalid, "compress", "compress: gzip, zstd or nothing, not %q", a.Compress)
	}
	if err := flow.CheckSource(a.Source); err != nil {
		return err
	}
	if _, err := rootdisk.ParseHints(a.RootDevice); err != nil {
		return errs.About(errs.Invalid, "root_device", "root_device: %w", err)
	}
	if err := checkFormat(a); err != nil {
		return err
	}
	if a.ConfigDrive, err = driveAsText(a.ConfigDrive); err != nil {
		return err
	}
	if err := flow.AddDriveCheck(f, a); err != nil {
		return err
	}
	if err := flow.AddEvidence(f, &a, n); err != nil {
		return err
	}
	if flow.WatchesConsole(a) {
		if err := bmc.HasConsole(s.cfg.Registry, n); err != nil {
			return err
		}
	}
	secretURL := flow.SecretURL(u)
	if secretURL {
		a.ImageShown = seal.MaskURL(a.Image)
	}
	if c, err = json.Marshal(a); err != nil {
		return err
	}
	if c, err = canon.Object(c, node.MaxDocument); err != nil {
		return errs.About(errs.Invalid, "args", "arguments of deploy: %w", err)
	}
	secret := func(path []string) bool {
		return seal.SecretPath(path) || path[0] == "config_drive" || secretURL && len(path) == 1 && path[0] == "image"
	}
	f.Args, err = s.cfg.Cluster.Keyring().SealDoc(flow.AAD(n.GetId()), c, secret)
	return err
}

// Power implements api.IronringServer.
func (s *Service) Power(ctx context.Context, req *api.PowerRequest) (*api.FlowReply, error) {
	n, err := s.cfg.Cluster.Store().View().NodeByRef(req.GetNode())
	if err != nil {
		return nil, err
	}
	steps, err := node.Plan(api.FlowKind_FLOW_POWER, req.GetAction())
	if err != nil {
		return nil, errs.About(errs.Invalid, n.GetId(), "%w", err)
	}
	return s.create(ctx, req.GetRequestId(), n.GetId(), "power", &api.FlowCreate{
		NodeId: n.GetId(), Rev: req.GetRev(),
		Flow: &api.Flow{Id: uuid.NewString(), NodeId: n.GetId(), Kind: api.FlowKind_FLOW_POWER, Steps: steps},
	})
}

// request asks the holder of the running flow for something.
func (s *Service) request(ctx context.Context, n *api.Node, req *api.ProvisionRequest) (*api.FlowReply, error) {
	res, err := s.propose(ctx, req.GetRequestId(), node.VerbName(req.GetVerb()), &api.Op{Op: &api.Op_FlowRequest{FlowRequest: &api.FlowRequest{NodeId: n.GetId(), Event: req.GetVerb(), Rev: req.GetRev()}}})
	if err != nil {
		return nil, err
	}
	return s.flowReply(n.GetId(), res.GetIndex()), nil
}

func (s *Service) create(ctx context.Context, requestID, id, reason string, op *api.FlowCreate) (*api.FlowReply, error) {
	if op.Flow != nil {
		principal, source := caller(ctx)
		op.Flow.Meta = &api.Meta{Principal: principal, Source: source, RequestId: requestID, Reason: reason, WallMs: s.cfg.Clock.Now().UnixMilli()}
	}
	res, err := s.propose(ctx, requestID, reason, &api.Op{Op: &api.Op_FlowCreate{FlowCreate: op}})
	if err != nil {
		return nil, err
	}
	return s.flowReply(id, res.GetIndex()), nil
}

func (s *Service) flowReply(id string, index uint64) *api.FlowReply {
	v := s.cfg.Cluster.Store().View()
	return &api.FlowReply{Flow: maskedFlow(v.Flow(id)), Index: index, Node: masked(v.Node(id))}
}

// GetFlow implements api.IronringServer.
func (s *Service) GetFlow(ctx context.Context, req *api.GetFlowRequest) (*api.FlowReply, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	n, err := v.NodeByRef(req.GetNode())
	if err != nil {
		return nil, err
	}
	f := v.Flow(n.GetId())
	if f == nil {
		return nil, errs.About(errs.NotFound, n.GetId(), "node %s has had no flow", node.Label(n))
	}
	return &api.FlowReply{Flow: maskedFlow(f), Index: v.Index(), Node: masked(n)}, nil
}
