// Package sources bounds how often hosts may ask for something that needs no
// certificate and costs more than it should for nothing: enrolments, calls of
// deployed systems, TFTP requests. It is not for what is under way at one time.
//
// # Invariants
//
//   - Memory is fixed by New: anybody can send in the name of as many hosts as
//     he likes, and a table that he can fill is one that he can have forgotten.
//   - No host gets more than its burst and its rate, whoever else asks, and no
//     call of others takes from what a host has used up.
//   - Refused calls take nothing, neither from their host nor from others. Only
//     one that its host may make and that finds the budget of all hosts empty
//     counts for its host.
//
// # How
//
// Each host has two counters, by a hash that nobody outside can compute, and
// has used at most what the lower one says (a count-min sketch with
// conservative update). A host alone is counted exactly; others can only
// make it wait, and only when they fill both of its counters: with k hosts that
// ask without end that is 1 host in (counters/k)², 1 in 16 million when there
// is one and 1 in 1 700 with a hundred. Forged hosts of one call each fill all
// counters only where they come faster than the counters together let go: with
// 5 a second for each host, above 20 000 calls a second.
//
// # Concurrency
//
// Limits is safe for concurrent use.
package sources

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"github.com/ironring/ironring/internal/errs"
)

// counters is how many counters a row has; each host has one in each of two.
const counters = 4096

// Rate is how often something may be done.
type Rate struct {
	PerSecond float64 // in the long run
	Burst     int     // at once, after a silence
}

// Config of Limits.
type Config struct {
	Calls  string               // what is bounded, for errors: "enrolments"
	Host   Rate                 // of each host; required
	All    Rate                 // of all hosts together; zero: no bound
	Passed func() time.Duration // the time since some moment, never less than before; required
}

// Limits counts the calls of hosts and of all together.
type Limits struct {
	cfg  Config
	seed maphash.Seed

	mu    sync.Mutex
	hosts [2][counters]debt // guarded by mu
	all   debt              // guarded by mu
}

// debt is the moment at which all calls that were counted will have been worked
// off at the rate, before now when they are.
type debt time.Duration

// New makes Limits.
func New(cfg Config) *Limits {
	return &Limits{cfg: cfg, seed: maphash.MakeSeed()}
}

// Allow counts a call. It is an error of kind Busy when the host, or all hosts
// together, call too often. The zero address is a host too.
func (l *Limits) Allow(host netip.Addr) error {
	h := maphash.Comparable(l.seed, host.Unmap())
	now := l.cfg.Passed()
	l.mu.Lock()
	defer l.mu.Unlock()
	one, two := &l.hosts[0][h%counters], &l.hosts[1][(h>>32)%counters]
	used, ok := l.cfg.Host.after(min(*one, *two), now)
	if !ok {
		return errs.About(errs.Busy, host.String(), "too many %s from %s: try again in a few seconds", l.cfg.Calls, host)
	}
	*one, *two = max(*one, used), max(*two, used)
	if l.cfg.All == (Rate{}) {
		return nil
	}
	used, ok = l.cfg.All.after(l.all, now)
	if !ok {
		return errs.About(errs.Busy, host.String(), "too many %s at this peer: try again in a few seconds, or another peer", l.cfg.Calls)
	}
	l.all = used
	return nil
}

// after is the debt with one call more; false when that is above the burst.
func (r Rate) after(d debt, now time.Duration) (debt, bool) {
	each := float64(time.Second) / r.PerSecond
	d = max(d, debt(now)) + debt(each)
	return d, float64(d)-float64(now) < (float64(r.Burst)+0.5)*each // half a call: each is rounded
}
