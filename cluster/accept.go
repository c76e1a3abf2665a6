package cluster

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/ironring/ironring/internal/clock"
)

// acceptAgain is the wait after an Accept that failed: out of file descriptors
// or memory, which may pass.
const acceptAgain = 200 * time.Millisecond

// accept serves connections, at most so many at a time, until ctx ends, which
// must also end a waiting Accept, or the listener is closed. It then waits for
// those that are being served. An error is net.ErrClosed, and only while ctx
// goes on; failed hears of all other errors.
func accept(ctx context.Context, l net.Listener, most int, failed func(error), serve func(net.Conn)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, most)
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			failed(err)
			_ = clock.Pause(ctx, acceptAgain)
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			conn.Close()
			return nil
		}
		wg.Go(func() {
			defer func() { <-slots }()
			serve(conn)
		})
	}
}
