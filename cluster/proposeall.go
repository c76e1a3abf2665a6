package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rpc"
)

// Outcome is what became of one command of ProposeAll: what Propose would have
// returned.
type Outcome struct {
	Result *api.Result
	Err    error
}

// ProposeAll is Propose for many commands at once: each is applied or refused
// on its own, and has its own outcome, in the order of the commands. Nothing is
// said about the order in which they are applied.
func (c *Cluster) ProposeAll(ctx context.Context, cmds []*api.Command) []Outcome {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, proposeTimeout)
		defer cancel()
	}
	out, first := make([]Outcome, len(cmds)), c.submitAll(ctx, cmds)
	var rest sync.WaitGroup
	for i, cmd := range cmds {
		if o := first[i]; o.result != nil {
			out[i] = c.applied(ctx, o.result)
			c.metrics.proposed(out[i].Err)
			continue
		}
		// Each of the others finds its way alone: to another leader, or again.
		// One whose outcome is unknown is only repeated when it may be.
		if o := first[i]; errs.KindOf(o.err) == errs.Timeout && cmd.GetMeta().GetRequestId() == "" || errs.KindOf(o.err) == errs.Invalid {
			c.metrics.proposed(o.err)
			out[i].Err = o.err
			continue
		}
		rest.Go(func() { out[i].Result, out[i].Err = c.Propose(ctx, cmd) })
	}
	rest.Wait()
	return out
}

// applied is the outcome of a command that was committed.
func (c *Cluster) applied(ctx context.Context, res *api.Result) Outcome {
	if err := c.waitHere(ctx, res.GetIndex()); err != nil {
		return Outcome{res, errs.New(errs.Timeout, "the command is committed, but this peer is behind: %w", err)}
	}
	return Outcome{res, rpc.FromFailure(res.GetFailure())}
}

// diskLook is how often a wait for the store looks whether it can end.
const diskLook = 500 * time.Millisecond

// waitHere waits until this peer has applied an index, but not while its disk
// is full: what cannot be stored is not applied.
func (c *Cluster) waitHere(ctx context.Context, index uint64) error {
	for {
		step, cancel := context.WithTimeout(ctx, diskLook)
		err := c.store.WaitIndex(step, index)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if c.storage.disk.full.Load() {
			return errs.New(errs.Busy, "%s: %w", diskProblem(c.storage.disk.status()), err)
		}
	}
}

// submitAll tries commands through this peer, once: if it leads, they share
// entries.
func (c *Cluster) submitAll(ctx context.Context, cmds []*api.Command) []outcome {
	out := make([]outcome, len(cmds))
	var all []command
	var nth []int
	for i, cmd := range cmds {
		raw, err := c.marshal(cmd)
		if err != nil {
			out[i].err = err
			continue
		}
		all, nth = append(all, command{raw, newNodes(cmd)}), append(nth, i)
	}
	cm := c.committer.Load()
	leader, _ := c.Leader()
	for j, i := range nth {
		if cm == nil || leader != c.ID() {
			out[i].err = errs.New(errs.NotLeader, "this peer does not lead")
		} else if j == 0 {
			for k, o := range cm.submit(ctx, all...) {
				out[nth[k]] = o
			}
		}
	}
	return out
}
