package clienttest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rpc"
	"github.com/ironring/ironring/internal/seal"
)

// once gives a repeated request the answer of the first, and notes writes
// that were done.
func once[Rep proto.Message](c *Cluster, id, what string, do func() (Rep, error)) (Rep, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if rep, ok := c.answers[id]; ok && id != "" {
		return rep.(Rep), nil
	}
	c.index++
	rep, err := do()
	if err != nil {
		var none Rep
		return none, err
	}
	rep = proto.Clone(rep).(Rep) // records change later
	if id != "" {
		c.answers[id] = rep
	}
	c.audit = append(c.audit, what)
	c.notifyLocked()
	return rep, nil
}

// masked is a node as clients see it.
func masked(n *api.Node) *api.Node {
	out := proto.CloneOf(n)
	for _, doc := range []*[]byte{&out.DriverInfo, &out.Properties, &out.Extra, &out.InstanceInfo} {
		var v any
		dec := json.NewDecoder(bytes.NewReader(*doc))
		dec.UseNumber()
		if dec.Decode(&v) == nil {
			*doc, _ = json.Marshal(mask(nil, v)) // was JSON
		}
	}
	return out
}

func mask(path []string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = mask(append(slices.Clip(path), k), v[k])
		}
	case []any:
		for i := range v {
			v[i] = mask(path, v[i])
		}
	case string, json.Number:
		if seal.SecretPath(path) {
			return seal.Mask
		}
	}
	return v
}

// sameRev refuses a write that was meant for another revision of a node.
func sameRev(n *api.Node, rev uint64) error {
	if rev != 0 && rev != n.GetRev() {
		return errs.About(errs.Conflict, n.GetId(), "node %s has revision %d, not %d", n.GetName(), n.GetRev(), rev)
	}
	return nil
}

var validMAC = regexp.MustCompile(`^([0-9a-f]{2}:){5}[0-9a-f]{2}$`)

// CreateNode implements api.IronringServer.
func (p *Peer) CreateNode(_ context.Context, req *api.CreateNodeRequest) (*api.NodeReply, error) {
	c := p.c
	return once(c, req.GetRequestId(), "create node "+req.GetNode().GetName(), func() (*api.NodeReply, error) {
		n := proto.CloneOf(req.GetNode())
		if !slices.Contains([]string{"ipmi", "redfish", "fake"}, n.Driver) {
			return nil, errs.About(errs.Invalid, "driver", "no driver %q: there are fake, ipmi, redfish", n.Driver)
		}
		if n.Name != "" && c.findLocked(n.Name) != nil {
			return nil, errs.About(errs.Exists, n.Name, "a node named %q is there already", n.Name)
		}
		if n.Id == "" {
			n.Id = fmt.Sprintf("00000000-0000-7000-8000-%012d", len(c.nodes)+1)
		}
		n.Rev, n.Index, n.State = 1, c.index, api.State_ENROLL
		n.CreatedMs, n.UpdatedMs, n.StateSinceMs = c.Now(), c.Now(), c.Now()
		n.Assigned = "p1"
		for _, port := range req.GetPorts() {
			if _, err := c.addPortLocked(n.Id, port); err != nil {
				return nil, err
			}
		}
		c.nodes = append(c.nodes, n)
		return &api.NodeReply{Node: masked(n), Index: c.index}, nil
	})
}

// CreateNodes implements api.IronringServer.
func (p *Peer) CreateNodes(ctx context.Context, req *api.CreateNodesRequest) (*api.CreateNodesReply, error) {
	if n := len(req.GetNodes()); n > 256 {
		return nil, errs.About(errs.Invalid, "nodes", "%d nodes in one call: at most 256 are allowed", n)
	}
	out := &api.CreateNodesReply{}
	for _, one := range req.GetNodes() {
		rep, err := p.CreateNode(ctx, one)
		if err != nil {
			out.Results = append(out.Results, &api.CreateNodeResult{Result: &api.CreateNodeResult_Failure{Failure: rpc.ToFailure(err)}})
			continue
		}
		out.Index = max(out.Index, rep.GetIndex())
		n := rep.GetNode()
		out.Results = append(out.Results, &api.CreateNodeResult{Result: &api.CreateNodeResult_Created{Created: &api.NodeReply{Index: rep.GetIndex(), Node: &api.Node{
			Id: n.GetId(), Name: n.GetName(), Rev: n.GetRev(), State: n.GetState(), Assigned: n.GetAssigned(), Driver: n.GetDriver(),
		}}}})
	}
	return out, nil
}

// GetNode implements api.IronringServer.
func (p *Peer) GetNode(_ context.Context, req *api.GetNodeRequest) (*api.NodeReply, error) {
	if err := p.caughtUp(req.GetRead()); err != nil {
		return nil, err
	}
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	n, err := p.c.nodeLocked(req.GetNode())
	if err != nil {
		return nil, err
	}
	return &api.NodeReply{Node: masked(n), Flow: cloneFlow(p.c.flows[n.Id]), Index: p.c.index}, nil
}

