package cluster

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
)

// How long Propose may take.
const (
	proposeTimeout = 10 * time.Second // when the caller's context says nothing
	leaderWait     = 5 * time.Second  // for a leader that takes the command
	// attemptTimeout bounds one forward of a command that may be repeated: its
	// leader may be gone without a word.
	attemptTimeout = 3 * time.Second
)

// Propose commits a command and returns when this peer has applied it. A
// command that the state refused gives its result and an error of the
// failure's kind.
//
// errs.NoQuorum, errs.Busy: nothing was done; a peer whose disk is full answers
// so at once unless it leads. errs.Timeout: the outcome is
// unknown; this only comes for commands without Meta.RequestId or when the
// context ends, because a command with one is repeated until its answer is
// known.
func (c *Cluster) Propose(ctx context.Context, cmd *api.Command) (*api.Result, error) {
	res, err := c.propose(ctx, cmd)
	c.metrics.proposed(err)
	return res, c.withDisk(err)
}

func (c *Cluster) propose(ctx context.Context, cmd *api.Command) (*api.Result, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, proposeTimeout)
		defer cancel()
	}
	raw, err := c.marshal(cmd)
	if err != nil {
		return nil, err
	}
	res, err := c.commit(ctx, command{raw, newNodes(cmd)}, cmd.GetMeta().GetRequestId() != "")
	if err != nil {
		return nil, err
	}
	o := c.applied(ctx, res)
	return o.Result, o.Err
}

func (c *Cluster) marshal(cmd *api.Command) ([]byte, error) {
	meta := fsm.CompleteMeta(cmd.GetMeta(), c.ID(), c.clock.Now().UnixMilli())
	if meta.GetReason() == "" {
		return nil, errs.New(errs.Invalid, "a command without a reason")
	}
	if meta != cmd.GetMeta() {
		cmd = &api.Command{Meta: meta, Ops: cmd.GetOps()}
	}
	raw, err := proto.Marshal(cmd)
	if err != nil {
		return nil, errs.New(errs.Invalid, "encode command: %w", err)
	}
	if len(raw) > maxCommand-ownerRoom {
		return nil, errs.New(errs.Invalid, "the command has %d bytes, at most %d are allowed", len(raw), maxCommand-ownerRoom)
	}
	return raw, nil
}

// commit brings a marshalled command to whoever leads. Answers that say that
// nothing was done are tried again with the next leader.
func (c *Cluster) commit(ctx context.Context, cmd command, repeatable bool) (*api.Result, error) {
	var last, unknown error // unknown: an attempt that may have succeeded
	for deadline, try := time.Now().Add(leaderWait), 0; ; try++ {
		if try > 0 {
			if err := pause(ctx, try); err != nil || time.Now().After(deadline) {
				return nil, outcomeOf(noQuorum(last), unknown)
			}
		}
		leader, err := c.waitLeader(ctx, time.Until(deadline))
		if err != nil {
			return nil, outcomeOf(err, unknown)
		}
		res, err := c.commitAt(ctx, leader, cmd, repeatable)
		if err == nil {
			return res, nil
		}
		err = errs.New(errs.KindOf(err), "commit through leader %s: %w", leader, err)
		switch kind := errs.KindOf(err); {
		case kind == errs.NotLeader, kind == errs.Unreachable:
			last = err
		case kind == errs.Timeout && repeatable && ctx.Err() == nil:
			last, unknown, deadline = err, err, time.Now().Add(leaderWait)
		case kind == errs.Timeout:
			return nil, outcomeOf(err, err)
		default:
			return nil, outcomeOf(err, unknown)
		}
	}
}

// outcomeOf is the error of a command that was given up: whatever stopped it,
// an earlier attempt with an unknown outcome makes the outcome unknown.
func outcomeOf(err, unknown error) error {
	if unknown == nil {
		return err
	}
	if errors.Is(err, unknown) {
		return errs.New(errs.Timeout, "the outcome is unknown: %w", unknown)
	}
	return errs.New(errs.Timeout, "the outcome is unknown: %w; then: %v", unknown, err)
}

func (c *Cluster) commitAt(ctx context.Context, leader string, cmd command, repeatable bool) (*api.Result, error) {
	if repeatable {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, attemptTimeout)
		defer cancel()
	}
	if leader == c.ID() {
		return c.submit(ctx, cmd)
	}
	if c.storage.disk.full.Load() {
		// The leader would do it, and this peer would never see that it did.
		return nil, errs.New(errs.NoQuorum, "this peer passes no changes on while it cannot store them, nothing was done: ask another peer")
	}
	cc, err := c.PeerConn(leader)
	if err != nil {
		return nil, errs.New(errs.Unreachable, "forward to leader %s: %w", leader, err)
	}
	return api.NewClusterClient(cc).Propose(ctx, &api.ProposeRequest{Command: cmd.raw})
}

// submit commits through this peer, which must lead.
func (c *Cluster) submit(ctx context.Context, cmd command) (*api.Result, error) {
	cm := c.committer.Load()
	if cm == nil {
		return nil, errs.New(errs.NotLeader, "this peer is not running")
	}
	o := cm.submit(ctx, cmd)[0]
	return o.result, o.err
}

// waitLeader is the member that leads, as soon as there is one.
func (c *Cluster) waitLeader(ctx context.Context, atMost time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, max(atMost, 0))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if id, _ := c.Leader(); id != "" {
			return id, nil
		}
		select {
		case <-ctx.Done():
			return "", noQuorum(nil)
		case <-c.stopped:
			return "", errs.New(errs.NoQuorum, "this peer is stopping, nothing was done")
		case <-tick.C:
		}
	}
}

func noQuorum(last error) error {
	if last == nil {
		return errs.New(errs.NoQuorum, "there is no leader, nothing was done: are most voters up and connected?")
	}
	return errs.New(errs.NoQuorum, "no leader took the command, nothing was done: %w", last)
}

// pause waits a little longer at each try, with jitter.
func pause(ctx context.Context, try int) error {
	d := time.Duration(min(try, 10)) * 20 * time.Millisecond
	return clock.Pause(ctx, d+rand.N(d))
}
