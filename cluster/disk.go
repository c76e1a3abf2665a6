package cluster

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// lowSpace is less free space than a peer should have: its log grows by up to
// this much between two snapshots.
const lowSpace = 64 << 20

// disk is the file system of the data directory, and whether the log found
// space on it the last time.
type disk struct {
	path string
	full atomic.Bool

	begun, ended atomic.Uint64 // writes of Raft, which writes with one goroutine
}

// write does one write of Raft, and notes that it is under way and how it ends.
func (d *disk) write(do func() error) error {
	d.begun.Add(1)
	defer d.ended.Add(1)
	return d.note(do())
}

// entries is write for entries: only when they found room is the disk not full.
// A term or a vote takes the place of an older one.
func (d *disk) entries(do func() error) error {
	err := d.write(do)
	if err == nil {
		d.full.Store(false)
	}
	return err
}

// pending is the number of the write that has not returned yet, 0 when there
// is none.
func (d *disk) pending() uint64 {
	if n := d.begun.Load(); n != d.ended.Load() {
		return n
	}
	return 0
}

// note looks at what a write ended with, and hands it on.
func (d *disk) note(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		d.full.Store(true)
	}
	return err
}

func (d *disk) status() *api.DiskStatus {
	s := &api.DiskStatus{Path: d.path, Full: d.full.Load()}
	var fs unix.Statfs_t
	if err := unix.Statfs(d.path, &fs); err == nil {
		s.FreeBytes, s.TotalBytes = fs.Bavail*uint64(fs.Bsize), fs.Blocks*uint64(fs.Bsize)
	}
	return s
}

// diskProblem is what an operator should know of a disk, "" when nothing.
func diskProblem(d *api.DiskStatus) string {
	switch {
	case d.GetFull():
		return fmt.Sprintf("the disk that holds %s is full (%s free): free space", d.GetPath(), sizeText(d.GetFreeBytes()))
	case d.GetTotalBytes() > 0 && d.GetFreeBytes() < lowSpace:
		return fmt.Sprintf("the disk that holds %s has %s free: free space before it is full", d.GetPath(), sizeText(d.GetFreeBytes()))
	}
	return ""
}

func sizeText(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// withDisk adds to the error of a command that this peer's disk is full: the
// likely reason that nothing is committed.
func (c *Cluster) withDisk(err error) error {
	kind := errs.KindOf(err)
	if err == nil || !c.storage.disk.full.Load() || kind != errs.NoQuorum && kind != errs.Timeout && kind != errs.Busy {
		return err
	}
	return errs.New(kind, "%s's disk: %s: %w", c.ID(), diskProblem(c.storage.disk.status()), err)
}

// notedStore is a log store whose writes are looked at.
type notedStore struct {
	logStore
	disk *disk
}

// StoreLog implements raft.LogStore.
func (s notedStore) StoreLog(l *raft.Log) error {
	return s.disk.entries(func() error { return s.logStore.StoreLog(l) })
}

// StoreLogs implements raft.LogStore.
func (s notedStore) StoreLogs(l []*raft.Log) error {
	return s.disk.entries(func() error { return s.logStore.StoreLogs(l) })
}

// Set implements raft.StableStore.
func (s notedStore) Set(key, val []byte) error {
	return s.disk.write(func() error { return s.logStore.Set(key, val) })
}

// SetUint64 implements raft.StableStore.
func (s notedStore) SetUint64(key []byte, val uint64) error {
	return s.disk.write(func() error { return s.logStore.SetUint64(key, val) })
}

// notedSnapshots is the same for snapshots.
type notedSnapshots struct {
	raft.SnapshotStore
	disk *disk
}

// Create implements raft.SnapshotStore.
func (s notedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport,
) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, trans)
	return sink, s.disk.note(err)
}
