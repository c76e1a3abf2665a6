package conductortest

import (
	"testing"
	"time"
)

// Until waits until a condition holds; it fails the test after a limit. In a
// synctest bubble it costs no real time.
func Until(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	end := time.NewTimer(limit)
	defer end.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// Pass lets time go by, in a synctest bubble.
func Pass(d time.Duration) { <-time.After(d) }
