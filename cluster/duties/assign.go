package duties

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/ring"
)

// Bounds of assignments.
const (
	maxAssign       = 500 // nodes in one command; the log allows 1000
	assignSettle    = 50 * time.Millisecond
	assignPeriod    = time.Second
	voluntaryPeriod = 10 * time.Second
	voluntaryLeast  = 50
	// flapLimit lost leases within flapWindow: no idle nodes for flapWindow.
	flapLimit  = 3
	flapWindow = 10 * time.Minute
)

// assigner gives nodes to owners. It plans when members, leases or the needs
// of a node change, and every ten seconds for the moves that only balance.
type assigner struct {
	Config
	changes   feed
	absent    map[string]time.Duration   // members without a live lease: since when
	losses    map[string][]time.Duration // fenced leases of each member
	fenced    map[string]bool            // leases counted in losses
	last      []ring.Member              // of the last plan
	voluntary time.Duration              // when balance moves were last made
	chunk     int
}

func newAssigner(cfg Config) *assigner {
	return &assigner{
		Config: cfg, changes: feed{store: cfg.Store}, absent: map[string]time.Duration{},
		losses: map[string][]time.Duration{}, fenced: map[string]bool{}, chunk: maxAssign,
		voluntary: cfg.Clock.Elapsed(),
	}
}

// run works until the context ends.
func (a *assigner) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		_, _, more, _ := a.Store.Changes(a.changes.after)
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-more:
			// Let a burst of changes become one plan.
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(assignSettle):
			}
		}
		if err := a.round(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, errs.NotLeader) {
			a.Logger.Warn("could not assign nodes, will try again", "err", err)
		}
		timer.Reset(assignPeriod)
	}
}

func (a *assigner) round(ctx context.Context) error {
	v, changes, all := a.changes.next()
	if v.Settings() == nil || ring.CheckVersion(v.Settings().GetRingVersion()) != nil {
		return nil
	}
	now := a.Clock.Elapsed()
	members := a.members(v, now)
	budget := 0
	if now-a.voluntary >= voluntaryPeriod {
		budget, a.voluntary = max(voluntaryLeast, v.NodeCount()/50), now
	}
	if !all && budget == 0 && same(members, a.last) && !needOwner(v, changes) {
		return nil
	}
	a.last = members
	moves := ring.Plan(ring.Input{
		Version: v.Settings().GetRingVersion(), Members: members, Nodes: ringNodes(v), MaxVoluntary: budget,
	})
	return a.commit(ctx, v, moves)
}

// commit writes the moves. A node that was locked meanwhile makes its whole
// command fail: then the rest goes in smaller ones, at last one by one.
func (a *assigner) commit(ctx context.Context, v *fsm.View, moves []ring.Move) error {
	for len(moves) > 0 {
		some := moves[:min(len(moves), a.chunk)]
		var list []*api.Assignment
		for _, m := range some {
			list = append(list, &api.Assignment{
				NodeId: m.Node, Conductor: m.To, Epoch: v.Node(m.Node).GetAssignEpoch() + 1, Reason: m.Reason,
			})
		}
		err := a.propose(ctx, "assignment", &api.Op{Op: &api.Op_Assign{Assign: &api.Assign{Nodes: list, Term: a.Term}}})
		switch {
		case err == nil:
			a.Logger.Debug("assigned nodes", "nodes", len(some), "first", some[0].Node, "to", some[0].To, "reason", some[0].Reason)
			a.chunk = min(a.chunk*2, maxAssign)
		case overtaken(err) && len(some) > 1:
			a.chunk = max(len(some)/8, 1)
			continue
		case !overtaken(err):
			return err
		}
		moves = moves[len(some):]
	}
	return nil
}

// members is the ring's view, with what this leader has seen itself.
func (a *assigner) members(v *fsm.View, now time.Duration) []ring.Member {
	fenced := map[string]bool{}
	for l := range v.Leases() {
		if l.GetState() != api.Lease_FENCED {
			continue
		}
		fenced[l.GetId()] = true
		if a.last != nil && !a.fenced[l.GetId()] { // older ones are not this leader's to judge
			a.losses[l.GetConductor()] = append(a.losses[l.GetConductor()], now)
		}
	}
	a.fenced = fenced
	for _, m := range v.Members() {
		if v.LiveLease(m.GetId()) != nil {
			delete(a.absent, m.GetId())
		} else if _, known := a.absent[m.GetId()]; !known {
			a.absent[m.GetId()] = now
		}
	}
	hold := ms(v.Settings().GetIdleMoveMs())
	lostLong := func(id string) bool { return now-a.absent[id] >= hold }
	return Members(v, lostLong, func(id string) bool { return a.flaps(id, now) })
}

// flaps reports whether a member lost too many leases of late.
func (a *assigner) flaps(id string, now time.Duration) bool {
	losses := a.losses[id]
	for len(losses) > 0 && now-losses[0] > flapWindow {
		losses = losses[1:]
	}
	a.losses[id] = losses
	return len(losses) >= flapLimit
}

// needOwner reports whether one of the changes is about a node that lacks a
// live owner, or about work on such a node.
func needOwner(v *fsm.View, changes []fsm.Change) bool {
	reach := ReachOf(v)
	for _, ch := range changes {
		switch ch.Table {
		case fsm.TableNodes, fsm.TableFlows, fsm.TableLocks:
		default:
			continue
		}
		n := v.Node(ch.Key)
		if n == nil {
			continue
		}
		if n.GetAssigned() == "" && n.GetUnassignedReason() == "" {
			return true
		}
		if v.Lock(ch.Key) == nil && reach.HandsOver(n) {
			return true
		}
		if m := v.Member(n.GetAssigned()); m != nil && (m.GetGroup() != n.GetConductorGroup() || !slices.Contains(m.GetDrivers(), n.GetDriver())) {
			return true
		}
		if n.GetAssigned() != "" && v.LiveLease(n.GetAssigned()) == nil {
			if f := v.Flow(n.GetId()); f != nil && f.GetStatus() == api.FlowStatus_FLOW_RUNNING {
				return true
			}
		}
	}
	return false
}

func same(a, b []ring.Member) bool {
	return slices.EqualFunc(a, b, func(a, b ring.Member) bool { return reflect.DeepEqual(a, b) })
}
