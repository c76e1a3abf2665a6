package drivertest

import (
	"sync"
	"time"

	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// Grant is a grant that a test can end and extend. It is safe for concurrent
// use.
type Grant struct {
	mu       sync.Mutex
	deadline time.Time // guarded by mu
	ended    bool      // guarded by mu
	checks   int       // guarded by mu
}

var _ drivers.Grant = (*Grant)(nil)

// NewGrant gives a grant that lasts for d.
func NewGrant(d time.Duration) *Grant {
	return &Grant{deadline: time.Now().Add(d)}
}

// Check implements drivers.Grant.
func (g *Grant) Check() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.checks++
	if g.ended {
		return errs.New(errs.Fenced, "the test has ended the grant")
	}
	return nil
}

// Deadline implements drivers.Grant.
func (g *Grant) Deadline() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.deadline
}

// Token implements drivers.Grant.
func (g *Grant) Token() uint64 { return 7 }

// End ends the grant.
func (g *Grant) End() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
}

// Extend makes the grant last for d from now.
func (g *Grant) Extend(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deadline = time.Now().Add(d)
}

// Checks is how often the grant was checked.
func (g *Grant) Checks() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.checks
}
