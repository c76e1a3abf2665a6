package serve

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
)

// stopper notes the order in which its stages end.
type stopper struct {
	mu    sync.Mutex
	order []string // guarded by mu
}

func (s *stopper) stage(name string, err error) stage {
	return stage{name, func(ctx context.Context) error {
		<-ctx.Done()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.order = append(s.order, name)
		return err
	}}
}

var quiet = slog.New(slog.DiscardHandler)

func TestStagesEndInOrder(t *testing.T) {
	var s stopper
	ctx, cancel := context.WithCancel(context.Background())
	stages := []stage{s.stage("a", nil), s.stage("b", context.Canceled), s.stage("c", nil), {"trigger", func(ctx context.Context) error {
		cancel()
		<-ctx.Done()
		return nil
	}}}
	if err := runStages(ctx, quiet, stages); err != nil {
		t.Error(err)
	}
	if want := []string{"c", "b", "a"}; !slices.Equal(s.order, want) {
		t.Errorf("ended in order %v", s.order)
	}
}

func TestStageThatFailsEndsAll(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name string
		last stage
		want error
	}{
		{"failure", stage{"x", func(context.Context) error { return broken }}, broken},
		{"left by itself", stage{"x", func(context.Context) error { return nil }}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s stopper
			err := runStages(context.Background(), quiet, []stage{s.stage("a", nil), s.stage("b", errors.New("later")), c.last})
			if c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("got %v", err)
			}
			if want := []string{"b", "a"}; !slices.Equal(s.order, want) {
				t.Errorf("ended in order %v", s.order)
			}
		})
	}
}

func TestFailureWhileStopping(t *testing.T) {
	var s stopper
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	broken := errors.New("broken")
	if err := runStages(ctx, quiet, []stage{s.stage("a", nil), s.stage("b", broken)}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}
