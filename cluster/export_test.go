package cluster

import (
	"sync/atomic"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// fullLog is a log on a disk that can be full.
type fullLog struct {
	logStore
	full *atomic.Bool
}

func (l fullLog) StoreLogs(logs []*raft.Log) error {
	if l.full.Load() {
		return unix.ENOSPC
	}
	return l.logStore.StoreLogs(logs)
}

func (l fullLog) Set(key, val []byte) error {
	if l.full.Load() {
		return unix.ENOSPC
	}
	return l.logStore.Set(key, val)
}

func (l fullLog) SetUint64(key []byte, val uint64) error {
	if l.full.Load() {
		return unix.ENOSPC
	}
	return l.logStore.SetUint64(key, val)
}

// FullDisk makes a disk that is full while the switch is on.
func (c *Config) FullDisk(full *atomic.Bool) {
	c.wrapLog = func(l logStore) logStore { return fullLog{l, full} }
}
