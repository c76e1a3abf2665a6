//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// consoles writes to several terminals. Each has a writer and a bounded queue
// of its own: a serial port that nobody reads must not stop the agent.
type consoles struct {
	queues []chan []byte
}

// openConsoles finds the consoles of the kernel line, and the first serial
// port beside them.
func openConsoles() *consoles {
	c := &consoles{}
	names := []string{"ttyS0"}
	if b, err := os.ReadFile("/sys/class/tty/console/active"); err == nil {
		names = append(strings.Fields(string(b)), names...)
	}
	seen := map[string]bool{}
	for _, n := range names {
		if n == "tty0" {
			n = "tty1" // tty0 is whichever is shown
		}
		if seen[n] {
			continue
		}
		seen[n] = true
		f, err := os.OpenFile("/dev/"+n, os.O_WRONLY|unix.O_NOCTTY, 0)
		if err != nil {
			continue
		}
		c.add(f)
	}
	if len(c.queues) == 0 {
		c.add(os.Stdout)
	}
	return c
}

func (c *consoles) add(w io.Writer) {
	q := make(chan []byte, 512)
	c.queues = append(c.queues, q)
	go func() {
		for b := range q {
			_, _ = w.Write(b) // there is nowhere to say so
		}
	}()
}

func (c *consoles) write(b []byte) {
	for _, q := range c.queues {
		select {
		case q <- b:
		default:
		}
	}
}

// consoleHandler prints one line per record: who, seconds since the kernel
// started, message, facts.
type consoleHandler struct {
	out   *consoles
	attrs string
	group string
	mu    *sync.Mutex // keeps lines in order on all consoles
}

func newConsoleHandler(out *consoles) *consoleHandler {
	return &consoleHandler{out: out, mu: &sync.Mutex{}}
}

func (h *consoleHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (h *consoleHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "ironring-agent: %6.2f ", uptime().Seconds())
	if r.Level >= slog.LevelWarn {
		fmt.Fprintf(&b, "%s ", r.Level)
	}
	b.WriteString(r.Message)
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintf(&b, " %s%s=%s", h.group, a.Key, a.Value.Resolve())
		return true
	})
	// Terminals in the state that the kernel leaves them want both.
	line := strings.ReplaceAll(strings.TrimRight(b.String(), "\n"), "\n", "\r\nironring-agent:   ") + "\r\n"
	h.mu.Lock()
	defer h.mu.Unlock()
	h.out.write([]byte(line))
	return nil
}

func (h *consoleHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	for _, a := range attrs {
		n.attrs += fmt.Sprintf(" %s%s=%s", h.group, a.Key, a.Value.Resolve())
	}
	return &n
}

func (h *consoleHandler) WithGroup(name string) slog.Handler {
	n := *h
	n.group += name + "."
	return &n
}

// uptime is the time since the kernel started.
func uptime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}
