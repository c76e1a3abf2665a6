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
	// What of a lag is worth a line: so long by the cluster's clock, of which the
	// leader commits a tick every second, or so many entries.
	lagTime  = 5 * time.Second
	lagLimit = 2_000
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
	k := v.Keys()
	s.Keys = &api.KeysStatus{Generation: k.GetGeneration(), DataPrimary: k.GetDataPrimary(), DataKeys: k.GetDataKeys(), Due: k.GetDue(), RotatedMs: k.GetRotatedMs()}
	s.Problems = problems(s, int(v.Settings().GetMaxVoters()))
	if len(s.Peers) == 0 { // nothing applied yet: this may be why
		if d := diskProblem(c.storage.disk.status()); d != "" {
			s.Problems = append(s.Problems, c.ID()+": "+d)
		}
	}
	stalled := c.stalled()
	if stalled != nil {
		s.Problems = append(s.Problems, stalled.Error())
	}
	s.Notes = append(notes(s), FormNotes(v)...)
	switch {
	case leader == "", stalled != nil, provenLoss(s), !hasQuorum(s) && c.LeaderContact() > quorumProof:
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
	last, ticks := make([]uint64, len(s.Peers)), make([]uint64, len(s.Peers))
	for i, p := range s.Peers {
		wg.Go(func() {
			info, err := c.probe(ctx, p.GetMember().GetId())
			p.Alive = err == nil
			if err == nil {
				p.AppliedIndex, last[i], ticks[i] = info.GetAppliedIndex(), info.GetLastIndex(), info.GetTicks()
				p.Disk, p.KeysGeneration = info.GetDisk(), info.GetKeysGeneration()
			}
		})
	}
	wg.Wait()
	for i, p := range s.Peers {
		if !p.GetLeader() {
			continue
		}
		for j, q := range s.Peers {
			if q.GetAppliedIndex() > 0 && last[i] > q.GetAppliedIndex() {
				q.Lag = last[i] - q.GetAppliedIndex()
			}
			if ticks[j] > 0 && ticks[i] > ticks[j] {
				q.LagMs = ticks[i] - ticks[j]
			}
		}
	}
}

// inability is why a peer that should vote cannot help to commit: "" when it
// can. Who does not answer may be slow only, so that is told apart.
func inability(p *api.PeerStatus) (reason string, silent bool) {
	switch {
	case !p.GetAlive():
		return "does not answer", true
	case p.GetDisk().GetFull():
		return "its disk is full", false
	case isBehind(p) && !p.GetLeader():
		return "too far behind", false
	}
	return "", false
}

func isBehind(p *api.PeerStatus) bool {
	return time.Duration(p.GetLagMs())*time.Millisecond >= lagTime || p.GetLag() > lagLimit
}

// votersOf are the voters that can store what the leader sends, and the others
// with the reason.
func votersOf(s *api.ClusterStatusReply) (able, unable []string) {
	for _, p := range s.GetPeers() {
		if !p.GetVoter() {
			continue
		}
		switch reason, silent := inability(p); {
		case reason == "":
			able = append(able, p.GetMember().GetId())
		case silent:
			unable = append(unable, p.GetMember().GetId())
		default:
			unable = append(unable, p.GetMember().GetId()+" ("+reason+")")
		}
	}
	sort.Strings(able)
	sort.Strings(unable)
	return able, unable
}

func hasQuorum(s *api.ClusterStatusReply) bool {
	able, unable := votersOf(s)
	return len(able) > (len(able)+len(unable))/2
}

// provenLoss reports whether too few voters can store, and one of them said so
// itself: that is no matter of a slow answer.
func provenLoss(s *api.ClusterStatusReply) bool {
	if hasQuorum(s) {
		return false
	}
	for _, p := range s.GetPeers() {
		if reason, silent := inability(p); p.GetVoter() && reason != "" && !silent {
			return true
		}
	}
	return false
}

// nextFailure says which loss would cost the quorum next.
func nextFailure(s *api.ClusterStatusReply) string {
	able, unable := votersOf(s)
	all := len(able) + len(unable)
	spare := len(able) - (all/2 + 1)
	switch {
	case all == 0:
		return "no voters are known here"
	case spare < 0:
		return fmt.Sprintf("the quorum is lost: %d of %d voters can store changes, not %s", len(able), all, strings.Join(unable, ", "))
	case s.GetLeader() == "":
		return fmt.Sprintf("%d of %d voters answer, but none leads", len(able), all)
	case spare == 0 && all == 1:
		return fmt.Sprintf("the loss of %s, the only voter", able[0])
	case spare == 0:
		return fmt.Sprintf("the loss of any one of %s", strings.Join(able, ", "))
	}
	return fmt.Sprintf("the loss of any %d of %s", spare+1, strings.Join(able, ", "))
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
		if d := diskProblem(p.GetDisk()); d != "" {
			out = append(out, id+": "+d)
		}
		if isBehind(p) {
			behind := time.Duration(p.GetLagMs()) * time.Millisecond
			out = append(out, fmt.Sprintf("peer %s is %v and %d entries behind", id, behind.Round(time.Second), p.GetLag()))
		}
		if have := p.GetKeysGeneration(); have > 0 && have < s.GetKeys().GetGeneration() {
			out = append(out, fmt.Sprintf("peer %s has the cluster's keys of generation %d, not of %d", id, have, s.GetKeys().GetGeneration()))
		}
		if p.GetLease() == "fenced" {
			out = append(out, fmt.Sprintf("conductor %s lost its lease and has no new one", id))
		}
		if p.GetMember().GetPhase() != api.Member_READY {
			out = append(out, fmt.Sprintf("peer %s is %s", id, strings.ToLower(p.GetMember().GetPhase().String())))
		}
	}
	if want := min(maxVoters, len(s.GetPeers())); voters < want {
		out = append(out, fmt.Sprintf("%d of %d voters so far: %s", voters, want, promoting(s)))
	}
	if n := s.GetUnassigned(); n > 0 {
		out = append(out, fmt.Sprintf("%d nodes have no owner", n))
	}
	return out
}

// promoting says what stands between peers without a vote and their vote.
func promoting(s *api.ClusterStatusReply) string {
	var out []string
	for _, p := range s.GetPeers() {
		id := p.GetMember().GetId()
		switch {
		case p.GetVoter():
		case !p.GetAlive():
			out = append(out, id+" does not answer")
		case p.GetLag() > duties.PromoteLag:
			out = append(out, fmt.Sprintf("%s is catching up, %d entries behind", id, p.GetLag()))
		default:
			out = append(out, id+" gets its vote in a moment")
		}
	}
	return strings.Join(out, ", ")
}

// notes are what is under way.
func notes(s *api.ClusterStatusReply) []string {
	k := s.GetKeys()
	switch {
	case k.GetDue() != "":
		return []string{"new keys are being made: " + k.GetDue()}
	case len(k.GetDataKeys()) > 1:
		return []string{fmt.Sprintf("secrets are being brought under data key %s; %d older keys are kept until that is done", k.GetDataPrimary(), len(k.GetDataKeys())-1)}
	}
	return nil
}
