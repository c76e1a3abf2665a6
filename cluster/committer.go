package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/ring"
)

// Bounds of the commit pipeline.
const (
	maxCommand  = fsm.MaxCommand
	maxEntry    = fsm.MaxEntry
	maxPacked   = 256
	maxInFlight = 2
	queueLength = 4096
	// enqueueTimeout is how long Raft may refuse to take an entry before the
	// proposals in it are told that nothing was done.
	enqueueTimeout = 2 * time.Second
)

// committer packs the commands of all callers of this peer into entries: one
// goroutine, two entries under way. It only works on the leader.
type committer struct {
	raft    *raft.Raft
	place   func([]*proposal) [][]byte // the commands, with owners for new nodes
	metrics *metrics
	queue   chan *proposal
	waiting atomic.Int64          // entries that were given to Raft and have no answer yet
	stalled atomic.Pointer[error] // why nothing more is taken; set and cleared by stallWatch
}

// proposal is one command on its way. Its state decides who answers: the
// caller that gives up, or the committer that took it.
type proposal struct {
	command
	nth   int // among the proposals of its caller
	state atomic.Int32
	done  chan outcome // has room for the answers of all proposals of its caller
}

// command is a marshalled command and the nodes that it creates, in order.
type command struct {
	raw   []byte
	nodes []ring.Node
}

const (
	queued int32 = iota
	taken
	dropped
)

type outcome struct {
	nth    int
	result *api.Result
	err    error
}

func newCommitter(r *raft.Raft, place func([]*proposal) [][]byte, m *metrics) *committer {
	return &committer{raft: r, place: place, metrics: m, queue: make(chan *proposal, queueLength)}
}

// submit commits commands through this peer, which must lead. Each has an
// outcome of its own.
func (c *committer) submit(ctx context.Context, commands ...command) []outcome {
	out := make([]outcome, len(commands))
	if c.raft.State() != raft.Leader {
		for i := range out {
			out[i].err = errs.New(errs.NotLeader, "this peer does not lead")
		}
		return out
	}
	if err := c.stalled.Load(); err != nil {
		for i := range out {
			out[i].err = errs.New(errs.NoQuorum, "nothing was done: %w", *err)
		}
		return out
	}
	all, done := make([]proposal, len(commands)), make(chan outcome, len(commands))
	waiting := 0
	for i := range all {
		p := &all[i]
		p.command, p.nth, p.done = commands[i], i, done
		select {
		case c.queue <- p:
			waiting++
		case <-ctx.Done():
			p.state.Store(dropped)
			out[i].err = errs.New(errs.Busy, "the commit queue is full, nothing was done: %w", ctx.Err())
		}
	}
	for ; waiting > 0; waiting-- {
		select {
		case o := <-done:
			out[o.nth] = o
		case <-ctx.Done():
			c.giveUp(ctx, all, out)
			return out
		}
	}
	return out
}

// giveUp takes the answers that are there, and says of the other commands
// whether they may still be committed.
func (c *committer) giveUp(ctx context.Context, all []proposal, out []outcome) {
	for more := true; more; {
		select {
		case o := <-all[0].done:
			out[o.nth] = o
		default:
			more = false
		}
	}
	why := ctx.Err()
	if stalled := c.stalled.Load(); stalled != nil {
		why = fmt.Errorf("%w: %v", why, *stalled)
	}
	for i := range out {
		switch {
		case out[i].err != nil || out[i].result != nil:
		case all[i].state.CompareAndSwap(queued, dropped):
			out[i].err = errs.New(errs.Busy, "the command was still queued, nothing was done: %w", why)
		default:
			out[i].err = errs.New(errs.Timeout, "no answer in time: %w", why)
		}
	}
}

// run packs until the context ends, then answers what is left.
func (c *committer) run(ctx context.Context) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxInFlight)
	var first *proposal // did not fit into the last entry
	for {
		// A slot first: what arrives while both are taken goes into one entry.
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if first == nil {
			select {
			case first = <-c.queue:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			break
		}
		var batch []*proposal
		batch, first = c.collect(first)
		if len(batch) == 0 {
			<-slots
			continue
		}
		entry := packEntry(c.place(batch))
		c.metrics.packed(len(batch))
		c.waiting.Add(1)
		future := c.raft.Apply(entry, enqueueTimeout)
		wg.Go(func() {
			err := future.Error()
			c.waiting.Add(-1)
			<-slots
			answer(batch, future, err)
		})
	}
	wg.Wait()
	stopped := outcome{err: errs.New(errs.NotLeader, "this peer is stopping")}
	if first != nil {
		first.answer(stopped)
	}
	for {
		select {
		case p := <-c.queue:
			p.answer(stopped)
		default:
			return
		}
	}
}

// refuse answers what is queued: it was never given to Raft.
func (c *committer) refuse(err error) {
	for {
		select {
		case p := <-c.queue:
			if p.state.CompareAndSwap(queued, taken) {
				p.answer(outcome{err: err})
			}
		default:
			return
		}
	}
}

// collect takes what is queued up to the bounds of an entry. next did not fit.
func (c *committer) collect(first *proposal) (batch []*proposal, next *proposal) {
	size := 0
	for p := first; ; {
		if n := len(p.raw) + ownerRoom; size+n > maxEntry {
			return batch, p
		} else if p.state.CompareAndSwap(queued, taken) {
			batch, size = append(batch, p), size+n
		}
		if len(batch) == maxPacked {
			return batch, nil
		}
		select {
		case p = <-c.queue:
		default:
			return batch, nil
		}
	}
}

// ownerRoom is what framing and the owner of a new node may add to a command.
const ownerRoom = 1024

// packEntry writes an api.Entry without decoding its commands.
func packEntry(commands [][]byte) []byte {
	size := 0
	for _, c := range commands {
		size += len(c) + 8
	}
	out := make([]byte, 0, size)
	for _, c := range commands {
		out = protowire.AppendTag(out, 1, protowire.BytesType)
		out = protowire.AppendBytes(out, c)
	}
	return out
}

func answer(batch []*proposal, future raft.ApplyFuture, err error) {
	var results []*api.Result
	if err == nil {
		results, err = resultsOf(future.Response(), len(batch))
	} else {
		err = commitError(err)
	}
	for i, p := range batch {
		if err != nil {
			p.answer(outcome{err: err})
		} else {
			p.answer(outcome{result: results[i]})
		}
	}
}

// answer never blocks; it may be called once.
func (p *proposal) answer(o outcome) {
	o.nth = p.nth
	p.done <- o
}

// commitError gives Raft's errors their kinds. Only those that say that the
// entry was never appended have a known outcome.
func commitError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return errs.New(errs.NotLeader, "this peer does not lead: %v", err)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return errs.New(errs.Busy, "the log takes no entries, nothing was done: %v", err)
	}
	return errs.New(errs.Timeout, "the entry may still be committed: %v", err)
}
