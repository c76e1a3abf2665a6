package drivertest

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// consoleEnds is how long a session may take to be given back.
const consoleEnds = 3 * time.Second

// reader is a reader of a console.
type reader struct {
	opened chan struct{} // closed by ReadConsole; twice is a panic
	ended  chan error

	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

// Write implements io.Writer.
func (r *reader) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *reader) saw(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains(r.text.String(), text)
}

// reads begins to read the console and returns once it is open.
func (b *bench) reads(t *testing.T, ctx context.Context, g drivers.Grant) *reader {
	t.Helper()
	r := &reader{opened: make(chan struct{}), ended: make(chan error, 1)}
	go func() {
		r.ended <- b.Driver.(drivers.ConsoleReader).ReadConsole(ctx, b.Target, g, func() { close(r.opened) }, r)
	}()
	select {
	case <-r.opened:
	case err := <-r.ended:
		t.Fatalf("read the console: %v (%v)", err, errs.KindOf(err))
	case <-b.ctx.Done():
		t.Fatal("the console does not open")
	}
	return r
}

// shows prints a line until it is seen: some BMCs lose what is printed as a
// session opens.
func (b *bench) shows(t *testing.T, r *reader, line string) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(b.Settle); !r.saw(line); <-tick.C {
		if time.Now().After(limit) {
			t.Fatalf("%q is not seen on the console", line)
		}
		b.Console(line + "\r\n")
	}
}

func testConsole(t *testing.T, b *bench) {
	d, ok := b.Driver.(drivers.ConsoleReader)
	if !ok {
		return
	}
	fail := func() { t.Error("opened") }
	b.kind(t, "no grant", d.ReadConsole(b.ctx, b.Target, nil, fail, &reader{}), errs.Fenced)
	if b.Console == nil {
		return
	}
	b.unchanged(t, func() {
		ctx, cancel := context.WithCancel(b.ctx)
		defer cancel()
		r := b.reads(t, ctx, b.grant())
		b.shows(t, r, "first session")
		b.kind(t, "a second reader", d.ReadConsole(b.ctx, b.Target, b.grant(), fail, &reader{}), errs.Busy)
		b.shows(t, r, "still there")
		// Other calls go on beside it.
		_, err := b.Driver.(drivers.PowerReader).PowerState(b.ctx, b.Target)
		b.fine(t, "power state", err)
		b.within(t, consoleEnds, func() {
			cancel()
			b.kind(t, "given up", <-r.ended, errs.Timeout)
		})
		// The session was given back: another one opens.
		g := NewGrant(time.Minute)
		r = b.reads(t, b.ctx, g)
		b.shows(t, r, "second session")
		b.within(t, consoleEnds, func() {
			g.End()
			b.kind(t, "grant ended", <-r.ended, errs.Fenced)
		})
		// It could not be given back then: who comes next ends it.
		ctx, cancel = context.WithCancel(b.ctx)
		defer cancel()
		r = b.reads(t, ctx, b.grant())
		b.shows(t, r, "third session")
		cancel()
		b.kind(t, "given up again", <-r.ended, errs.Timeout)
	})
}
