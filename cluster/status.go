package cluster

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster/duties"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/node"
	"github.com/ironring/ironring/ring"
)

const (
	probeTimeout = 500 * time.Millisecond
	// quorumProof: a leader heard of so recently has a majority, even if peers
	// are too slow to answer us.
	quorumProof = 2 * time.Second
	// lagLimit entries behind the leader are a problem worth a line.
	lagLimit = 10_000
)

// Status is the cluster as this peer sees it. It answers without a quorum too.
func (c *Cluster) Status(ctx context.Context) *api.ClusterStatusReply {
	v := c.store.View()
	leader, term := c.Leader()
	s := &api.ClusterStatusReply{
		ClusterId: c.ClusterID(), Leader: leader, Term: term, Index: v.Index(), AnsweredBy: c.ID(),
		Nodes: uint64(v.NodeCount()), NodesByState: map[string]uint64{},
	}
	owned := map[string]uint64{}
	for n := range v.Nodes() {
		owned[n.GetAssigned()]++
		s.NodesByState[node.StateName(n.GetState())]++
	}
	s.Unassigned = owned[""]
	s.Peers = c.peerStatus(v, owned)
	c.progress(ctx, s)
	s.NextFailure = nextFailure(s)
	s.Problems = problems(s, int(v.Settings().GetMaxVoters()))
	switch {
	case leader == "" || !hasQuorum(s) && c.LeaderContact() > quorumProof:
		s.Health = api.ClusterStatusReply_NO_QUORUM
	case len(s.Problems) > 0:
		s.Health = api.ClusterStatusReply_DEGRADED
	}
	return s
}

// peerStatus is a line for each member, by id.
func (c *Cluster) peerStatus(v *fsm.View, owned map[string]uint64) []*api.PeerStatus {
	leader, _ := c.Leader()
	voter := map[string]bool{}
	for _, s := range c.servers() {
		voter[string(s.ID)] = s.Suffrage == raft.Voter
	}
	locks := map[string]uint64{}
	for k := range v.Locks() {
		locks[k.GetConductor()]++
	}
	shares := ring.Shares(duties.Members(v, nil, nil))
	var out []*api.PeerStatus
	for _, m := range v.Members() {
		if gone(m) {
			continue
		}
		id := m.GetId()
		out = append(out, &api.PeerStatus{
			Member: m, Voter: voter[id], Leader: id == leader, Alive: c.Alive(id),
			Nodes: owned[id], Locks: locks[id], RingShare: shares[id], Lease: leaseState(v, id),
		})
	}
	return out
}

// leaseState is the state of a member's newest lease.
func leaseState(v *fsm.View, id string) string {
	if v.LiveLease(id) != nil {
		return "live"
	}
	var last *api.Lease
	for l := range v.Leases() {
		if l.GetConductor() == id && l.GetIndex() >= last.GetIndex() {
			last = l
		}
	}
	if last == nil {
		return "none"
	}
	return strings.ToLower(last.GetState().String())
}

// progress asks each peer how far it is; who answers is alive.
func (c *Cluster) progress(ctx context.Context, s *api.ClusterStatusReply) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var wg sync.WaitGroup
	last := make([]uint64, len(s.Peers))
	for i, p := range s.Peers {
		wg.Go(func() {
			info, err := c.probe(ctx, p.GetMember().GetId())
			p.Alive = err == nil
			if err == nil {
				p.AppliedIndex, last[i] = info.GetAppliedIndex(), info.GetLastIndex()
			}
		})
	}
	wg.Wait()
	for i, p := range s.Peers {
		if !p.GetLeader() {
			continue
		}
		for _, q := range s.Peers {
			if q.GetAppliedIndex() > 0 && last[i] > q.GetAppliedIndex() {
				q.Lag = last[i] - q.GetAppliedIndex()
			}
		}
	}
}

func votersOf(s *api.ClusterStatusReply) (alive, dead []string) {
	for _, p := range s.GetPeers() {
		switch {
		case !p.GetVoter():
		case p.GetAlive():
			alive = append(alive, p.GetMember().GetId())
		default:
			dead = append(dead, p.GetMember().GetId())
		}
	}
	sort.Strings(alive)
	sort.Strings(dead)
	return alive, dead
}

func hasQuorum(s *api.ClusterStatusReply) bool {
	alive, dead := votersOf(s)
	return len(alive) > (len(alive)+len(dead))/2
}

// nextFailure says which loss would cost the quorum next.
func nextFailure(s *api.ClusterStatusReply) string {
	alive, dead := votersOf(s)
	all := len(alive) + len(dead)
	spare := len(alive) - (all/2 + 1)
	switch {
	case all == 0:
		return "no voters are known here"
	case spare < 0 || s.GetLeader() == "":
		return fmt.Sprintf("the quorum is lost: %d of %d voters are reached (%s are not)", len(alive), all, orElse(strings.Join(dead, ", "), "none"))
	case spare == 0 && all == 1:
		return fmt.Sprintf("the loss of %s, the only voter", alive[0])
	case spare == 0:
		return fmt.Sprintf("the loss of any one of %s", strings.Join(alive, ", "))
	}
	return fmt.Sprintf("the loss of any %d of %s", spare+1, strings.Join(alive, ", "))
}

// problems are what an operator should look at, one line each.
func problems(s *api.ClusterStatusReply, maxVoters int) []string {
	var out []string
	if s.GetLeader() == "" {
		out = append(out, "no leader is known to "+s.GetAnsweredBy())
	}
	voters := 0
	for _, p := range s.GetPeers() {
		id := p.GetMember().GetId()
		if p.GetVoter() {
			voters++
		}
		if !p.GetAlive() {
			out = append(out, fmt.Sprintf("peer %s does not answer", id))
			continue
		}
		if p.GetLag() > lagLimit {
			out = append(out, fmt.Sprintf("peer %s is %d entries behind", id, p.GetLag()))
		}
		if p.GetLease() == "fenced" {
			out = append(out, fmt.Sprintf("conductor %s lost its lease and has no new one", id))
		}
		if p.GetMember().GetPhase() != api.Member_READY {
			out = append(out, fmt.Sprintf("peer %s is %s", id, strings.ToLower(p.GetMember().GetPhase().String())))
		}
	}
	if want := min(maxVoters, len(s.GetPeers())); voters < want {
		out = append(out, fmt.Sprintf("%d of %d voters so far", voters, want))
	}
	if n := s.GetUnassigned(); n > 0 {
		out = append(out, fmt.Sprintf("%d nodes have no owner", n))
	}
	return out
}
