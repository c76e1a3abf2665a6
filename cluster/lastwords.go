package cluster

import (
	"errors"
	"path/filepath"
	"runtime"

	"github.com/hashicorp/raft"
	bbolt "go.etcd.io/bbolt/errors"
)

// Raft answers with a panic when it cannot store a term, or cannot read an
// entry that it must apply: a trace, of which no operator could tell the file.
// The store knows first. It never returns then: this peer ends as it does when
// its disk hangs, with an error that names the file and says what to do.

// endRaft ends this peer and the goroutine of Raft that calls it, which must
// not go on. What that goroutine has deferred is done; who waits for it hears
// that Raft has been shut down.
func (c *Cluster) endRaft(err error) {
	c.hangs(err)
	if r := c.raft.Load(); r != nil {
		c.shutRaft(r)
	}
	runtime.Goexit()
}

// shutRaft begins the end of Raft, if it has not begun; the future is when all
// of it has stopped.
func (c *Cluster) shutRaft(r *raft.Raft) raft.Future {
	c.shutOnce.Do(func() { c.shut = r.Shutdown() })
	return c.shut
}

// termLost does not return.
func (c *Cluster) termLost(err error) {
	c.endRaft(unusable(c.dir.file(filepath.Join(raftDir, logFile)), "store the term of an election", err))
}

// entryLost does not return.
func (c *Cluster) entryLost(err error) {
	c.endRaft(c.dir.lostState(c.creds.identity, filepath.Join(raftDir, logFile), "was damaged while this peer ran ("+err.Error()+")"))
}

// lastWordsStore is a log store that ends this peer before Raft would panic.
type lastWordsStore struct {
	logStore
	termLost, entryLost func(error) // do not return
}

// SetUint64 implements raft.StableStore. Raft keeps its term by it; a vote that
// cannot be stored is not given, which is all right.
func (s lastWordsStore) SetUint64(key []byte, val uint64) error {
	if err := s.logStore.SetUint64(key, val); err != nil {
		s.termLost(err)
	}
	return nil
}

// GetLog implements raft.LogStore. That an entry is not there is an answer; so
// is that the log is closed.
func (s lastWordsStore) GetLog(index uint64, l *raft.Log) error {
	err := s.logStore.GetLog(index, l)
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) && !errors.Is(err, bbolt.ErrDatabaseNotOpen) {
		s.entryLost(err)
	}
	return err
}

// newRaft is raft.NewRaft in a goroutine of its own, so that endRaft may end it.
func (c *Cluster) newRaft(conf *raft.Config, logs raft.LogStore, stable raft.StableStore, trans raft.Transport) (r *raft.Raft, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, err = raft.NewRaft(conf, c.machine, logs, stable, c.storage.snapshots, trans)
	}()
	<-done
	if r == nil && err == nil {
		c.failed.mu.Lock()
		defer c.failed.mu.Unlock()
		return nil, c.failed.err
	}
	return r, err
}
