package bmc

import (
	"slices"
	"time"
)

// Event is one request that could change the machine.
type Event struct {
	Received  time.Time
	Effective time.Time // zero: not in effect, or never
	Actor     string    // user and address of the client
	Session   string    // id of its session, "" with basic authentication
	What      string    // "power", "boot", "secure_boot", "insert", "eject", "led", "clear_log"
	Arg       string    // ResetType, boot target/enabled/mode, or the new value
	Status    int       // answered, 0: not answered
	Before    string    // power state, or boot override
	After     string
}

// Stats are counters since the start.
type Stats struct {
	Connections  int // TCP connections
	Open         int // of them, open now
	MostAtOnce   int // requests under way at the same time
	Requests     int // requests of any kind
	Logins       int // sessions opened
	Logouts      int // sessions closed by their clients
	Refused      int // logins and requests with wrong credentials
	Basic        int // requests with basic authentication
	Sessions     int // open now
	MostSessions int // at the same time
	Changes      int // requests to change the machine, refused ones too
	PowerOns     int // how often the machine started

	powered bool // the machine behind has power
	atOnce  int
}

// Stats returns the counters.
func (b *BMC) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expireLocked()
	s := b.stats
	s.Sessions = len(b.sessions)
	return s
}

// Trace returns the latest changes, oldest first.
func (b *BMC) Trace() []Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Event, 0, len(b.trace))
	for _, e := range b.trace {
		out = append(out, *e)
	}
	return out
}

// record adds an event to the trace; later changes of it are made under mu.
func (b *BMC) record(e *Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stats.Changes++
	if len(b.trace) >= b.cfg.MaxTrace {
		b.trace = slices.Delete(b.trace, 0, len(b.trace)-b.cfg.MaxTrace+1)
	}
	b.trace = append(b.trace, e)
}

func (b *BMC) count(f func(*Stats)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.stats)
}
