package fsm

import (
	"sync"

	"github.com/ironring/ironring/internal/errs"
)

// changesKept is how many changes a watcher may lag behind.
const changesKept = 16384

// Change says that a record was written or deleted. Read it from a View: a
// record may have changed again since.
type Change struct {
	Index uint64
	Table string
	Key   string
}

// ErrCompacted means that changes between the asked index and now were
// dropped. It has kind NotFound.
var ErrCompacted = errs.New(errs.NotFound, "the changes after this index are no longer kept")

// changeRing holds the last changes and wakes those who wait for more.
type changeRing struct {
	mu   sync.Mutex
	ring []Change      // guarded by mu; oldest at start
	from int           // guarded by mu; where the oldest is once the ring is full
	base uint64        // guarded by mu; changes up to here may be missing
	at   uint64        // guarded by mu; complete up to here
	more chan struct{} // guarded by mu; closed and replaced at each entry
}

// reset forgets everything: the state was replaced.
func (c *changeRing) reset(at uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ring, c.from, c.base, c.at = nil, 0, at, at
	c.wakeLocked()
}

// add appends the changes of the entry at an index.
func (c *changeRing) add(at uint64, changes []Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ch := range changes {
		if len(c.ring) < changesKept {
			c.ring = append(c.ring, ch)
			continue
		}
		c.base = c.ring[c.from].Index
		c.ring[c.from] = ch
		c.from = (c.from + 1) % changesKept
	}
	c.at = at
	c.wakeLocked()
}

func (c *changeRing) wakeLocked() {
	if c.more != nil {
		close(c.more)
	}
	c.more = make(chan struct{})
}

func (c *changeRing) position() (at uint64, more <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at, c.more
}

func (c *changeRing) since(after uint64) ([]Change, uint64, <-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if after < c.base {
		return nil, c.at, c.more, ErrCompacted
	}
	// Walk back from the newest: watchers are mostly close to it.
	n := 0
	for n < len(c.ring) && c.nthLocked(len(c.ring)-1-n).Index > after {
		n++
	}
	if n == 0 {
		return nil, c.at, c.more, nil
	}
	out := make([]Change, 0, n)
	for i := len(c.ring) - n; i < len(c.ring); i++ {
		out = append(out, c.nthLocked(i))
	}
	return out, c.at, c.more, nil
}

func (c *changeRing) nthLocked(i int) Change { return c.ring[(c.from+i)%len(c.ring)] }
