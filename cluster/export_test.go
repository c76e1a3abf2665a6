package cluster

import (
	"sync/atomic"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/api"
)

// fullLog is a log on a disk that can be full: it has room for terms and votes,
// which take the place of older ones, and none for entries.
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

// FullDisk makes a disk that is full while the switch is on.
func (c *Config) FullDisk(full *atomic.Bool) {
	c.wrapLog = func(l logStore) logStore { return fullLog{l, full} }
}

// CheckJoin is what forming asks of the entries of join.
func CheckJoin(f *Form, self string) error { return f.checkJoin(self) }

// Welcome is the end of a join whose token was taken.
func (c *Cluster) Welcome(req *api.JoinRequest, key []byte) (*api.JoinReply, error) {
	return c.welcome(req, key)
}
