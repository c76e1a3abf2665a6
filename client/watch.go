package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// Nodes reads all nodes that a request selects, page by page. The sequence
// ends after the first error. Pages are read one after the other, so that
// what changes meanwhile may be seen or not.
func (c *Client) Nodes(ctx context.Context, req *api.ListNodesRequest) iter.Seq2[*api.Node, error] {
	return func(yield func(*api.Node, error) bool) {
		page := prepare(req)
		for {
			rep, err := c.ListNodes(ctx, page)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, n := range rep.GetNodes() {
				if !yield(n, nil) {
					return
				}
			}
			if page.Marker = rep.GetNext(); page.Marker == "" {
				return
			}
		}
	}
}

// Watch calls fn with the node as it is now and after each change, and with
// progress between changes, until ctx ends, fn returns an error, or a peer
// refuses for good. after is the index of the last change already known, 0
// for none. It goes on at another peer when one fails: a change is not lost,
// but the last one may come twice.
//
// Before the first event it gives up as a call does; after it, only ctx ends
// it. The error is that of fn, unchanged, or one with a Kind.
func (c *Client) Watch(ctx context.Context, node string, after uint64, fn func(*api.NodeEvent) error) error {
	open := func(ctx context.Context, e *endpoint) (grpc.ServerStreamingClient[api.NodeEvent], error) {
		return e.api.WatchNode(ctx, &api.WatchNodeRequest{Node: node, AfterIndex: after})
	}
	return follow(ctx, c, open, func(e *endpoint, ev *api.NodeEvent) error {
		c.observe(e, ev.GetIndex())
		after = max(after, ev.GetIndex())
		return fn(ev)
	}, true)
}

// Journal calls fn with what the peers saw of a node, oldest first; with
// req.Follow also with what comes later, until ctx ends. An event is given
// once, also when a peer fails and another goes on.
func (c *Client) Journal(ctx context.Context, req *api.JournalRequest, fn func(*api.JournalEvent) error) error {
	r := prepare(req)
	seen := newRecent(65536)
	open := func(ctx context.Context, e *endpoint) (grpc.ServerStreamingClient[api.JournalEvent], error) {
		return e.api.Journal(ctx, r)
	}
	return follow(ctx, c, open, func(_ *endpoint, ev *api.JournalEvent) error {
		if seen.add(eventID{ev.GetPeer(), ev.GetSeq()}) {
			return nil
		}
		// Peers' clocks differ a little, so that an older event may follow.
		r.SinceMs = max(r.SinceMs, ev.GetAtMs()-overlapMS)
		return fn(ev)
	}, r.Follow)
}

// overlapMS is how far a resumed journal goes back behind the last event.
const overlapMS = 10_000

// handlerError carries an error of the caller's function through the retries.
type handlerError struct{ error }

// follow keeps a stream open, at one peer after the other. endless says that
// its end is a failure.
func follow[Ev any](ctx context.Context, c *Client,
	open func(context.Context, *endpoint) (grpc.ServerStreamingClient[Ev], error),
	fn func(*endpoint, *Ev) error, endless bool) error {
	failed := make(map[int]error)
	n := len(c.endpoints)
	i := c.start()
	begun := false
	for try := 1; ; try++ {
		e := c.endpoints[i]
		err := drain(ctx, c, e, open, func(ev *Ev) error {
			begun, try = true, 0
			clear(failed)
			return fn(e, ev)
		})
		var own handlerError
		switch {
		case errors.As(err, &own):
			return own.error
		case ctx.Err() != nil:
			return ended(ctx, errs.New(errs.Timeout, "%w", ctx.Err()))
		case err == nil && !endless:
			return nil
		case err == nil:
			// The peer is stopping.
			err = errs.New(errs.Unreachable, "the stream was ended")
		case !another(err, true):
			return err
		}
		failed[i] = atPeer(e.address, err)
		if !begun && try >= n*c.cfg.Rounds {
			return giveUp(failed, err)
		}
		i = c.leave(i, failed[i])
		if try == 0 || try%n == 0 {
			if c.pause(ctx, backoff(max(1, try/n))) != nil {
				return ended(ctx, err)
			}
		}
	}
}

// drain reads one stream to its end; nil when the peer ended it well. Nothing
// that it started is left when it returns.
func drain[Ev any](ctx context.Context, c *Client, e *endpoint,
	open func(context.Context, *endpoint) (grpc.ServerStreamingClient[Ev], error), fn func(*Ev) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if index, behind := c.behind(e); behind {
		bctx, stop := context.WithTimeout(ctx, c.cfg.AttemptTimeout)
		err := barrier(bctx, c, e, index)
		stop()
		if err != nil {
			return err
		}
	}
	s, err := open(ctx, e)
	if err != nil {
		return err
	}
	if len(c.endpoints) > 1 {
		var watchdog sync.WaitGroup
		watchdog.Go(func() { c.watchdog(ctx, e, cancel) })
		defer watchdog.Wait()
		defer cancel(nil) // runs before Wait
	}
	for {
		ev, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if errors.Is(context.Cause(ctx), errCutOff) {
				err = errCutOff
			}
			return err
		}
		if err := fn(ev); err != nil {
			return handlerError{err}
		}
	}
}

// errCutOff is why a stream is given up although the peer lives.
var errCutOff = errs.New(errs.Unreachable, "has lost contact with the cluster")

// watchdog ends a stream at a peer that has no contact with a leader: it may
// wait there for ever for changes that the others make.
func (c *Client) watchdog(ctx context.Context, e *endpoint, cancel context.CancelCauseFunc) {
	for c.pause(ctx, c.cutOffAfter) == nil {
		actx, stop := context.WithTimeout(ctx, c.cfg.AttemptTimeout)
		rep, err := e.api.ListNodes(actx, &api.ListNodesRequest{Limit: 1})
		stop()
		if rep.GetStale() || another(err, true) {
			cancel(errCutOff)
			return
		}
	}
}

// eventID is unique among journal events.
type eventID struct {
	peer string
	seq  uint64
}

// recent remembers the last events, so that a resumed journal does not repeat
// them.
type recent struct {
	known map[eventID]bool
	order []eventID // a ring
	next  int
}

func newRecent(size int) *recent {
	return &recent{known: make(map[eventID]bool), order: make([]eventID, 0, size)}
}

// add reports whether the event was known already.
func (r *recent) add(id eventID) bool {
	if r.known[id] {
		return true
	}
	r.known[id] = true
	if len(r.order) < cap(r.order) {
		r.order = append(r.order, id)
		return false
	}
	delete(r.known, r.order[r.next])
	r.order[r.next] = id
	r.next = (r.next + 1) % len(r.order)
	return false
}

// merged fills what an event leaves out with what was known before.
func merged(ev, last *api.NodeEvent) *api.NodeEvent {
	out := proto.CloneOf(ev)
	if out.Node == nil && last != nil {
		out.Node, out.Flow, out.Lock = last.Node, last.Flow, last.Lock
	}
	return out
}
