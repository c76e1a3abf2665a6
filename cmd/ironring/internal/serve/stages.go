package serve

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/ironring/ironring/cluster"
)

// stage is a part of the peer that runs until its context ends.
type stage struct {
	name string
	run  func(ctx context.Context) error
}

// errEnded is why the others stop when a stage ended without an error.
var errEnded = errors.New("ended")

// runStages starts all stages and waits until ctx ends or one of
// them does. Then it ends them from the last to the first, each waited for
// before the next one's context ends, and gives the first error.
func runStages(ctx context.Context, log *slog.Logger, stages []stage) error {
	g, gctx := errgroup.WithContext(ctx)
	type running struct {
		stage
		stop context.CancelFunc
		done chan struct{}
	}
	var all []running
	for _, s := range stages {
		sctx, stop := context.WithCancel(context.WithoutCancel(ctx))
		r := running{s, stop, make(chan struct{})}
		all = append(all, r)
		g.Go(func() error {
			defer close(r.done)
			err := r.run(sctx)
			switch {
			case sctx.Err() != nil && errors.Is(err, context.Canceled):
				return nil
			case err == nil && sctx.Err() == nil:
				log.Info("ended by itself", "part", r.name)
				return errEnded
			case errors.As(err, new(*cluster.RemovedError)): // it has said so itself
			case err != nil:
				log.Error("failed", "part", r.name, "err", err)
			}
			return err
		})
	}
	<-gctx.Done()
	for _, r := range slices.Backward(all) {
		r.stop()
		<-r.done
		log.Debug("stopped", "part", r.name)
	}
	if err := g.Wait(); !errors.Is(err, errEnded) {
		return err
	}
	return nil
}
