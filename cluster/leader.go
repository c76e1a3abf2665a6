package cluster

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ironring/ironring/cluster/duties"
	"github.com/ironring/ironring/internal/errs"
)

// barrierTimeout bounds the wait for the entries of earlier terms.
const barrierTimeout = 30 * time.Second

// Leader is the member that leads, "" when none is known, and the current
// term.
func (c *Cluster) Leader() (id string, term uint64) {
	r := c.raft.Load()
	if r == nil {
		return "", 0
	}
	_, lead := r.LeaderWithID()
	return string(lead), r.CurrentTerm()
}

// IsLeader reports whether this peer leads, as far as it knows.
func (c *Cluster) IsLeader() bool {
	r := c.raft.Load()
	return r != nil && r.State() == raft.Leader
}

// LeaderContact is the time since this peer last heard of the leader; 0 on the
// leader itself, very long when there never was one.
func (c *Cluster) LeaderContact() time.Duration {
	r := c.raft.Load()
	switch {
	case r == nil:
		return never
	case r.State() == raft.Leader:
		return 0
	}
	last := r.LastContact()
	if last.IsZero() {
		return never
	}
	return time.Since(last)
}

// Behind is the time since this peer last applied an entry, of which a leader
// commits one each second (its tick): 0 on the leader itself, very long before
// the first one. It grows with a full disk too, which keeps the contact.
func (c *Cluster) Behind() time.Duration {
	if c.IsLeader() {
		return 0
	}
	if at := c.machine.moved.Load(); at != nil {
		return time.Since(*at)
	}
	return never
}

const never = time.Duration(1<<63 - 1)

// lead runs the leader's duties during each leadership. changes tells when it
// begins and ends and must be drained at once, because Raft waits for it.
func (c *Cluster) lead(ctx context.Context, r *raft.Raft, changes <-chan bool) {
	stop := func() {}
	for {
		select {
		case <-ctx.Done():
			stop()
			return
		case leading := <-changes:
			stop()
			stop = func() {}
			if !leading {
				c.log.Info("no longer the leader")
				continue
			}
			term, cancel := context.WithCancel(ctx)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				c.term(term, r)
			}()
			stop = func() { cancel(); <-ended }
		}
	}
}

// term does the duties of one leadership: after a barrier, so that everything
// of earlier terms is applied.
func (c *Cluster) term(ctx context.Context, r *raft.Raft) {
	term := r.CurrentTerm()
	defer c.dutyTerm.Store(0)
	if err := r.Barrier(barrierTimeout).Error(); err != nil {
		c.log.Debug("barrier of a new leadership failed", "term", term, "err", err)
		return
	}
	// The term can only have changed if the leadership is over.
	if r.State() != raft.Leader || r.CurrentTerm() != term {
		return
	}
	c.dutyTerm.Store(term)
	c.metrics.leader.Set(1)
	c.metrics.term.Set(float64(term))
	c.metrics.terms.Inc()
	defer c.metrics.leader.Set(0)
	c.log.Info("leading the cluster", "term", term)
	if err := c.bootstrap(ctx); err != nil {
		c.log.Warn("could not set up the new cluster, will try again", "err", err)
	}
	err := duties.Run(ctx, duties.Config{
		Self: c.ID(), Term: term, Store: c.store, Propose: c.proposeHere, Clock: c.clock,
		Logger: c.log, Voters: voterControl{c, r}, Probe: c.probe, PromoteAfter: c.cfg.PromoteAfter, ReplaceAfter: c.cfg.ReplaceAfter, Keys: keyMaker{c},
	})
	if err != nil && ctx.Err() == nil {
		c.fatal(errs.New(errs.Internal, "duties of the leader: %w", err))
	}
}
