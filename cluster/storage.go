package cluster

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// snapshotsKept on disk: one to restore, one in case the newest is damaged.
const snapshotsKept = 2

// logStore is what Raft keeps on disk. It is made only here, so that another
// store can take the place of this one.
type logStore interface {
	raft.LogStore
	raft.StableStore
	Close() error
}

// storage is the directory raft/.
type storage struct {
	log       logStore
	snapshots raft.SnapshotStore
	fresh     bool // made just now
	disk      *disk
}

// raftLog is the log as Raft gets it: its writes are looked at.
func (s *storage) raftLog() logStore { return notedStore{s.log, s.disk} }

// openStorage opens or makes Raft's directory. The identity remembers that it
// was made: a member that lost its log must not vote again under its old id.
func (d *dataDir) openStorage(id *identity, log *slog.Logger) (*storage, error) {
	dir := d.file(raftDir)
	path := filepath.Join(dir, logFile)
	_, err := os.Lstat(path)
	exists := err == nil
	if !exists && id.RaftMade {
		return nil, d.lostState(id, filepath.Join(raftDir, logFile), "is missing")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unusable(dir, "make raft directory", err)
	}
	if exists {
		if err := d.checkLogFile(id); err != nil {
			return nil, err
		}
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, raftLogger(log))
	if err == nil {
		err = os.Chmod(d.file(snapshotsDir), 0o700)
	}
	if err != nil {
		return nil, unusable(d.file(snapshotsDir), "open snapshots", err)
	}
	if exists && id.RaftMade {
		if err := d.inspect(id, snaps, log); err != nil {
			return nil, err
		}
	}
	bolt, err := openBolt(path, false)
	if err != nil {
		return nil, unusable(path, "open the log", err)
	}
	store := checkedStore{bolt}
	if err := store.checkOwner(d, id); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	at := &disk{path: d.path}
	return &storage{log: store, snapshots: notedSnapshots{snaps, at}, fresh: !exists, disk: at}, nil
}

func openBolt(path string, readOnly bool) (*raftboltdb.BoltStore, error) {
	return raftboltdb.New(raftboltdb.Options{
		Path:        path,
		BoltOptions: &bbolt.Options{Timeout: 5 * time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, ReadOnly: readOnly},
	})
}
