package artifact

import (
	"errors"
	"time"

	"github.com/ironring/ironring/fsm"
)

// A file is on disk before its record is committed, so files without a record
// must be kept for a while. The rule:
//
//   - A file that is being put, read, replicated or fetched is pinned.
//   - Any other is kept until Config.Unrecorded has passed since it was last
//     wanted, or was first seen without a record.
//   - That time must have passed on two clocks. On the cluster's, as far as this
//     peer has applied it: a record is committed with the moment until which
//     each of its copies is kept, and refused after it. So a peer that would
//     delete a file has applied the record before, however long it, or whoever
//     commits, was paused or cut off. And on the host's: a peer that has just
//     started applies hours of the cluster's clock at once, and may have
//     promised something at the end of them.

// moment is a time of both clocks.
type moment struct {
	ticks   uint64        // of the cluster, milliseconds
	elapsed time.Duration // of this host
}

func (k *Keeper) now(v *fsm.View) moment {
	return moment{v.Globals().GetTicks(), k.cfg.Clock.Elapsed()}
}

// want notes that somebody needs a file now, and gives the tick of the
// cluster's clock until which it is kept without a record.
func (k *Keeper) want(name string) (until uint64) {
	now := k.now(k.cfg.Store.View())
	k.mu.Lock()
	defer k.mu.Unlock()
	was := k.asked[name]
	k.asked[name] = moment{max(now.ticks, was.ticks), max(now.elapsed, was.elapsed)}
	return k.asked[name].ticks + uint64(k.cfg.Unrecorded.Milliseconds()) //nolint:gosec // not negative
}

// pin keeps a file until release, and from then on as one that was just
// wanted.
func (k *Keeper) pin(name string) (release func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pins[name]++
	return func() {
		k.want(name)
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.pins[name]--; k.pins[name] == 0 {
			delete(k.pins, name)
		}
	}
}

// sweep deletes files that no record has named for a while, and parts of files
// that nobody has gone on with. A file that is asked for between the look and
// the deletion is safe because both happen under the lock.
func (k *Keeper) sweep(v *fsm.View, full, partial []string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now(v)
	seen := map[string]bool{}
	var err error
	for _, digest := range full {
		seen[digest] = true
		if v.Artifact(digest) != nil {
			delete(k.asked, digest)
		} else if k.forgottenLocked(digest, now) {
			k.log.Info("deleting a file that is no artifact any more", "artifact", digest)
			err = errors.Join(err, k.store.Remove(digest))
			delete(k.asked, digest)
		}
	}
	for _, name := range partial {
		whole := seen[name] && k.flights[name] == nil
		seen[name] = true
		if whole || k.forgottenLocked(name, now) {
			err = errors.Join(err, k.store.removePartial(name))
			if !whole {
				delete(k.asked, name)
			}
		}
	}
	for name := range k.asked {
		if !seen[name] && k.forgottenLocked(name, now) {
			delete(k.asked, name)
		}
	}
	for digest, at := range k.retry {
		if now.elapsed >= at {
			delete(k.retry, digest)
		}
	}
	return err
}

// forgottenLocked says whether a file that has no record may go; one that was
// not known of is noted.
func (k *Keeper) forgottenLocked(name string, now moment) bool {
	since, known := k.asked[name]
	if !known {
		k.asked[name] = now
		return false
	}
	return k.pins[name] == 0 && k.flights[name] == nil && now.elapsed >= since.elapsed+k.cfg.Unrecorded &&
		now.ticks >= since.ticks+uint64(k.cfg.Unrecorded.Milliseconds()) //nolint:gosec // not negative
}
