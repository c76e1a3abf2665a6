package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster/duties"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rpc"
)

// configTimeout bounds the wait until Raft takes a change of its configuration.
const configTimeout = 5 * time.Second

// voterControl lets the leader's duties change the Raft configuration.
type voterControl struct {
	c *Cluster
	r *raft.Raft
}

var _ duties.Voters = voterControl{}

// Servers implements duties.Voters.
func (v voterControl) Servers() ([]duties.Server, error) {
	f := v.r.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, err
	}
	var out []duties.Server
	for _, s := range f.Configuration().Servers {
		out = append(out, duties.Server{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return out, nil
}

// LastIndex implements duties.Voters.
func (v voterControl) LastIndex() uint64 { return v.r.LastIndex() }

// AddNonvoter implements duties.Voters.
func (v voterControl) AddNonvoter(id, address string) error {
	return v.r.AddNonvoter(raft.ServerID(id), raft.ServerAddress(address), 0, configTimeout).Error()
}

// AddVoter implements duties.Voters.
func (v voterControl) AddVoter(id, address string) error {
	return v.r.AddVoter(raft.ServerID(id), raft.ServerAddress(address), 0, configTimeout).Error()
}

// Demote implements duties.Voters.
func (v voterControl) Demote(id string) error {
	return v.r.DemoteVoter(raft.ServerID(id), 0, configTimeout).Error()
}

// Remove implements duties.Voters.
func (v voterControl) Remove(id string) error {
	return v.r.RemoveServer(raft.ServerID(id), 0, configTimeout).Error()
}

// removeServer takes a server out of the configuration; this peer must lead.
func (c *Cluster) removeServer(ctx context.Context, id string) (uint64, error) {
	r := c.raft.Load()
	if r == nil || r.State() != raft.Leader {
		return 0, errs.New(errs.NotLeader, "this peer does not lead")
	}
	if id == c.ID() {
		return 0, errs.New(errs.WrongState, "a leader cannot remove itself: it hands over first")
	}
	f := r.RemoveServer(raft.ServerID(id), 0, configTimeout)
	if err := f.Error(); err != nil {
		return 0, commitError(err)
	}
	return f.Index(), nil
}

// probe asks a member how far it is.
func (c *Cluster) probe(ctx context.Context, id string) (*api.PeerInfoReply, error) {
	if id == c.ID() {
		return c.peerInfo(), nil
	}
	cc, err := c.PeerConn(id)
	if err != nil {
		return nil, err
	}
	return api.NewClusterClient(cc).PeerInfo(ctx, &api.PeerInfoRequest{})
}

// proposeHere commits a command of the leader's duties through this peer and
// nobody else: it is only valid in this term.
func (c *Cluster) proposeHere(ctx context.Context, cmd *api.Command) (*api.Result, error) {
	raw, err := c.marshal(cmd)
	if err != nil {
		return nil, err
	}
	res, err := c.submit(ctx, command{raw, newNodes(cmd)})
	if err != nil {
		return nil, err
	}
	return res, rpc.FromFailure(res.GetFailure())
}
