package service

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/canon"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/kernelargs"
	"github.com/ironring/ironring/internal/rootdisk"
	"github.com/ironring/ironring/internal/seal"
	"github.com/ironring/ironring/node"
)

// Bounds of lists.
const maxPage = 1000

// prepare checks a node's spec fields, brings its documents into canonical form
// and seals the secrets in those of the named fields that are documents. When
// the driver or driver_info are named, the driver checks driver_info.
func (s *Service) prepare(n *api.Node, fields []string) error {
	for _, d := range node.Documents {
		doc := d.Of(n)
		if len(*doc) == 0 {
			*doc = []byte("{}")
		}
		c, err := canon.Object(*doc, node.MaxDocument)
		if err != nil {
			return errs.About(errs.Invalid, d.Field, "%s: %w", d.Field, err)
		}
		*doc = c
	}
	if err := node.CheckFlatSpec(n); err != nil {
		return err
	}
	var d drivers.Driver
	if touches(fields, "driver", "driver_info") {
		var err error
		if d, err = s.driver(n.GetDriver()); err != nil {
			return err
		}
		info, err := s.openInfo(d, n)
		if err != nil {
			return err
		}
		if err := d.Validate(info); err != nil {
			return errs.About(errs.Invalid, errs.SubjectOf(err), "%w", err)
		}
	}
	if err := s.sealDocs(n, d, fields); err != nil {
		return err
	}
	for _, d := range node.Documents {
		if len(*d.Of(n)) > node.MaxDocument {
			return errs.About(errs.Invalid, d.Field, "%s has %d bytes with its secrets sealed, at most %d are allowed", d.Field, len(*d.Of(n)), node.MaxDocument)
		}
	}
	return nil
}

// checkHints checks the root device hints and kernel arguments in those of the
// named fields that can have some: a deploy would only notice when the machine
// has booted, or does not.
func checkHints(n *api.Node, fields ...string) error {
	for _, name := range fields {
		if name != "properties" && name != "instance_info" || string(*node.DocumentOf(n, name)) == "{}" {
			continue
		}
		var doc struct {
			RootDevice json.RawMessage `json:"root_device"`
		}
		if err := json.Unmarshal(*node.DocumentOf(n, name), &doc); err != nil {
			return errs.About(errs.Invalid, name, "%s: %w", name, err)
		}
		if _, err := rootdisk.ParseHints(doc.RootDevice); err != nil {
			return errs.About(errs.Invalid, name+"/root_device", "%s/root_device: %w", name, err)
		}
		if name == "properties" {
			if _, err := kernelargs.OfNode(n.GetProperties()); err != nil {
				return err
			}
		}
	}
	return nil
}

// driver finds a driver of this peer. One that only other peers have is for
// them to check.
func (s *Service) driver(name string) (drivers.Driver, error) {
	d, err := s.cfg.Registry.Get(name)
	if err == nil {
		return d, nil
	}
	var have []string
	for _, m := range s.cfg.Cluster.Store().View().Members() {
		if m.GetId() != s.cfg.Cluster.ID() && slices.Contains(m.GetDrivers(), name) {
			have = append(have, m.GetId())
		}
	}
	if len(have) > 0 {
		return nil, errs.About(errs.NotOwner, "driver", "this peer does not have driver %q: ask %s", name, strings.Join(have, " or "))
	}
	return nil, err
}

// GetNode implements api.IronringServer.
func (s *Service) GetNode(ctx context.Context, req *api.GetNodeRequest) (*api.NodeReply, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	n, err := v.NodeByRef(req.GetNode())
	if err != nil {
		return nil, err
	}
	return &api.NodeReply{Node: masked(n), Index: v.Index(), Stale: s.Stale(), Flow: maskedFlow(v.Flow(n.GetId())), Lock: v.Lock(n.GetId())}, nil
}

// ListNodes implements api.IronringServer.
func (s *Service) ListNodes(ctx context.Context, req *api.ListNodesRequest) (*api.ListNodesReply, error) {
	v, err := s.view(ctx, req.GetRead())
	if err != nil {
		return nil, err
	}
	limit := int(req.GetLimit())
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	out := &api.ListNodesReply{Index: v.Index(), Stale: s.Stale()}
	for n := range v.NodesAfter(req.GetMarker()) {
		if !matches(n, req) {
			continue
		}
		if len(out.Nodes) == limit {
			out.Next = out.Nodes[limit-1].GetId()
			break
		}
		out.Nodes = append(out.Nodes, masked(n))
	}
	return out, nil
}

