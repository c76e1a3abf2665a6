package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/errs"
)

// snapshotsDir is where raft.FileSnapshotStore keeps snapshots, each in a
// directory TERM-INDEX-MILLISECONDS.
var snapshotsDir = filepath.Join(raftDir, "snapshots")

// inspect opens the log only to read, so that one that is refused stays as it
// is, and looks at all that it has.
func (d *dataDir) inspect(id *identity, snaps raft.SnapshotStore, log *slog.Logger) (err error) {
	name := filepath.Join(raftDir, logFile)
	defer func() {
		if p := recover(); p != nil { // bbolt and its user panic at what they do not expect
			err = d.lostState(id, name, fmt.Sprintf("is damaged (%v)", p))
		}
	}()
	bolt, err := openBolt(d.file(name), true)
	if err != nil {
		return unusable(d.file(name), "open the log", err)
	}
	defer func() { err = errors.Join(err, bolt.Close()) }()
	store := checkedStore{bolt}
	if err := store.checkOwner(d, id); err != nil {
		return err
	}
	return d.checkHistory(id, store, snaps, log)
}

// checkHistory makes sure that what this peer has acknowledged is whole: the
// values of its votes, a snapshot that can be restored, and each entry after
// it. Raft would find a gap too, but only later, and panic. A damaged snapshot
// does no harm while an older one and the log say the same.
func (d *dataDir) checkHistory(id *identity, store checkedStore, snaps raft.SnapshotStore, log *slog.Logger) error {
	name := filepath.Join(raftDir, logFile)
	for _, key := range stableKeys {
		if _, err := store.Get([]byte(key)); err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
			return d.lostState(id, name, "is damaged ("+err.Error()+")")
		}
	}
	s, err := d.checkSnapshots(id, snaps)
	if err != nil {
		return err
	}
	first, err := store.FirstIndex()
	if err != nil {
		return d.lostState(id, name, "is damaged ("+err.Error()+")")
	}
	last, err := store.LastIndex()
	if err != nil {
		return d.lostState(id, name, "is damaged ("+err.Error()+")")
	}
	for i := max(first, 1); i <= last; i++ {
		var l raft.Log
		switch err := store.GetLog(i, &l); {
		case err == nil:
		case errors.Is(err, raft.ErrLogNotFound) && i <= s.sound:
			i = s.sound // Raft leaves such a gap when it is sent a snapshot
		case errors.Is(err, raft.ErrLogNotFound):
			return d.lostState(id, name, fmt.Sprintf("is damaged (entry %d is missing)", i))
		default:
			return d.lostState(id, name, "is damaged ("+err.Error()+")")
		}
	}
	switch {
	case first > s.sound+1 && s.damaged == nil:
		return d.lostState(id, snapshotsDir, fmt.Sprintf("has no snapshot of entries %d to %d, which the log leaves out", s.sound+1, first-1))
	case s.damaged == nil:
		return nil
	case s.sound == 0 || first == 0 || first > s.sound+1 || last < s.lost:
		return s.damaged
	}
	log.Warn("a snapshot is damaged, the log has what it had", "entry", s.lost, "err", s.why)
	return nil
}

// found is what checkSnapshots finds.
type found struct {
	sound   uint64 // the newest snapshot that can be restored holds entries up to this; 0: there is none
	lost    uint64 // the newest that cannot, if it is newer
	damaged error  // about that one
	why     error  // its cause
}

// checkSnapshots reads the snapshots, newest first, until one is sound.
func (d *dataDir) checkSnapshots(id *identity, snaps raft.SnapshotStore) (found, error) {
	var f found
	listed, err := snaps.List()
	if err != nil {
		return f, unusable(d.file(snapshotsDir), "read snapshots", err)
	}
	known := map[string]bool{}
	for _, meta := range listed {
		known[meta.ID] = true
		if f.sound > 0 {
			continue
		}
		cluster, err := peek(snaps, meta.ID)
		path := filepath.Join(snapshotsDir, meta.ID)
		switch {
		case errors.Is(err, errs.Unsupported):
			return f, errs.About(errs.Unsupported, d.file(path), "%s was written by a newer version of ironring: start that version or a newer one: %w", d.file(path), err)
		case err == nil && cluster != "" && cluster != id.ClusterID:
			return f, d.lostState(id, path, fmt.Sprintf("belongs to cluster %s, not to %s", cluster, id.ClusterID))
		case err == nil:
			f.sound = meta.Index
		default:
			f.note(d, id, meta.ID, meta.Index, err)
		}
	}
	entries, err := os.ReadDir(d.file(snapshotsDir))
	if err != nil {
		return f, unusable(d.file(snapshotsDir), "read snapshots", err)
	}
	for _, e := range entries { // those whose meta.json cannot be read are not listed
		if index, ok := snapshotIndex(e.Name()); ok && e.IsDir() && !known[e.Name()] && index > f.sound && len(listed) < snapshotsKept {
			f.note(d, id, e.Name(), index, errors.New("its meta.json cannot be read"))
		}
	}
	return f, nil
}

// note remembers the newest damaged snapshot.
func (f *found) note(d *dataDir, id *identity, name string, index uint64, err error) {
	if index > f.lost {
		f.lost, f.why = index, err
		f.damaged = d.lostState(id, filepath.Join(snapshotsDir, name), "is damaged ("+err.Error()+") and the log does not have what it had")
	}
}

func snapshotIndex(name string) (uint64, bool) {
	parts := strings.Split(name, "-")
	if len(parts) != 3 {
		return 0, false
	}
	index, err := strconv.ParseUint(parts[1], 10, 64)
	return index, err == nil
}

// peek reads all of a snapshot against its checksum, and its beginning.
func peek(snaps raft.SnapshotStore, id string) (cluster string, err error) {
	_, r, err := snaps.Open(id)
	if err != nil {
		return "", err
	}
	defer r.Close()
	return fsm.Peek(r)
}
