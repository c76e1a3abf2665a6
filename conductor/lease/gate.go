package lease

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
)

// Gate is one stretch of time in which this process may act. Work enters it
// with Enter and runs under the context that Enter gives.
type Gate struct {
	Lease string // id of the lease

	clock  clock.Clock
	valid  time.Duration // D
	margin time.Duration // M
	ctx    context.Context
	cancel context.CancelCauseFunc
	work   sync.WaitGroup

	mu       sync.Mutex
	deadline time.Duration // on clock.Elapsed
	shut     bool
	progress map[uint64]bool // tokens whose step moved since the last renewal
}

func newGate(id string, t *api.Timing, sent time.Duration, c clock.Clock) *Gate {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &Gate{
		Lease: id, clock: c, valid: ms(t.GetHolderMs()), margin: ms(t.GetMarginMs()),
		ctx: ctx, cancel: cancel, deadline: sent + ms(t.GetHolderMs()), progress: map[uint64]bool{},
	}
}

// Enter starts a piece of work under the gate. The context ends when the gate
// closes or parent ends; leave must be called when the work has ended.
// Enter fails with errs.Fenced once the gate is closed.
func (g *Gate) Enter(parent context.Context) (ctx context.Context, leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return nil, nil, errs.New(errs.Fenced, "the gate of lease %s is closed", g.Lease)
	}
	g.work.Add(1)
	ctx, cancel := context.WithCancelCause(parent)
	stop := context.AfterFunc(g.ctx, func() { cancel(context.Cause(g.ctx)) })
	var once sync.Once
	return ctx, func() { once.Do(func() { stop(); cancel(nil); g.work.Done() }) }, nil
}

// Done is closed when the gate closes.
func (g *Gate) Done() <-chan struct{} { return g.ctx.Done() }

// Progress notes that the step under token has moved; the next renewal tells.
func (g *Gate) Progress(token uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.progress[token] = true
}

// Check says whether an act may begin now: the gate is open and its deadline
// lies ahead.
func (g *Gate) Check() error {
	if left := g.deadlineIn(); left <= 0 || g.closed() {
		return errs.New(errs.Fenced, "the gate of lease %s is closed", g.Lease)
	}
	return nil
}

// CheckMutating is Check for a call that changes a machine: at least the
// margin M must be left.
func (g *Gate) CheckMutating() error {
	if left := g.deadlineIn(); left < g.margin || g.closed() {
		return errs.New(errs.Fenced, "lease %s has %v left, too little to begin a change", g.Lease, left.Round(time.Millisecond))
	}
	return nil
}

// Deadline is the moment at which everything under the gate must have ended,
// as the wall clock stands now.
func (g *Gate) Deadline() time.Time { return g.clock.Now().Add(g.deadlineIn()) }

func (g *Gate) deadlineIn() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.deadline - g.clock.Elapsed()
}

func (g *Gate) closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut
}

// extend moves the deadline to sent + D; it never moves it back.
func (g *Gate) extend(sent time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deadline = max(g.deadline, sent+g.valid)
}

// close reports whether it was this call that closed the gate.
func (g *Gate) close(cause error) bool {
	g.mu.Lock()
	first := !g.shut
	g.shut = true
	g.mu.Unlock()
	if first {
		g.cancel(cause)
	}
	return first
}

// drain waits until all work under the gate has ended.
func (g *Gate) drain(limit time.Duration) error {
	done := make(chan struct{})
	go func() { g.work.Wait(); close(done) }()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-done:
		return nil
	case <-t.C:
		return fmt.Errorf("work under lease %s did not end within %v after its gate was closed", g.Lease, limit)
	}
}

func (g *Gate) takeProgress() []uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]uint64, 0, len(g.progress))
	for t := range g.progress {
		out = append(out, t)
	}
	clear(g.progress)
	return out
}

// Grant is the right to act under one lock: what a driver checks before and
// during each call that changes a machine.
type Grant struct {
	Gate  *Gate
	Lock  uint64       // the lock's token
	Valid func() error // the lock is still ours in the replicated state; may be nil
}

// Check implements drivers.Grant.
func (g Grant) Check() error {
	if err := g.Gate.Check(); err != nil {
		return err
	}
	if g.Valid != nil {
		return g.Valid()
	}
	return nil
}

// Deadline implements drivers.Grant.
func (g Grant) Deadline() time.Time { return g.Gate.Deadline() }

// Token implements drivers.Grant.
func (g Grant) Token() uint64 { return g.Lock }

// Done implements drivers.Doner: it is closed when the gate closes.
func (g Grant) Done() <-chan struct{} { return g.Gate.Done() }
