package drivers

import (
	"context"
	"errors"
	"time"

	"github.com/ironring/ironring/internal/errs"
)

// checkEvery is how often a running call looks at its grant. A Doner ends the
// call sooner.
const checkEvery = 50 * time.Millisecond

// CheckGrant returns an error once the grant has ended, by its own word or by
// its deadline. A call without a grant may not change anything.
func CheckGrant(g Grant) error {
	if g == nil {
		return errs.New(errs.Fenced, "a call that changes a machine needs a grant")
	}
	if err := g.Check(); err != nil {
		return err
	}
	if !time.Now().Before(g.Deadline()) {
		return errs.New(errs.Fenced, "the grant with token %d has expired", g.Token())
	}
	return nil
}

// Bind returns a context that ends with ctx or with the grant, whichever is
// first; context.Cause tells which. It fails at once if the grant has ended.
// The caller must call stop, which ends and awaits what Bind started.
func Bind(ctx context.Context, g Grant) (bound context.Context, stop func(), err error) {
	if err := CheckGrant(g); err != nil {
		return nil, nil, err
	}
	if ctx.Err() != nil {
		return nil, nil, Ended(ctx)
	}
	bound, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		watch(bound, g, cancel)
	}()
	return bound, func() { cancel(context.Canceled); <-done }, nil
}

// watch ends the context when the grant ends.
func watch(ctx context.Context, g Grant, cancel context.CancelCauseFunc) {
	var ended <-chan struct{}
	if d, ok := g.(Doner); ok {
		ended = d.Done()
	}
	timer := time.NewTimer(checkEvery)
	defer timer.Stop()
	for {
		timer.Reset(min(checkEvery, max(0, time.Until(g.Deadline()))))
		select {
		case <-ctx.Done():
			return
		case <-ended:
			err := g.Check()
			if err == nil {
				err = errs.New(errs.Fenced, "the grant with token %d has ended", g.Token())
			}
			cancel(err)
			return
		case <-timer.C:
			if err := CheckGrant(g); err != nil {
				cancel(err)
				return
			}
		}
	}
}

// Ended turns the end of a context into an error with a kind: that of the
// grant when the grant ended, else errs.Timeout. It is nil while the context
// has not ended.
func Ended(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	cause := context.Cause(ctx)
	if e := (*errs.Error)(nil); errors.As(cause, &e) {
		return cause
	}
	if errors.Is(cause, context.DeadlineExceeded) {
		return errs.New(errs.Timeout, "no answer in time: %w", cause)
	}
	return errs.New(errs.Timeout, "the call was given up: %w", cause)
}
