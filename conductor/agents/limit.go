package agents

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ironring/ironring/internal/errs"
)

// Bounds of enrolment at one peer: an enrolment costs a signature and an entry
// of the log, and needs no certificate. A rack that boots at once behind one
// router stays below them; agents that are told to wait try again.
const (
	enrolPerSource      = rate.Limit(20) // a second
	enrolBurstPerSource = 40
	enrolInAll          = rate.Limit(100)
	enrolBurstInAll     = 200
	sourcesKept         = 4096
	sweepEvery          = time.Second // looking at all sources for each new one would cost more than it saves
)

// limits bounds calls for each source address and in all. Safe for concurrent
// use.
type limits struct {
	now func() time.Time

	mu      sync.Mutex
	all     *rate.Limiter            // guarded by mu
	sources map[string]*rate.Limiter // guarded by mu; at most sourcesKept
	swept   time.Time                // guarded by mu; when silent sources were forgotten
}

func newLimits(now func() time.Time) *limits {
	return &limits{now: now, all: rate.NewLimiter(enrolInAll, enrolBurstInAll), sources: map[string]*rate.Limiter{}}
}

// allow is an error of kind Busy when a source, or all of them together, ask
// too often. A call that one source may not make takes nothing from the others.
func (l *limits) allow(source string) error {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sources[source]
	if s == nil {
		if len(l.sources) >= sourcesKept && now.Sub(l.swept) >= sweepEvery {
			l.forgetLocked(now)
		}
		s = rate.NewLimiter(enrolPerSource, enrolBurstPerSource)
		if len(l.sources) < sourcesKept { // else it is only bounded with all others
			l.sources[source] = s
		}
	}
	if !s.AllowN(now, 1) {
		return errs.About(errs.Busy, source, "too many enrolments from %s: try again in a few seconds", source)
	}
	if !l.all.AllowN(now, 1) {
		return errs.About(errs.Busy, source, "too many enrolments at this peer: try again in a few seconds, or another peer")
	}
	return nil
}

// forgetLocked drops the sources that have been silent long enough to be new.
func (l *limits) forgetLocked(now time.Time) {
	l.swept = now
	for source, s := range l.sources {
		if s.TokensAt(now) >= enrolBurstPerSource {
			delete(l.sources, source)
		}
	}
}
