package cluster

import (
	"context"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/errs"
)

// bootstrap is the first command of a new cluster, proposed by its founder
// until it is committed.
func (c *Cluster) bootstrap(ctx context.Context) error {
	v := c.store.View()
	if v.Globals().GetClusterId() != "" {
		return c.forgetSettings()
	}
	settings := DefaultSettings()
	if raw := c.creds.identity.Settings; len(raw) > 0 {
		if err := protojson.Unmarshal(raw, settings); err != nil {
			return c.dir.damaged(identityFile, "is damaged")
		}
	}
	_, err := c.Propose(ctx, &api.Command{Meta: c.system("found the cluster"), Ops: []*api.Op{
		{Op: &api.Op_Bootstrap{Bootstrap: &api.Bootstrap{ClusterId: c.ClusterID(), Settings: settings, DataKey: c.creds.keyring.Primary()}}},
	}})
	if err != nil {
		return err
	}
	return c.forgetSettings()
}

// forgetSettings drops the copy that was only needed until they were committed.
func (c *Cluster) forgetSettings() error {
	if len(c.creds.identity.Settings) == 0 {
		return nil
	}
	return c.updateIdentity(func(id *identity) { id.Settings = nil })
}

// updateIdentity changes identity.json. Readers of c.creds.identity need no
// lock: only fields that nobody else reads change after Open.
func (c *Cluster) updateIdentity(change func(*identity)) error {
	c.identityMu.Lock()
	defer c.identityMu.Unlock()
	change(c.creds.identity)
	return c.dir.writeIdentity(c.creds.identity)
}

// announce keeps this peer's member record as it should be: addresses,
// drivers, version. It also finds out that this peer was removed.
func (c *Cluster) announce(ctx context.Context) {
	wait, known := 50*time.Millisecond, false
	for {
		if err := c.announceOnce(ctx, &known); err != nil {
			c.log.Debug("announce this peer", "err", err)
			wait = min(2*wait, 2*time.Second)
		} else {
			wait = 2 * time.Second
		}
		select {
		case <-ctx.Done():
			return
		case <-c.left:
			return
		case <-time.After(wait):
		}
	}
}

func (c *Cluster) announceOnce(ctx context.Context, known *bool) error {
	v := c.store.View()
	if v.Globals().GetClusterId() == "" {
		return errs.New(errs.NoQuorum, "the cluster's state has not arrived yet")
	}
	is := v.Member(c.ID())
	switch {
	case is != nil && !gone(is):
		*known = true
	case c.leaving.Load():
		return nil
	case *known:
		c.removed(c.removedAt(v))
		return nil
	case v.Former(c.ID(), c.cfg.Advertised.GetKeyDigest()) != nil:
		c.removed(c.removedAt(v))
		return nil
	case !c.creds.identity.Founder && len(v.Members()) > 0: // only the founder announces itself unasked
		return errs.New(errs.NoQuorum, "this peer's record has not arrived yet")
	}
	want := c.wanted(v)
	if is != nil && proto.Equal(settled(is), settled(want)) {
		c.announced.Store(true)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	_, err := c.Propose(ctx, &api.Command{Meta: c.system("announce this peer"), Ops: []*api.Op{
		{Op: &api.Op_MemberSet{MemberSet: &api.MemberSet{Member: want}}},
	}})
	if err == nil {
		c.announced.Store(true) // applied here: Propose says so
	}
	return err
}

// wanted is this peer's record as it should be. A peer that is draining stays
// so until its process starts anew.
func (c *Cluster) wanted(v *fsm.View) *api.Member {
	want := proto.CloneOf(c.cfg.Advertised)
	want.Phase = api.Member_READY
	want.FormKey = c.formKey(v)
	if is := v.Member(c.ID()); is != nil {
		want.JoinedMs = is.GetJoinedMs()
		if is.GetPhase() == api.Member_DRAINING && c.announced.Load() {
			want.Phase = api.Member_DRAINING
		}
	}
	if want.JoinedMs == 0 {
		want.JoinedMs = c.clock.Now().UnixMilli()
	}
	return want
}

// settled leaves out what Apply fills in.
func settled(m *api.Member) *api.Member {
	m = proto.CloneOf(m)
	m.Index, m.StableTick, m.FormKeys = 0, 0, nil
	return m
}

// WaitReady returns when this peer is a ready member and knows a leader.
func (c *Cluster) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		m := c.store.View().Member(c.ID())
		if id, _ := c.Leader(); id != "" && m.GetPhase() == api.Member_READY && c.announced.Load() {
			return nil
		}
		select {
		case <-ctx.Done():
			return errs.New(errs.NoQuorum, "wait until this peer is ready: %w", ctx.Err())
		case <-c.left:
			return errs.New(errs.WrongState, "this peer has left the cluster")
		case <-tick.C:
		}
	}
}

// watchMembers cuts the connections of members that were removed.
func (c *Cluster) watchMembers(ctx context.Context) {
	after := c.store.Index()
	for {
		changes, upTo, more, err := c.store.Changes(after)
		check := err != nil // too far behind: look at everything
		for _, ch := range changes {
			check = check || ch.Table == fsm.TableMembers
		}
		after = upTo
		if check {
			c.streams.drop()
			v := c.store.View()
			c.peers.prune(func(id string) bool { m := v.Member(id); return m != nil && !gone(m) })
		}
		select {
		case <-more:
		case <-ctx.Done():
			return
		}
	}
}
