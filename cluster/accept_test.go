package cluster

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/ironring/ironring/internal/clock"
)

// script is a listener whose Accept gives what a test sends.
type script struct{ next chan any } // a net.Conn or an error

func (s script) Accept() (net.Conn, error) {
	switch v := (<-s.next).(type) {
	case net.Conn:
		return v, nil
	case error:
		return nil, v
	}
	return nil, net.ErrClosed
}
func (s script) Close() error   { return nil }
func (s script) Addr() net.Addr { return &net.TCPAddr{} }

// TestAccept: failures pass, connections beyond the bound wait, and the end
// comes after those that are served.
func TestAccept(t *testing.T) {
	for name, c := range map[string]struct {
		last    error
		stopped bool
		want    error
	}{
		"the context ends":       {errors.New("cut short"), true, nil},
		"the listener is closed": {net.ErrClosed, false, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				l := script{make(chan any, 10)}
				var failures, serving, served atomic.Int32
				release := make(chan struct{})
				done := make(chan error, 1)
				go func() {
					done <- accept(ctx, l, 2, func(error) { failures.Add(1) }, func(c net.Conn) {
						defer c.Close()
						serving.Add(1)
						<-release
						served.Add(1)
					})
				}()
				l.next <- errors.New("too many open files")
				for range 3 {
					conn, far := net.Pipe()
					defer far.Close()
					l.next <- conn
				}
				synctest.Wait()
				if failures.Load() != 1 || serving.Load() != 0 {
					t.Errorf("%d failures, %d are served before the pause is over", failures.Load(), serving.Load())
				}
				_ = clock.Pause(ctx, 2*acceptAgain) // of the bubble
				synctest.Wait()
				if serving.Load() != 2 {
					t.Errorf("%d are served, 2 may be", serving.Load())
				}
				release <- struct{}{}
				synctest.Wait()
				if serving.Load() != 3 {
					t.Errorf("the third is not served: %d", serving.Load())
				}
				if c.stopped {
					cancel()
				}
				l.next <- c.last
				synctest.Wait()
				if len(done) != 0 {
					t.Error("ended before those that are served")
				}
				close(release)
				if err := <-done; !errors.Is(err, c.want) || served.Load() != 3 {
					t.Errorf("%v, %d were served", err, served.Load())
				}
			})
		})
	}
}
