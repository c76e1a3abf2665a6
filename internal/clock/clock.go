// Package clock is where time comes from. Leases and timers use Elapsed, which
// no change of the wall clock can move; Now is for display, certificates and
// audit.
package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// Clock gives the time of day and the time that has passed.
type Clock interface {
	// Now is the wall clock: it may jump either way.
	Now() time.Time
	// Elapsed is the time since some fixed moment of this boot of the host,
	// the time that the host slept included.
	Elapsed() time.Duration
}

// System is the host's clock: CLOCK_REALTIME and CLOCK_BOOTTIME.
type System struct{}

// Now implements Clock.
func (System) Now() time.Time { return time.Now() }

// Elapsed implements Clock. CLOCK_BOOTTIME goes on while the host sleeps, so
// that a lease cannot outlive a suspend.
func (System) Elapsed() time.Duration {
	var ts unix.Timespec
	// Cannot fail: the clock exists on every kernel that Go supports.
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}