// cloneFlow hides the empty flow that Change makes.
func cloneFlow(f *api.Flow) *api.Flow {
	if f.GetId() == "" {
		return nil
	}
	return proto.CloneOf(f)
}

// ListNodes implements api.IronringServer.
func (p *Peer) ListNodes(_ context.Context, req *api.ListNodesRequest) (*api.ListNodesReply, error) {
	if err := p.caughtUp(req.GetRead()); err != nil {
		return nil, err
	}
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	rep := &api.ListNodesReply{Index: p.c.index, Stale: p.isStale()}
	for _, n := range p.c.nodes {
		if n.Id <= req.GetMarker() ||
			req.GetState() != api.State_STATE_UNSPECIFIED && n.State != req.GetState() ||
			req.GetOwner() != "" && n.Assigned != req.GetOwner() ||
			req.GetDriver() != "" && n.Driver != req.GetDriver() ||
			req.GetGroup() != "" && n.ConductorGroup != req.GetGroup() {
			continue
		}
		if l := int(req.GetLimit()); l > 0 && len(rep.Nodes) == l {
			rep.Next = rep.Nodes[l-1].Id
			break
		}
		rep.Nodes = append(rep.Nodes, masked(n))
	}
	return rep, nil
}

// UpdateNode implements api.IronringServer: it knows the fields that tests
// change.
func (p *Peer) UpdateNode(_ context.Context, req *api.UpdateNodeRequest) (*api.NodeReply, error) {
	c := p.c
	return once(c, req.GetRequestId(), "update node "+req.GetNode(), func() (*api.NodeReply, error) {
		n, err := c.nodeLocked(req.GetNode())
		if err != nil {
			return nil, err
		}
		if err := sameRev(n, req.GetRev()); err != nil {
			return nil, err
		}
		for field, value := range req.GetSet() {
			if err := setField(n, field, value); err != nil {
				return nil, err
			}
		}
		for _, field := range req.GetUnset() {
			if err := setField(n, field, "null"); err != nil {
				return nil, err
			}
		}
		n.Rev++
		n.Index = c.index
		return &api.NodeReply{Node: masked(n), Index: c.index}, nil
	})
}

// setPath sets, or for null removes, one value of a document or all of it.
func setPath(doc *[]byte, path string, deep bool, value string) error {
	if !deep {
		*doc = []byte(value)
		return nil
	}
	root := map[string]any{}
	if len(*doc) > 0 {
		if err := json.Unmarshal(*doc, &root); err != nil {
			return err
		}
	}
	parts, m := strings.Split(path, "/"), root
	for _, k := range parts[:len(parts)-1] {
		inner, ok := m[k].(map[string]any)
		if !ok {
			inner = map[string]any{}
			m[k] = inner
		}
		m = inner
	}
	if m[parts[len(parts)-1]] = json.RawMessage(value); value == "null" {
		delete(m, parts[len(parts)-1])
	}
	var err error
	*doc, err = json.Marshal(root)
	return err
}

func setField(n *api.Node, field, value string) error {
	doc, path, deep := strings.Cut(field, "/")
	docs := map[string]*[]byte{"driver_info": &n.DriverInfo, "properties": &n.Properties, "extra": &n.Extra, "instance_info": &n.InstanceInfo}
	if d := docs[doc]; d != nil {
		return setPath(d, path, deep, value)
	}
	one := map[string]any{"name": &n.Name, "driver": &n.Driver, "description": &n.Description, "maintenance": &n.Maintenance,
		"maintenance_reason": &n.MaintenanceReason, "protected": &n.Protected, "enforce_power": &n.EnforcePower,
		"conductor_group": &n.ConductorGroup, "resource_class": &n.ResourceClass}
	to, ok := one[field]
	if !ok {
		return errs.About(errs.Invalid, field, "%q is not a field that can be set", field)
	}
	if err := json.Unmarshal([]byte(value), to); err != nil {
		return errs.About(errs.Invalid, field, "%s: %v", field, err)
	}
	return nil
}

// DeleteNode implements api.IronringServer.
func (p *Peer) DeleteNode(_ context.Context, req *api.DeleteNodeRequest) (*api.WriteReply, error) {
	c := p.c
	return once(c, req.GetRequestId(), "delete node "+req.GetNode(), func() (*api.WriteReply, error) {
		n, err := c.nodeLocked(req.GetNode())
		if err != nil {
			return nil, err
		}
		if err := sameRev(n, req.GetRev()); err != nil {
			return nil, err
		}
		if n.Protected {
			return nil, errs.About(errs.Denied, n.Id, "delete node %s: it is protected", n.Name)
		}
		c.nodes = slices.DeleteFunc(c.nodes, func(o *api.Node) bool { return o == n })
		c.ports = slices.DeleteFunc(c.ports, func(o *api.Port) bool { return o.NodeId == n.Id })
		return &api.WriteReply{Index: c.index}, nil
	})
}
