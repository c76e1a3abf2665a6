package governor_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ironring/ironring/drivers/governor"
	"github.com/ironring/ironring/internal/errs"
)

var errSilent = errs.New(errs.Unreachable, "the BMC did not answer in time")

func fail(t *testing.T, s *governor.Set, with error) error {
	t.Helper()
	done, err := s.Read(t.Context(), "b")
	if err == nil {
		done(with)
	}
	return err
}

func TestCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := governor.New(1)
		for range governor.Failures {
			if err := fail(t, s, errSilent); err != nil {
				t.Fatal(err)
			}
		}
		err := fail(t, s, errSilent)
		if errs.KindOf(err) != errs.Busy || !strings.Contains(err.Error(), "left alone") || !strings.Contains(err.Error(), errSilent.Error()) {
			t.Fatalf("the circuit is not open: %v", err)
		}
		if done, err := s.Read(t.Context(), "other"); err != nil {
			t.Errorf("another BMC suffers: %v", err)
		} else {
			done(nil)
		}
		// One call tries once the pause is over; the pause grows.
		time.Sleep(governor.FirstPause)
		done, err := s.Read(t.Context(), "b")
		if err != nil {
			t.Fatalf("nobody may try: %v", err)
		}
		if err := fail(t, s, nil); errs.KindOf(err) != errs.Busy {
			t.Errorf("two try at once: %v", err)
		}
		done(errSilent)
		time.Sleep(governor.FirstPause - time.Millisecond)
		if err := fail(t, s, nil); errs.KindOf(err) != errs.Busy {
			t.Errorf("the pause has not grown: %v", err)
		}
		// A BMC that refuses is there.
		time.Sleep(governor.MaxPause)
		if err := fail(t, s, errs.New(errs.Denied, "no")); err != nil {
			t.Fatal(err)
		}
		for range governor.Failures - 1 {
			if err := fail(t, s, errSilent); err != nil {
				t.Errorf("the circuit was not closed: %v", err)
			}
		}
		// A change that succeeds says the same.
		if err := fail(t, s, errSilent); err != nil {
			t.Fatal(err)
		}
		change, err := s.Change(t.Context(), "b")
		if err != nil {
			t.Fatalf("a change is refused: %v", err)
		}
		change(nil)
		if err := fail(t, s, nil); err != nil {
			t.Errorf("after a change: %v", err)
		}
	})
}

// A caller that hangs up says nothing of the BMC.
func TestCancelled(t *testing.T) {
	s := governor.New(1)
	for range 2 * governor.Failures {
		if err := fail(t, s, errs.New(errs.Timeout, "given up: %w", context.Canceled)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := governor.New(2)
		one, err1 := s.Read(t.Context(), "b")
		two, err2 := s.Read(t.Context(), "b")
		change, err3 := s.Change(t.Context(), "b")
		if err1 != nil || err2 != nil || err3 != nil {
			t.Fatal(err1, err2, err3)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Read(ctx, "b"); errs.KindOf(err) != errs.Unreachable {
			t.Errorf("a third read: %v", err)
		}
		if _, err := s.Change(ctx, "b"); errs.KindOf(err) != errs.Unreachable {
			t.Errorf("a second change: %v", err)
		}
		got := make(chan error, 1)
		go func() {
			done, err := s.Read(t.Context(), "b")
			if err == nil {
				done(nil)
			}
			got <- err
		}()
		synctest.Wait()
		one(nil)
		if err := <-got; err != nil {
			t.Errorf("one that waited: %v", err)
		}
		two(nil)
		change(nil)
	})
}
