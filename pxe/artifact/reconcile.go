package artifact

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
)

// retryAfter is the pause between two attempts at a copy that the leader wants.
const retryAfter = 30 * time.Second

// follow keeps the files in line with the records until ctx ends: at each
// change of an artifact, and once in a period.
func (k *Keeper) follow(ctx context.Context) {
	tick := time.NewTicker(k.cfg.Period)
	defer tick.Stop()
	at := k.cfg.Store.Index()
	for ctx.Err() == nil {
		if err := k.reconcile(ctx); err != nil && ctx.Err() == nil {
			k.log.Warn("artifacts are not in line with their records, will try again", "err", err)
		}
		at = k.awaitChange(ctx, at, tick.C)
	}
}

// awaitChange returns when an artifact's record has changed or at the tick.
func (k *Keeper) awaitChange(ctx context.Context, at uint64, tick <-chan time.Time) uint64 {
	for {
		changes, upTo, more, err := k.cfg.Store.Changes(at)
		if err != nil { // too far behind
			return k.cfg.Store.Index()
		}
		at = upTo
		if slices.ContainsFunc(changes, func(c fsm.Change) bool { return c.Table == fsm.TableArtifacts }) {
			return at
		}
		select {
		case <-more:
		case <-tick:
			return at
		case <-ctx.Done():
			return at
		}
	}
}

// reconcile looks at each record and each file once.
func (k *Keeper) reconcile(ctx context.Context) error {
	full, partial, err := k.store.Digests()
	if err != nil {
		return err
	}
	v := k.cfg.Store.View()
	for a := range v.Artifacts() {
		digest := a.GetDigest()
		has := k.Has(digest)
		said := slices.Contains(a.GetCopies(), k.cfg.Self)
		switch {
		case has && !said:
			err = errors.Join(err, k.say(ctx, digest, api.ArtifactCopy_HAS))
		case !has && said:
			k.log.Error("an artifact that this peer should have is not on its disk", "artifact", digest, "name", a.GetName())
			err = errors.Join(err, k.say(ctx, digest, api.ArtifactCopy_LACKS))
		case !has && slices.Contains(a.GetWanted(), k.cfg.Self) && k.due(digest):
			if _, ferr := k.fetch(ctx, checksum{"sha256", digest}, int64(a.GetSize()), nil, nil); ferr != nil { //nolint:gosec // sizes of files
				err = errors.Join(err, ferr)
			}
		}
	}
	return errors.Join(err, k.sweep(v, full, partial))
}

// due says whether a wanted copy may be tried, and puts the next try off.
func (k *Keeper) due(digest string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.cfg.Clock.Elapsed()
	if at, ok := k.retry[digest]; ok && now < at {
		return false
	}
	k.retry[digest] = now + retryAfter
	return true
}

// scrub reads all files again and again, slowly, until ctx ends.
func (k *Keeper) scrub(ctx context.Context) {
	for ctx.Err() == nil {
		start := time.Now()
		full, _, err := k.store.Digests()
		if err != nil {
			k.log.Error("the artifacts cannot be listed", "err", err)
		}
		// A peer that restarts often must not check the same ones each time.
		rand.Shuffle(len(full), func(i, j int) { full[i], full[j] = full[j], full[i] })
		for _, digest := range full {
			k.check(ctx, digest)
		}
		if clock.Pause(ctx, k.cfg.ScrubEvery-time.Since(start)) != nil {
			return
		}
		if clock.Pause(ctx, time.Second) != nil { // with nothing to read it is no busy loop
			return
		}
	}
}

// check verifies one file. A damaged one is moved away, the record loses the
// copy, and the file is fetched anew from a peer that has it.
func (k *Keeper) check(ctx context.Context, digest string) {
	err := k.store.Verify(ctx, digest, k.cfg.ScrubRate)
	if err == nil || !errors.Is(err, errDamaged) {
		return // or deleted meanwhile
	}
	k.log.Error("an artifact is damaged on this peer's disk: moved to quarantine and fetched anew", "artifact", digest, "err", err)
	if err := k.store.quarantine(digest); err != nil {
		k.log.Error("a damaged artifact cannot be moved away", "artifact", digest, "err", err)
		return
	}
	if err := k.say(ctx, digest, api.ArtifactCopy_LACKS); err != nil {
		k.log.Warn("the loss of a copy could not be recorded, will try again", "artifact", digest, "err", err)
	}
	a := k.cfg.Store.View().Artifact(digest)
	if a == nil {
		return
	}
	if _, err := k.fetch(ctx, checksum{"sha256", digest}, int64(a.GetSize()), nil, nil); err != nil { //nolint:gosec // sizes of files
		k.log.Warn("a damaged artifact could not be fetched anew", "artifact", digest, "err", err)
	}
}
