package duties

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal"
)

// KeyMaker has the cluster's keys; the duty only decides when.
type KeyMaker interface {
	// Rotate makes the next generation for the members of a view.
	Rotate(v *fsm.View) (*api.KeysRotate, error)
	// Ready reports whether this peer has the keys of a record.
	Ready(k *api.Keys) bool
	// Reseal brings a document's sealed values under the primary key.
	Reseal(doc []byte, places ...string) ([]byte, error)
}

const (
	resealBytes = 128 << 10 // documents in one command
	resealDocs  = 100
	retireWait  = time.Minute // after a key turned out to be needed still
)

// keys brings in new keys when they are due, then reseals what is sealed with
// older ones, then retires those. Each round does one command; the next leader
// goes on wherever this one stopped, because all there is to know is in the
// state.
type keys struct {
	Config
	retireAt time.Duration // not before
	failed   map[string]bool
}

func newKeys(cfg Config) *keys { return &keys{Config: cfg, failed: map[string]bool{}} }

func (d *keys) name() string { return "keys" }

func (d *keys) round(ctx context.Context) error {
	v := d.Store.View()
	k := v.Keys()
	switch {
	case k == nil || d.Keys == nil:
		return nil
	case k.GetDue() != "":
		return d.rotate(ctx, v, k)
	case len(k.GetDataKeys()) < 2:
		clear(d.failed)
		return nil
	case !d.Keys.Ready(k):
		return errs.New(errs.WrongState, "this peer does not have the keys of generation %d", k.GetGeneration())
	}
	docs := d.older(v, k)
	if len(docs) > 0 {
		return d.propose(ctx, "bring secrets under the new key", &api.Op{Op: &api.Op_KeysReseal{KeysReseal: &api.KeysReseal{Docs: docs, Term: d.Term}}})
	}
	return d.retire(ctx, k)
}

func (d *keys) rotate(ctx context.Context, v *fsm.View, k *api.Keys) error {
	op, err := d.Keys.Rotate(v)
	if err != nil {
		return errs.New(errs.KindOf(err), "make new keys: %w", err)
	}
	op.Term = d.Term
	err = d.propose(ctx, k.GetDue(), &api.Op{Op: &api.Op_KeysRotate{KeysRotate: op}})
	if err != nil && overtaken(err) { // a member came or went: once more
		return nil
	}
	if err == nil {
		d.Logger.Info("the cluster has new keys", "generation", op.GetGeneration(), "why", k.GetDue(), "members", len(op.GetSealed()))
	}
	return err
}

// older are documents with values under older keys, resealed, as many as go
// into one command.
func (d *keys) older(v *fsm.View, k *api.Keys) (out []*api.Resealed) {
	size := 0
	add := func(node, place string, doc []byte) bool {
		is := seal.SealedWith(doc)
		if len(is) == 0 || len(is) == 1 && is[0] == k.GetDataPrimary() {
			return true
		}
		fresh, err := d.Keys.Reseal(doc, SealedPlaces(node)...)
		if err != nil {
			if !d.failed[node+place] {
				d.Logger.Error("a secret cannot be brought under the new key, so that the old key is kept: set it anew", "node", node, "field", place, "err", err)
				d.failed[node+place] = true
			}
			return true
		}
		sum := sha256.Sum256(doc)
		out = append(out, &api.Resealed{NodeId: node, Place: place, Digest: sum[:], Doc: fresh})
		size += len(fresh)
		return size < resealBytes && len(out) < resealDocs
	}
	for n := range v.Nodes() {
		id := n.GetId()
		if !add(id, "driver_info", n.GetDriverInfo()) || !add(id, "properties", n.GetProperties()) || !add(id, "extra", n.GetExtra()) ||
			!add(id, "instance_info", n.GetInstanceInfo()) || !add(id, "flow", v.Flow(id).GetArgs()) {
			return out
		}
	}
	for p := range v.Ports() {
		if !add(p.GetId(), "port/extra", p.GetExtra()) {
			return out
		}
	}
	return out
}

// SealedPlaces are what secrets of a node or port may have been sealed for:
// the additional data of their encryption.
func SealedPlaces(id string) []string {
	out := []string{seal.PortAAD(id, "extra")}
	for _, field := range []string{"driver_info", "flow", "properties", "extra", "instance_info"} {
		out = append(out, seal.NodeAAD(id, field))
	}
	return out
}

// retire forgets the older keys; Apply refuses while anything needs them.
func (d *keys) retire(ctx context.Context, k *api.Keys) error {
	now := d.Clock.Elapsed()
	if now < d.retireAt {
		return nil
	}
	old := slices.DeleteFunc(slices.Clone(k.GetDataKeys()), func(id string) bool { return id == k.GetDataPrimary() })
	err := d.propose(ctx, "nothing is sealed with them any more", &api.Op{Op: &api.Op_KeysRetire{KeysRetire: &api.KeysRetire{DataKeys: old, Term: d.Term}}})
	switch {
	case errors.Is(err, errs.Conflict):
		d.retireAt = now + retireWait
		d.Logger.Warn("old data keys are kept", "keys", old, "err", err)
		return nil
	case err == nil:
		d.Logger.Info("old data keys are retired", "keys", old)
	}
	return err
}
