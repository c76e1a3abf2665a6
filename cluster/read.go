package cluster

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// ReadIndex makes the next local read linearizable: it returns when this peer
// has applied everything that was acknowledged anywhere before the call. The
// index is that of a command, which every peer's store reaches.
func (c *Cluster) ReadIndex(ctx context.Context) (uint64, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, proposeTimeout)
		defer cancel()
	}
	deadline := time.Now().Add(leaderWait)
	var last error
	for try := 0; ; try++ {
		if try > 0 {
			if err := pause(ctx, try); err != nil || time.Now().After(deadline) {
				return 0, noQuorum(last)
			}
		}
		leader, err := c.waitLeader(ctx, time.Until(deadline))
		if err != nil {
			return 0, err
		}
		index, err := c.readIndexAt(ctx, leader)
		if err != nil { // reading changes nothing: any error may be tried again
			last = err
			continue
		}
		if err := c.waitHere(ctx, index); err != nil {
			return 0, errs.New(errs.Timeout, "this peer is behind: %w", err)
		}
		return index, nil
	}
}

func (c *Cluster) readIndexAt(ctx context.Context, leader string) (uint64, error) {
	if leader == c.ID() {
		return c.leaderIndex(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	cc, err := c.PeerConn(leader)
	if err != nil {
		return 0, err
	}
	reply, err := api.NewClusterClient(cc).ReadIndex(ctx, &api.ReadIndexRequest{})
	return reply.GetIndex(), err
}

// leaderIndex is the index that a read must see, given by the leader: what its
// store has applied, once it has proven that it still leads. Writes are
// acknowledged only after the leader applied them, and those of earlier
// leaders were applied before the duties of this term began.
func (c *Cluster) leaderIndex(ctx context.Context) (uint64, error) {
	v := c.verifier.Load()
	if v == nil {
		return 0, errs.New(errs.NotLeader, "this peer is not running")
	}
	if c.dutyTerm.Load() != v.raft.CurrentTerm() {
		return 0, errs.New(errs.NotLeader, "this peer does not lead yet")
	}
	index := c.store.Index()
	if err := v.verify(ctx); err != nil {
		return 0, err
	}
	return index, nil
}

// verifier proves leadership for any number of readers with one round of
// heartbeats: those who ask while a round is under way share the next.
type verifier struct {
	raft  *raft.Raft
	queue chan chan error
	count atomic.Int64 // rounds, for tests
}

func newVerifier(r *raft.Raft) *verifier {
	return &verifier{raft: r, queue: make(chan chan error, 1024)}
}

func (v *verifier) verify(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case v.queue <- done:
	case <-ctx.Done():
		return errs.New(errs.Timeout, "prove leadership: %w", ctx.Err())
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errs.New(errs.Timeout, "prove leadership: %w", ctx.Err())
	}
}

func (v *verifier) run(ctx context.Context) {
	for {
		var waiting []chan error
		select {
		case w := <-v.queue:
			waiting = append(waiting, w)
		case <-ctx.Done():
			v.refuse()
			return
		}
		for more := true; more; {
			select {
			case w := <-v.queue:
				waiting = append(waiting, w)
			default:
				more = false
			}
		}
		err := v.raft.VerifyLeader().Error()
		v.count.Add(1)
		if err != nil {
			err = errs.New(errs.NotLeader, "prove leadership: %v", err)
		}
		for _, w := range waiting {
			w <- err
		}
	}
}

func (v *verifier) refuse() {
	for {
		select {
		case w := <-v.queue:
			w <- errs.New(errs.NotLeader, "this peer is stopping")
		default:
			return
		}
	}
}
