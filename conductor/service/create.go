package service

import (
	"context"

	"github.com/google/uuid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rpc"
	"github.com/ironring/ironring/node"
)

// maxCreations is how many nodes one call may create.
const maxCreations = 256

// CreateNode implements api.IronringServer.
func (s *Service) CreateNode(ctx context.Context, req *api.CreateNodeRequest) (*api.NodeReply, error) {
	cmd, err := s.creation(ctx, req)
	if err != nil {
		return nil, err
	}
	res, err := s.cfg.Cluster.Propose(ctx, cmd)
	if err != nil {
		return nil, err
	}
	return &api.NodeReply{Node: masked(s.cfg.Cluster.Store().View().Node(created(res, cmd))), Index: res.GetIndex()}, nil
}

// CreateNodes implements api.IronringServer. A request that this peer cannot
// bring to any leader fails as a whole, so that the client asks another peer.
func (s *Service) CreateNodes(ctx context.Context, req *api.CreateNodesRequest) (*api.CreateNodesReply, error) {
	if n := len(req.GetNodes()); n > maxCreations {
		return nil, errs.About(errs.Invalid, "nodes", "%d nodes in one call: at most %d are allowed", n, maxCreations)
	}
	reply := &api.CreateNodesReply{Results: make([]*api.CreateNodeResult, len(req.GetNodes()))}
	var cmds []*api.Command
	var nth []int // which of the request
	for i, r := range req.GetNodes() {
		cmd, err := s.creation(ctx, r)
		if err != nil {
			reply.Results[i] = notCreated(err)
			continue
		}
		cmds, nth = append(cmds, cmd), append(nth, i)
	}
	if len(cmds) == 0 {
		return reply, nil
	}
	out := s.cfg.Cluster.ProposeAll(ctx, cmds)
	v := s.cfg.Cluster.Store().View()
	unreached := 0
	for k, o := range out {
		i := nth[k]
		if o.Err != nil {
			reply.Results[i] = notCreated(o.Err)
			if noLeader(o.Err) {
				unreached++
			}
			continue
		}
		n := v.Node(created(o.Result, cmds[k]))
		reply.Index = max(reply.Index, o.Result.GetIndex())
		reply.Results[i] = &api.CreateNodeResult{Result: &api.CreateNodeResult_Created{Created: &api.NodeReply{Index: o.Result.GetIndex(), Node: &api.Node{
			Id: n.GetId(), Name: n.GetName(), Rev: n.GetRev(), State: n.GetState(), Assigned: n.GetAssigned(), Driver: n.GetDriver(),
		}}}}
	}
	if unreached == len(req.GetNodes()) {
		return nil, out[0].Err
	}
	return reply, nil
}

// noLeader says of an error that nothing was done because there was no leader.
func noLeader(err error) bool {
	switch errs.KindOf(err) {
	case errs.NoQuorum, errs.NotLeader, errs.Unreachable:
		return true
	}
	return false
}

func notCreated(err error) *api.CreateNodeResult {
	return &api.CreateNodeResult{Result: &api.CreateNodeResult_Failure{Failure: rpc.ToFailure(err)}}
}

// creation is the command that creates a node with its ports. What can be said
// without the state is checked here, and the secrets are sealed.
func (s *Service) creation(ctx context.Context, req *api.CreateNodeRequest) (*api.Command, error) {
	in := req.GetNode()
	n := &api.Node{Id: in.GetId()}
	if err := node.Apply(n, node.SpecFields, in); err != nil {
		return nil, err
	}
	if n.Id == "" {
		n.Id = newID()
	}
	if err := s.prepare(n, node.SpecFields); err != nil {
		return nil, err
	}
	if err := checkHints(n, "properties", "instance_info"); err != nil {
		return nil, err
	}
	ops := []*api.Op{{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: n}}}}
	seen := map[string]bool{}
	for _, p := range req.GetPorts() {
		port, err := s.newPort(n.Id, p)
		if err != nil {
			return nil, err
		}
		if seen[port.GetAddress()] {
			return nil, errs.About(errs.Invalid, port.GetAddress(), "the MAC %s is given twice", port.GetAddress())
		}
		seen[port.GetAddress()] = true
		ops = append(ops, &api.Op{Op: &api.Op_PortCreate{PortCreate: &api.PortCreate{Port: port}}})
	}
	return s.command(ctx, req.GetRequestId(), "create node", ops...), nil
}

// created is the id of the node that a creation made. A repeated request gets
// the first answer: its node, not that of the repeated command.
func created(res *api.Result, cmd *api.Command) string {
	if ops := res.GetOps(); len(ops) > 0 && ops[0].GetId() != "" {
		return ops[0].GetId()
	}
	return cmd.GetOps()[0].GetNodeCreate().GetNode().GetId()
}

// newID is an id for a record that has none. Ids of one time stand together in
// the state, whose copies on write are then of few places.
func newID() string {
	// V7 never fails with the standard source of randomness.
	return uuid.Must(uuid.NewV7()).String()
}
