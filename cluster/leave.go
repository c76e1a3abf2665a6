package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/errs"
)

// leaveTimeout bounds Leave and Remove when the caller's context does not.
const leaveTimeout = 30 * time.Second

// leaveAnswer is how long a peer that leaves waits for the answer, before it
// asks the others whether it is still a member.
const leaveAnswer = 5 * time.Second

// Leave takes this peer out of the cluster for good: leadership is handed
// over, the member record and the vote go, and the data directory is marked so
// that the peer cannot start again by mistake. Then Run ends. Work of this
// peer must have been drained before.
//
// The data keyring and the gossip key are changed after it, by the leader
// (ADR 0013). What who still has a copy of the data directory can do is told
// in docs/operating.md.
func (c *Cluster) Leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	if len(others(c.store.View().Members(), c.ID())) == 0 {
		return errs.New(errs.WrongState, "the last member cannot leave: stop it and delete its data directory")
	}
	c.leaving.Store(true)
	if err := c.leave(ctx); err != nil {
		c.leaving.Store(false)
		return err
	}
	c.markLeft(time.Time{})
	return nil
}

func (c *Cluster) leave(ctx context.Context) error {
	if r := c.raft.Load(); r != nil && r.State() == raft.Leader {
		if err := r.LeadershipTransfer().Error(); err != nil {
			return errs.New(errs.Busy, "hand over leadership before leaving: %w", err)
		}
	}
	err := c.remove(ctx, c.ID())
	if errors.Is(err, errs.Timeout) && c.knockedOut(ctx) {
		return nil // the leader hung up on us before it could answer
	}
	return err
}

// Remove takes another, dead member out of the cluster for good. A member that
// seems to be alive is refused: it can leave by itself.
func (c *Cluster) Remove(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	m := c.store.View().Member(id)
	switch {
	case id == c.ID():
		return c.Leave(ctx)
	case m == nil || gone(m):
		return errs.About(errs.NotFound, id, "there is no member %q", id)
	case c.Alive(id):
		return errs.About(errs.WrongState, id, "member %s is alive: let it leave by itself, or stop it first", id)
	}
	return c.remove(ctx, id)
}

// remove drops the member record, by which everybody refuses the member, and
// then the vote. A crash in between is finished by the leader's duties. Who is
// removed by others may be in wrong hands, with the shared key of its host: the
// same command spends that. Who leaves by itself is trusted.
func (c *Cluster) remove(ctx context.Context, id string) error {
	pctx := ctx
	if id == c.ID() { // whoever applies it hangs up on us: no answer may come
		var cancel context.CancelFunc
		pctx, cancel = context.WithTimeout(ctx, leaveAnswer)
		defer cancel()
	}
	_, err := c.Propose(pctx, &api.Command{Meta: c.system("member leaves"), Ops: []*api.Op{
		{Op: &api.Op_MemberRemove{MemberRemove: &api.MemberRemove{Id: id, SpendFormKeys: id != c.ID()}}},
	}})
	if err != nil && !errors.Is(err, errs.NotFound) {
		return err
	}
	for try := 1; ; try++ {
		err := c.removeServerAtLeader(ctx, id)
		if err == nil {
			return nil
		}
		if perr := pause(ctx, try); perr != nil {
			return errs.New(errs.Timeout, "the member is removed, its vote will follow: %w", err)
		}
		if id == c.ID() && errors.Is(err, errs.Unreachable) && try > 3 {
			// The leader's duties were quicker: we are refused already.
			return nil
		}
	}
}

func (c *Cluster) removeServerAtLeader(ctx context.Context, id string) error {
	leader, err := c.waitLeader(ctx, time.Second)
	if err != nil {
		if id == c.ID() { // no leader talks to us any more
			return nil
		}
		return err
	}
	if leader == c.ID() {
		_, err = c.removeServer(ctx, id)
		return err
	}
	cc, err := c.PeerConn(leader)
	if err != nil {
		return err
	}
	_, err = api.NewClusterClient(cc).RemoveServer(ctx, &api.RemoveServerRequest{Id: id})
	return err
}

// Left is closed when this peer has left the cluster, or was removed.
func (c *Cluster) Left() <-chan struct{} { return c.left }

// removedAt is when this peer was removed, as far as its state says.
func (c *Cluster) removedAt(v *fsm.View) time.Time {
	if f := v.Former(c.ID(), c.cfg.Advertised.GetKeyDigest()); f != nil {
		return time.UnixMilli(f.GetRemovedMs())
	}
	return c.clock.Now()
}

// markLeft makes sure that this data directory never starts again. removed is
// zero for a peer that left by itself.
func (c *Cluster) markLeft(removed time.Time) {
	err := c.updateIdentity(func(id *identity) {
		id.Left = true
		if !removed.IsZero() {
			id.RemovedMs = removed.UnixMilli()
		}
	})
	if err != nil {
		c.log.Error("could not mark the data directory as left", "err", err)
	}
	c.leftOnce.Do(func() { close(c.left) })
}

// Alive reports whether gossip sees a member. It is a hint.
func (c *Cluster) Alive(id string) bool { return id == c.ID() || c.gossip.isAlive(id) }

func others(members []*api.Member, self string) []*api.Member {
	var out []*api.Member
	for _, m := range members {
		if m.GetId() != self && !gone(m) {
			out = append(out, m)
		}
	}
	return out
}
