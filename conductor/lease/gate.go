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
	idle   chan struct{} // closed once the gate is closed and all work has ended

	mu       sync.Mutex
	deadline time.Duration   // guarded by mu; on clock.Elapsed
	shut     bool            // guarded by mu
	shutAt   time.Duration   // guarded by mu; on clock.Elapsed
	work     int             // guarded by mu; pieces of work inside
	progress map[uint64]bool // guarded by mu; tokens whose step moved since the last renewal
}

func newGate(id string, t *api.Timing, sent time.Duration, c clock.Clock) *Gate {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &Gate{
		Lease: id, clock: c, valid: ms(t.GetHolderMs()), margin: ms(t.GetMarginMs()),
		ctx: ctx, cancel: cancel, idle: make(chan struct{}), deadline: sent + ms(t.GetHolderMs()), progress: map[uint64]bool{},
	}
}

// Enter starts a piece of work under the gate. The context ends when the gate
// closes or parent ends; leave must be called when the work has ended.
// Enter fails with errs.Fenced once the gate is closed.
func (g *Gate) Enter(parent context.Context) (ctx context.Context, leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut || g.deadline <= g.clock.Elapsed() {
		return nil, nil, errs.New(errs.Fenced, "the gate of lease %s is closed", g.Lease)
	}
	g.work++
	ctx, cancel := context.WithCancelCause(parent)
	stop := context.AfterFunc(g.ctx, func() { cancel(context.Cause(g.ctx)) })
	var once sync.Once
	return ctx, func() { once.Do(func() { stop(); cancel(nil); g.leave() }) }, nil
}

func (g *Gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.work--; g.work == 0 && g.shut {
		close(g.idle)
	}
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

// extend moves the deadline to sent + D; it never moves it back. It is false
// for a closed gate, which stays closed.
func (g *Gate) extend(sent time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return false
	}
	g.deadline = max(g.deadline, sent+g.valid)
	return true
}

// close reports whether it was this call that closed the gate.
func (g *Gate) close(cause error) bool {
	g.mu.Lock()
	first := !g.shut
	if first {
		g.shut, g.shutAt = true, g.clock.Elapsed()
		if g.work == 0 {
			close(g.idle)
		}
	}
	g.mu.Unlock()
	if first {
		g.cancel(cause)
	}
	return first
}

// drained says whether all work under a closed gate has ended.
func (g *Gate) drained() bool {
	select {
	case <-g.idle:
		return true
	default:
		return false
	}
}

// stuck is an error once a closed gate still has work inside after drainLimit.
func (g *Gate) stuck() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.shut || g.work == 0 || g.clock.Elapsed()-g.shutAt < drainLimit {
		return nil
	}
	return fmt.Errorf("work under lease %s did not end within %v after its gate was closed", g.Lease, drainLimit)
}

// drain waits until all work under a closed gate has ended, or is stuck.
func (g *Gate) drain() error {
	for {
		if err := g.stuck(); err != nil {
			return err
		}
		t := time.NewTimer(drainPoll)
		select {
		case <-g.idle:
			t.Stop()
			return nil
		case <-t.C:
		}
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

// putBack notes progress again that no renewal has told.
func (g *Gate) putBack(tokens []uint64) {
	for _, t := range tokens {
		g.Progress(t)
	}
}
