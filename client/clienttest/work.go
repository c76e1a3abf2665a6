package clienttest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// verbs is the part of the lifecycle that the fake knows.
var verbs = map[api.State]map[api.Event]api.State{
	api.State_ENROLL:        {api.Event_EV_MANAGE: api.State_VERIFYING},
	api.State_MANAGEABLE:    {api.Event_EV_PROVIDE: api.State_CLEANING, api.Event_EV_INSPECT: api.State_INSPECTING},
	api.State_AVAILABLE:     {api.Event_EV_DEPLOY: api.State_DEPLOYING, api.Event_EV_MANAGE: api.State_MANAGEABLE},
	api.State_ACTIVE:        {api.Event_EV_REBUILD: api.State_DEPLOYING, api.Event_EV_DELETE: api.State_DELETING},
	api.State_DEPLOY_FAILED: {api.Event_EV_DEPLOY: api.State_DEPLOYING, api.Event_EV_DELETE: api.State_DELETING},
	api.State_DEPLOY_WAIT:   {api.Event_EV_ABORT: api.State_DEPLOY_FAILED},
}

var kinds = map[api.Event]api.FlowKind{
	api.Event_EV_MANAGE: api.FlowKind_FLOW_VERIFY, api.Event_EV_PROVIDE: api.FlowKind_FLOW_CLEAN,
	api.Event_EV_INSPECT: api.FlowKind_FLOW_INSPECT, api.Event_EV_DEPLOY: api.FlowKind_FLOW_DEPLOY,
	api.Event_EV_REBUILD: api.FlowKind_FLOW_DEPLOY,
	api.Event_EV_DELETE:  api.FlowKind_FLOW_TEARDOWN,
}

func verbName(e api.Event) string { return strings.ToLower(strings.TrimPrefix(e.String(), "EV_")) }

// Provision implements api.IronringServer.
func (p *Peer) Provision(_ context.Context, req *api.ProvisionRequest) (*api.FlowReply, error) {
	c := p.c
	return once(c, req.GetRequestId(), verbName(req.GetVerb())+" "+req.GetNode(), func() (*api.FlowReply, error) {
		n, err := c.nodeLocked(req.GetNode())
		if err != nil {
			return nil, err
		}
		if err := sameRev(n, req.GetRev()); err != nil {
			return nil, err
		}
		if (req.GetVerb() == api.Event_EV_DELETE || req.GetVerb() == api.Event_EV_REBUILD) && n.Protected {
			return nil, errs.About(errs.Denied, n.Id, "node %s: %s: the node is protected", n.Name, verbName(req.GetVerb()))
		}
		to, ok := verbs[n.State][req.GetVerb()]
		if !ok {
			var allowed []string
			for e := range verbs[n.State] {
				allowed = append(allowed, verbName(e))
			}
			slices.Sort(allowed)
			return nil, errs.About(errs.WrongState, n.Id, "%s is not allowed for node %s in state %s; allowed: %s",
				verbName(req.GetVerb()), n.Name, strings.ToLower(n.State.String()), strings.Join(allowed, ", "))
		}
		c.changeLocked(n, func(n *api.Node, f *api.Flow) {
			n.State, n.LastError = to, ""
			if req.GetVerb() == api.Event_EV_ABORT {
				f.Request = api.Event_EV_ABORT
				f.Status = api.FlowStatus_FLOW_ABORTED
			}
		})
		if req.GetVerb() == api.Event_EV_ABORT {
			return &api.FlowReply{Flow: c.flows[n.Id], Node: masked(n), Index: c.index}, nil
		}
		c.flows[n.Id] = c.flowLocked(n.Id, kinds[req.GetVerb()], req.GetArgs())
		return &api.FlowReply{Flow: c.flows[n.Id], Node: masked(n), Index: c.index}, nil
	})
}

func (c *Cluster) flowLocked(node string, kind api.FlowKind, args []byte) *api.Flow {
	return &api.Flow{Id: fmt.Sprintf("flow-%d", c.index), NodeId: node, Kind: kind, Args: args, Index: c.index, CreatedMs: c.Now(),
		Steps: []*api.Step{{Interface: "power", Name: "power_on"}, {Interface: "agent", Name: "write_image", Waits: true}}}
}

// Power implements api.IronringServer.
func (p *Peer) Power(_ context.Context, req *api.PowerRequest) (*api.FlowReply, error) {
	c := p.c
	return once(c, req.GetRequestId(), "power "+req.GetNode(), func() (*api.FlowReply, error) {
		n, err := c.nodeLocked(req.GetNode())
		if err != nil {
			return nil, err
		}
		if err := sameRev(n, req.GetRev()); err != nil {
			return nil, err
		}
		c.changeLocked(n, func(n *api.Node, _ *api.Flow) { n.TargetPower = req.GetAction() })
		c.flows[n.Id] = c.flowLocked(n.Id, api.FlowKind_FLOW_POWER, nil)
		return &api.FlowReply{Flow: c.flows[n.Id], Node: masked(n), Index: c.index}, nil
	})
}

