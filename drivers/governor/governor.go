// Package governor keeps us from being a burden to a BMC, whose own processor
// is small and which may allow as few as four sessions: it bounds the calls
// under way and leaves a BMC that does not answer alone for a while.
//
// Invariants:
//   - At most one call that changes a machine and Config.Reads that read are
//     under way at one BMC. Those that wait end with their context.
//   - After Failures reads in a row without an answer the circuit is open: reads
//     are refused at once, as errs.Busy, until a pause has passed. Then one is
//     let through to try; the pause doubles, up to MaxPause, until one succeeds.
//   - Changes are never refused: their caller has announced them, and knows what
//     else hangs on them. A change that succeeds closes the circuit.
//
// All methods may be called by any goroutine. Start with Set.Read.
package governor

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// The circuit breaker's numbers.
const (
	Failures   = 5
	FirstPause = 2 * time.Second
	MaxPause   = 30 * time.Second
)

// Set has one governor for each BMC that is being called or in trouble.
type Set struct {
	reads int

	mu   sync.Mutex
	bmcs map[string]*bmc // guarded by mu; by key
}

// bmc is the governor of one BMC.
type bmc struct {
	reads   chan struct{}
	changes chan struct{}

	users    int           // guarded by Set.mu
	failures int           // guarded by Set.mu; in a row
	pause    time.Duration // guarded by Set.mu; the last one
	until    time.Time     // guarded by Set.mu; open until then
	failed   time.Time     // guarded by Set.mu; when it last did
	cause    error         // guarded by Set.mu; the last failure
}

// New makes a Set that lets so many reads at once to a BMC, at least one.
func New(reads int) *Set {
	return &Set{reads: max(1, reads), bmcs: map[string]*bmc{}}
}

// Read asks to read from the BMC of that key. The caller must call done with
// what became of it.
func (s *Set) Read(ctx context.Context, key string) (done func(error), err error) {
	b := s.use(key)
	if err := s.admit(b); err != nil {
		s.leave(key, b)
		return nil, err
	}
	if err := take(ctx, b.reads); err != nil {
		s.leave(key, b)
		return nil, err
	}
	return func(err error) {
		<-b.reads
		s.judge(b, err)
		s.leave(key, b)
	}, nil
}

// Change asks to change the machine behind the BMC of that key.
func (s *Set) Change(ctx context.Context, key string) (done func(error), err error) {
	b := s.use(key)
	if err := take(ctx, b.changes); err != nil {
		s.leave(key, b)
		return nil, err
	}
	return func(err error) {
		<-b.changes
		if err == nil {
			s.judge(b, nil)
		}
		s.leave(key, b)
	}, nil
}

func take(ctx context.Context, slots chan struct{}) error {
	select {
	case slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		err := drivers.Ended(ctx)
		if errs.KindOf(err) == errs.Timeout {
			err = errs.New(errs.Unreachable, "other calls to this BMC were under way for too long: %w", err)
		}
		return err
	}
}

func (s *Set) use(key string) *bmc {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bmcs[key]
	if b == nil {
		b = &bmc{reads: make(chan struct{}, s.reads), changes: make(chan struct{}, 1)}
		s.bmcs[key] = b
	}
	b.users++
	return b
}

// leave forgets a BMC that nobody calls and that is not in trouble, and one
// whose trouble is long past.
func (s *Set) leave(key string, b *bmc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b.users--
	for k, other := range s.bmcs {
		if k != key && len(s.bmcs) < manyBMCs {
			continue
		}
		if other.users == 0 && (other.failures == 0 || time.Since(other.failed) > forget) {
			delete(s.bmcs, k)
		}
	}
}

// Trouble is forgotten after a while once there are many BMCs.
const (
	manyBMCs = 10_000
	forget   = 10 * time.Minute
)

// admit refuses while the circuit is open. The call that finds the pause over
// is the one that tries.
func (s *Set) admit(b *bmc) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.failures < Failures {
		return nil
	}
	if left := time.Until(b.until); left > 0 {
		return errs.New(errs.Busy, "the BMC did not answer %d times in a row and is left alone for %v more (last: %v)",
			b.failures, left.Round(100*time.Millisecond), b.cause)
	}
	b.until = time.Now().Add(b.pause)
	return nil
}

// judge counts silence, and nothing else: a BMC that refuses is there.
func (s *Set) judge(b *bmc, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil || !errors.Is(err, errs.Unreachable) && !errors.Is(err, errs.Timeout) {
		b.failures, b.pause, b.until, b.cause = 0, 0, time.Time{}, nil
		return
	}
	if errors.Is(err, context.Canceled) {
		return // the caller went, which says nothing of the BMC
	}
	b.failures++
	b.failed, b.cause = time.Now(), err
	if b.failures >= Failures {
		b.pause = min(max(2*b.pause, FirstPause), MaxPause)
		b.until = time.Now().Add(b.pause/2 + rand.N(b.pause/2+1))
	}
}
