package client

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/google/uuid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// mode says what may be done with a call.
type mode int

const (
	read  mode = iota // may be repeated, needs the latest index
	write             // may be repeated under its request id, needs the latest index
	local             // a read about the peer itself: no index to wait for
	slow              // a read that takes as long as a BMC does
)

// slowTimeout bounds a slow call where its context does not: all sensors of a
// slow BMC take most of a minute.
const slowTimeout = 95 * time.Second

// method is a method expression of the generated client.
type method[Req, Rep proto.Message] func(api.IronringClient, context.Context, Req, ...grpc.CallOption) (Rep, error)

// call asks one peer after the other until one answers for good.
func call[Req, Rep proto.Message](ctx context.Context, c *Client, m mode, in Req, do method[Req, Rep]) (Rep, error) {
	var none Rep
	limit := c.cfg.Timeout
	if m == slow {
		limit = max(limit, slowTimeout)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req := prepare(in)
	repeatable := m != write || hasRequestID(req)
	n := len(c.endpoints)
	failed := make(map[int]error, n)
	i := c.start()
	for try := 1; ; try++ {
		e := c.endpoints[i]
		rep, err := attempt(ctx, c, e, m, req, do)
		if err == nil {
			c.observe(e, indexOf(rep))
			return rep, nil
		}
		if ctx.Err() != nil {
			return none, ended(ctx, err)
		}
		if !another(err, repeatable) {
			return none, err
		}
		failed[i] = atPeer(e.address, err)
		if try == n*c.cfg.Rounds {
			return none, giveUp(failed, err)
		}
		i = c.leave(i, failed[i])
		if try%n == 0 {
			if c.pause(ctx, backoff(try/n)) != nil {
				return none, giveUp(failed, err)
			}
		}
	}
}

// attempt asks one peer once, after it has caught up with what we have seen.
func attempt[Req, Rep proto.Message](ctx context.Context, c *Client, e *endpoint, m mode, req Req, do method[Req, Rep]) (Rep, error) {
	var none Rep
	if m != slow {
		limited, cancel := context.WithTimeout(ctx, c.cfg.AttemptTimeout)
		defer cancel()
		ctx = limited
	}
	if m != local {
		if index, behind := c.behind(e); !setMinIndex(req, index) && behind {
			if err := barrier(ctx, c, e, index); err != nil {
				return none, err
			}
		}
	}
	return do(e.api, ctx, req)
}

// barrier makes sure that a peer has applied index, for requests that cannot
// say so themselves: a write that follows on a write at another peer must not
// meet a state without it. Nothing of the call itself was sent when it fails.
func barrier(ctx context.Context, c *Client, e *endpoint, index uint64) error {
	rep, err := e.api.ListNodes(ctx, &api.ListNodesRequest{Limit: 1, Read: &api.ReadOptions{MinIndex: index}})
	if err != nil {
		return errs.New(errs.Unreachable, "has not caught up: %w", err)
	}
	c.observe(e, max(rep.GetIndex(), index))
	return nil
}

// another reports whether another peer may be asked after this error.
func another(err error, repeatable bool) bool {
	switch errs.KindOf(err) {
	case errs.Unreachable, errs.NotLeader, errs.NotOwner, errs.NoQuorum:
		return true // known to have done nothing
	case errs.Timeout:
		return repeatable
	}
	return false
}

// ended is the error of a call whose context has ended.
func ended(ctx context.Context, last error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return errs.New(errs.Timeout, "%w", context.Canceled)
	}
	if errs.KindOf(last) == errs.Timeout {
		return last
	}
	return errs.New(errs.Timeout, "no answer in time: %w", last)
}

func giveUp(failed map[int]error, last error) error {
	t := &tried{last: last}
	for _, i := range slices.Sorted(maps.Keys(failed)) {
		t.all = append(t.all, failed[i])
	}
	return t
}

// prepare copies a request and gives a write its request id.
func prepare[Req proto.Message](in Req) Req {
	r := in.ProtoReflect()
	if r.IsValid() {
		r = proto.Clone(in).ProtoReflect()
	} else {
		r = r.Type().New()
	}
	if many, ok := r.Interface().(*api.CreateNodesRequest); ok {
		for _, n := range many.GetNodes() {
			nameRequest(n.ProtoReflect())
		}
	}
	nameRequest(r)
	return r.Interface().(Req)
}

// nameRequest gives a request that can have a request id one.
func nameRequest(r protoreflect.Message) {
	if fd := r.Descriptor().Fields().ByName("request_id"); fd != nil && r.IsValid() && r.Get(fd).String() == "" {
		// V7 never fails with the standard source of randomness.
		r.Set(fd, protoreflect.ValueOfString(uuid.Must(uuid.NewV7()).String()))
	}
}

// hasRequestID reports whether a prepared request may be repeated: it has an
// id, or all that is in it has one.
func hasRequestID(req proto.Message) bool {
	if _, ok := req.(*api.CreateNodesRequest); ok {
		return true
	}
	r := req.ProtoReflect()
	fd := r.Descriptor().Fields().ByName("request_id")
	return fd != nil && r.Get(fd).String() != ""
}

// setMinIndex raises the index that a read waits for; false when the request
// has no place for it.
func setMinIndex(req proto.Message, index uint64) bool {
	r := req.ProtoReflect()
	fd := r.Descriptor().Fields().ByName("read")
	if fd == nil {
		return false
	}
	options := r.Mutable(fd).Message().Interface().(*api.ReadOptions)
	options.MinIndex = max(options.MinIndex, index)
	return true
}

// indexOf is the log index that an answer names; 0 when it names none.
func indexOf(rep proto.Message) uint64 {
	r := rep.ProtoReflect()
	fd := r.Descriptor().Fields().ByName("index")
	if fd == nil || fd.Kind() != protoreflect.Uint64Kind {
		return 0
	}
	return r.Get(fd).Uint()
}
