package agent

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/ironring/ironring/api"
)

// cmdKey is the log attribute that travels as AgentLog.cmd_id.
const cmdKey = "cmd"

// logQueue holds log lines until a stream takes them. It is bounded: while no
// peer listens the oldest lines go first, and how many went is said later.
type logQueue struct {
	limit int
	wake  chan struct{} // buffered by one: there is something to send

	mu      sync.Mutex
	lines   []*api.AgentLog // guarded by mu
	dropped int             // guarded by mu; lines lost since the last take
}

func newLogQueue(limit int) *logQueue {
	return &logQueue{limit: limit, wake: make(chan struct{}, 1)}
}

func (q *logQueue) put(l *api.AgentLog) {
	q.mu.Lock()
	if len(q.lines) >= q.limit {
		n := len(q.lines) - q.limit + 1
		q.lines = append(q.lines[:0:0], q.lines[n:]...)
		q.dropped += n
	}
	q.lines = append(q.lines, l)
	q.mu.Unlock()
	poke(q.wake)
}

// take removes up to n lines, first of all a line about lost ones. More may
// be left; wake is set again then.
func (q *logQueue) take(n int) []*api.AgentLog {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []*api.AgentLog
	if q.dropped > 0 {
		l := &api.AgentLog{Level: slog.LevelWarn.String(), Text: fmt.Sprintf("%d log lines were dropped while no peer was connected", q.dropped)}
		if len(q.lines) > 0 {
			l.AtMs = q.lines[0].AtMs
		}
		out = append(out, l)
		q.dropped = 0
	}
	n = min(n, len(q.lines))
	out = append(out, q.lines[:n]...)
	q.lines = q.lines[n:]
	if len(q.lines) > 0 {
		poke(q.wake)
	}
	return out
}

// putBack returns lines that could not be sent to the front.
func (q *logQueue) putBack(lines []*api.AgentLog) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lines = append(append([]*api.AgentLog(nil), lines...), q.lines...)
	if n := len(q.lines) - q.limit; n > 0 {
		q.lines = q.lines[n:]
		q.dropped += n
	}
	poke(q.wake)
}

// poke sets a wake-up that is not set yet.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// teeHandler gives each record to the local handler and, from Info on, to the
// queue.
type teeHandler struct {
	local slog.Handler
	queue *logQueue
	attrs string // rendered attributes of With
	cmd   string
	group string
	clock *serverClock
}

func (h *teeHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo || h.local.Enabled(ctx, l)
}

func (h *teeHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		var b strings.Builder
		b.WriteString(r.Message)
		b.WriteString(h.attrs)
		cmd := h.cmd
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == cmdKey {
				cmd = a.Value.String()
			} else {
				writeAttr(&b, h.group, a)
			}
			return true
		})
		at := r.Time
		if now, ok := h.clock.now(); ok {
			at = now
		}
		h.queue.put(&api.AgentLog{AtMs: at.UnixMilli(), Level: r.Level.String(), Text: b.String(), CmdId: cmd})
	}
	if !h.local.Enabled(ctx, r.Level) {
		return nil
	}
	return h.local.Handle(ctx, r)
}

func (h *teeHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	n.local = h.local.WithAttrs(attrs)
	var b strings.Builder
	for _, a := range attrs {
		if a.Key == cmdKey {
			n.cmd = a.Value.String()
		} else {
			writeAttr(&b, h.group, a)
		}
	}
	n.attrs += b.String()
	return &n
}

func (h *teeHandler) WithGroup(name string) slog.Handler {
	n := *h
	n.local = h.local.WithGroup(name)
	n.group += name + "."
	return &n
}

func writeAttr(b *strings.Builder, group string, a slog.Attr) {
	v := a.Value.Resolve()
	if s := v.String(); strings.ContainsAny(s, " \t\"=") {
		fmt.Fprintf(b, " %s%s=%q", group, a.Key, s)
	} else {
		fmt.Fprintf(b, " %s%s=%s", group, a.Key, s)
	}
}