func matches(n *api.Node, req *api.ListNodesRequest) bool {
	return (req.GetState() == api.State_STATE_UNSPECIFIED || n.GetState() == req.GetState()) &&
		(req.GetOwner() == "" || n.GetAssigned() == req.GetOwner()) &&
		(req.GetDriver() == "" || n.GetDriver() == req.GetDriver()) &&
		(req.GetGroup() == "" || n.GetConductorGroup() == req.GetGroup())
}

// patchTries is how often an update of a document is tried again when another
// client changed the node in between.
const patchTries = 5

// UpdateNode implements api.IronringServer.
func (s *Service) UpdateNode(ctx context.Context, req *api.UpdateNodeRequest) (*api.NodeReply, error) {
	for try := 1; ; try++ {
		n, err := s.cfg.Cluster.Store().View().NodeByRef(req.GetNode())
		if err != nil {
			return nil, err
		}
		if req.GetRev() != 0 && req.GetRev() != n.GetRev() {
			return nil, errs.About(errs.Conflict, n.GetId(), "node %s has revision %d, not %d: read it again", req.GetNode(), n.GetRev(), req.GetRev())
		}
		changed, fields, err := patched(n, req.GetSet(), req.GetUnset())
		if err != nil {
			return nil, err
		}
		if touches(fields, "driver") && !touches(fields, "driver_info") {
			fields = append(fields, "driver_info") // another driver may call other keys secrets
		}
		if err := s.prepare(changed, fields); err != nil {
			return nil, err
		}
		if err := checkHints(changed, fields...); err != nil {
			return nil, err
		}
		res, err := s.propose(ctx, req.GetRequestId(), "set node", &api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{
			NodeId: n.GetId(), Rev: n.GetRev(), Fields: fields, Node: onlyFields(changed, fields),
		}}})
		if errors.Is(err, errs.Conflict) && req.GetRev() == 0 && try < patchTries {
			continue
		}
		if err != nil {
			return nil, err
		}
		return &api.NodeReply{Node: masked(s.cfg.Cluster.Store().View().Node(n.GetId())), Index: res.GetIndex()}, nil
	}
}

// DeleteNode implements api.IronringServer.
func (s *Service) DeleteNode(ctx context.Context, req *api.DeleteNodeRequest) (*api.WriteReply, error) {
	n, err := s.cfg.Cluster.Store().View().NodeByRef(req.GetNode())
	if err != nil {
		return nil, err
	}
	res, err := s.propose(ctx, req.GetRequestId(), "delete node", &api.Op{Op: &api.Op_NodeDelete{NodeDelete: &api.NodeDelete{NodeId: n.GetId(), Rev: req.GetRev()}}})
	if err != nil {
		return nil, err
	}
	s.cfg.Journal.Forget(n.GetId())
	return &api.WriteReply{Index: res.GetIndex()}, nil
}

// GetInventory implements api.IronringServer.
func (s *Service) GetInventory(_ context.Context, req *api.GetInventoryRequest) (*api.Inventory, error) {
	v := s.cfg.Cluster.Store().View()
	n, err := v.NodeByRef(req.GetNode())
	if err != nil {
		return nil, err
	}
	inv := v.Inventory(n.GetId())
	if inv == nil {
		return nil, errs.About(errs.NotFound, n.GetId(), "node %s has not been inspected", req.GetNode())
	}
	return inv, nil
}

// History implements api.IronringServer.
func (s *Service) History(_ context.Context, req *api.HistoryRequest) (*api.HistoryReply, error) {
	v := s.cfg.Cluster.Store().View()
	n, err := v.NodeByRef(req.GetNode())
	if err != nil {
		return nil, err
	}
	return &api.HistoryReply{Entries: v.History(n.GetId())}, nil
}

// masked is a copy of a node that may leave the peer.
func masked(n *api.Node) *api.Node {
	if n == nil {
		return nil
	}
	c := proto.CloneOf(n)
	for _, d := range node.Documents {
		*d.Of(c) = seal.MaskDoc(*d.Of(c))
	}
	if c.GetEvidence() != nil {
		c.Evidence.PhoneHomeDigest = nil
	}
	return c
}

func maskedFlow(f *api.Flow) *api.Flow {
	if f == nil {
		return nil
	}
	c := proto.CloneOf(f)
	c.Args, c.PhoneHomeDigest = seal.MaskDoc(c.Args), nil
	return c
}
