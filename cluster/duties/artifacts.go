package duties

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/errs"
)

// Times of the artifacts' duty.
const (
	copiesWanted   = 2
	copyLossWait   = 30 * time.Second // a peer that restarts is back by then
	artifactUnused = 24 * time.Hour   // of the cluster's clock, before it is dropped
	usersPeriod    = 10 * time.Minute // of the look at who uses what
	touchAfter     = time.Hour        // of the cluster's clock
)

// artifacts sees that each artifact is on two live peers, by writing into its
// record who shall get a copy, and drops what nobody has used for a day. The
// peers do the rest (package pxe/artifact).
type artifacts struct {
	Config
	short   map[string]time.Duration // digest: since when it has too few copies
	looked  time.Duration            // when the users were looked at
	started bool
}

func newArtifacts(cfg Config) *artifacts {
	return &artifacts{Config: cfg, short: map[string]time.Duration{}}
}

func (d *artifacts) name() string { return "artifacts" }

func (d *artifacts) round(ctx context.Context) error {
	v, now := d.Store.View(), d.Clock.Elapsed()
	ready := readyPeers(v)
	var err error
	seen := map[string]bool{}
	for a := range v.Artifacts() {
		seen[a.GetDigest()] = true
		for _, op := range d.copies(v, a, ready, now) {
			if perr := d.propose(ctx, "two copies of each artifact", op); !overtaken(perr) {
				err = errors.Join(err, perr)
			}
		}
	}
	for digest := range d.short {
		if !seen[digest] {
			delete(d.short, digest)
		}
	}
	if len(seen) > 0 && (!d.started || now-d.looked >= usersPeriod) {
		d.started, d.looked = true, now
		err = errors.Join(err, d.users(ctx, v))
	}
	return err
}

// readyPeers are the members that can be expected to fetch, by id.
func readyPeers(v *fsm.View) []string {
	var out []string
	for _, m := range v.Members() {
		if m.GetPhase() == api.Member_READY && v.LiveLease(m.GetId()) != nil {
			out = append(out, m.GetId())
		}
	}
	return out
}

// copies are the operations that bring an artifact nearer to two live copies.
func (d *artifacts) copies(v *fsm.View, a *api.Artifact, ready []string, now time.Duration) (ops []*api.Op) {
	digest := a.GetDigest()
	set := func(id string, state api.ArtifactCopy_State) {
		ops = append(ops, &api.Op{Op: &api.Op_ArtifactCopy{ArtifactCopy: &api.ArtifactCopy{Digest: digest, MemberId: id, State: state}}})
	}
	live, coming := 0, 0
	for _, id := range a.GetCopies() {
		switch {
		case slices.Contains(ready, id):
			live++
		case v.Member(id) == nil || v.Member(id).GetPhase() == api.Member_LEFT:
			set(id, api.ArtifactCopy_LACKS)
		}
	}
	for _, id := range a.GetWanted() {
		if slices.Contains(ready, id) {
			coming++
		} else {
			set(id, api.ArtifactCopy_LACKS)
		}
	}
	if live+coming >= min(copiesWanted, len(ready)) || live == 0 {
		delete(d.short, digest) // without a live copy there is nothing to copy from
		return ops
	}
	since, known := d.short[digest]
	if !known {
		d.short[digest] = now
		return ops
	}
	if now-since < copyLossWait {
		return ops
	}
	if id := successor(ready, a); id != "" {
		d.Logger.Info("an artifact has too few copies: a peer shall fetch one", "artifact", digest, "name", a.GetName(), "peer", id)
		set(id, api.ArtifactCopy_WANTED)
		delete(d.short, digest)
	}
	return ops
}

// successor is the next ready member without a copy, after the first that has
// one, so that the copies spread over the peers.
func successor(ready []string, a *api.Artifact) string {
	from := slices.IndexFunc(ready, func(id string) bool { return slices.Contains(a.GetCopies(), id) })
	for i := range ready {
		id := ready[(from+1+i)%len(ready)]
		if !slices.Contains(a.GetCopies(), id) && !slices.Contains(a.GetWanted(), id) {
			return id
		}
	}
	return ""
}

// users notes which artifacts are referred to and drops those that have not
// been for a day. What a command finds referred to at its turn stays.
func (d *artifacts) users(ctx context.Context, v *fsm.View) error {
	users, ticks := v.ArtifactUsers(), v.Globals().GetTicks()
	touch := &api.ArtifactTouch{Term: d.Term}
	var err error
	for a := range v.Artifacts() {
		age := ms(ticks - min(ticks, a.GetReferencedTick()))
		switch {
		case len(users[a.GetDigest()]) > 0:
			if age >= touchAfter && len(touch.GetDigests()) < 1000 {
				touch.Digests = append(touch.Digests, a.GetDigest())
			}
		case age >= artifactUnused:
			d.Logger.Info("an artifact was not used for a day and is dropped", "artifact", a.GetDigest(), "name", a.GetName())
			perr := d.propose(ctx, "not used for a day", &api.Op{Op: &api.Op_ArtifactDrop{ArtifactDrop: &api.ArtifactDrop{
				Digest: a.GetDigest(), ReferencedTick: a.GetReferencedTick(), UnusedForMs: uint64(artifactUnused.Milliseconds()),
			}}})
			if !overtaken(perr) && !errors.Is(perr, errs.WrongState) {
				err = errors.Join(err, perr)
			}
		}
	}
	if len(touch.GetDigests()) > 0 {
		err = errors.Join(err, d.propose(ctx, "artifacts in use", &api.Op{Op: &api.Op_ArtifactTouch{ArtifactTouch: touch}}))
	}
	return err
}