// GetFlow implements api.IronringServer.
func (p *Peer) GetFlow(ctx context.Context, req *api.GetFlowRequest) (*api.FlowReply, error) {
	rep, err := p.GetNode(ctx, &api.GetNodeRequest{Node: req.GetNode(), Read: req.GetRead()})
	if err != nil {
		return nil, err
	}
	return &api.FlowReply{Flow: rep.Flow, Node: rep.Node, Index: rep.Index}, nil
}

// Explain implements api.IronringServer.
func (p *Peer) Explain(ctx context.Context, req *api.ExplainRequest) (*api.ExplainReply, error) {
	rep, err := p.GetNode(ctx, &api.GetNodeRequest{Node: req.GetNode()})
	if err != nil {
		return nil, err
	}
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	out := &api.ExplainReply{}
	if p.c.explain != nil {
		out = proto.CloneOf(p.c.explain)
	}
	out.Node, out.Flow, out.Index = rep.Node, rep.Flow, rep.Index
	return out, nil
}

// GetInventory implements api.IronringServer.
func (p *Peer) GetInventory(ctx context.Context, req *api.GetInventoryRequest) (*api.Inventory, error) {
	rep, err := p.GetNode(ctx, &api.GetNodeRequest{Node: req.GetNode()})
	if err != nil {
		return nil, err
	}
	return &api.Inventory{NodeId: rep.Node.Id, Json: []byte(`{"cpus":2,"disks":[{"name":"/dev/vda"}]}`), CollectedMs: p.c.Now(), Index: rep.Index}, nil
}

// History implements api.IronringServer.
func (p *Peer) History(ctx context.Context, req *api.HistoryRequest) (*api.HistoryReply, error) {
	rep, err := p.GetNode(ctx, &api.GetNodeRequest{Node: req.GetNode()})
	if err != nil {
		return nil, err
	}
	return &api.HistoryReply{Entries: []*api.History{{Seq: 1, NodeId: rep.Node.Id, AtMs: rep.Node.CreatedMs, Kind: "state", Text: "created",
		State: api.State_ENROLL, Meta: &api.Meta{Principal: "local:0", Source: "unix", Reason: "create node", RequestId: "r-1"}}}}, nil
}

// WatchNode implements api.IronringServer. It plays the node's script.
func (p *Peer) WatchNode(req *api.WatchNodeRequest, s grpc.ServerStreamingServer[api.NodeEvent]) error {
	c := p.c
	c.mu.Lock()
	c.watchers++
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.watchers--
	}()
	sent, first := req.GetAfterIndex(), req.GetAfterIndex() == 0
	for {
		if p.isStale() && !first {
			<-s.Context().Done()
			return s.Context().Err()
		}
		c.mu.Lock()
		n, err := c.nodeLocked(req.GetNode())
		if err != nil && first {
			c.mu.Unlock()
			return err
		}
		if err != nil {
			ev := &api.NodeEvent{Deleted: true, Index: c.index}
			c.mu.Unlock()
			return s.Send(ev)
		}
		var ev *api.NodeEvent
		switch script := c.scripts[n.Id]; {
		case first || n.Index > sent:
		case len(script) > 0:
			c.scripts[n.Id] = script[1:]
			if c.flows[n.Id] == nil {
				c.flows[n.Id] = &api.Flow{NodeId: n.Id}
			}
			// A step that gives progress is asked with copies: it changes nothing.
			if progress := script[0](proto.CloneOf(n), proto.CloneOf(c.flows[n.Id])); progress != nil {
				ev = &api.NodeEvent{Progress: progress}
			} else {
				c.changeLocked(n, func(n *api.Node, f *api.Flow) { script[0](n, f) })
			}
		default:
			changed := c.changed
			c.mu.Unlock()
			select {
			case <-changed:
				continue
			case <-s.Context().Done():
				return s.Context().Err()
			}
		}
		if ev == nil {
			ev = &api.NodeEvent{Node: masked(n), Flow: cloneFlow(c.flows[n.Id]), Index: n.Index}
			sent = n.Index
		}
		first = false
		c.mu.Unlock()
		if err := s.Send(ev); err != nil {
			return err
		}
	}
}

// Journal implements api.IronringServer.
func (p *Peer) Journal(req *api.JournalRequest, s grpc.ServerStreamingServer[api.JournalEvent]) error {
	c := p.c
	for next := 0; ; {
		c.mu.Lock()
		if _, err := c.nodeLocked(req.GetNode()); err != nil {
			c.mu.Unlock()
			return err
		}
		events := slices.Clone(c.journal[next:])
		next = len(c.journal)
		changed := c.changed
		c.mu.Unlock()
		for _, ev := range events {
			if ev.GetAtMs() < req.GetSinceMs() || len(req.GetKinds()) > 0 && !slices.Contains(req.GetKinds(), ev.GetKind()) {
				continue
			}
			if err := s.Send(ev); err != nil {
				return err
			}
		}
		if !req.GetFollow() {
			return nil
		}
		select {
		case <-changed:
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
}
