package cluster

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/errs"
)

// machine lets Raft drive the store. After an entry that the store could not
// understand it applies nothing more and makes no snapshot: the state stays at
// the last entry that all peers agree on, and the process ends.
type machine struct {
	store   *fsm.Store
	fatal   func(error)
	applied func(commands int)
	broken  atomic.Pointer[error]
	moved   atomic.Pointer[time.Time] // when the store changed last
}

var _ raft.BatchingFSM = (*machine)(nil)

// Apply implements raft.FSM. The answer is []*api.Result or error.
func (m *machine) Apply(l *raft.Log) any {
	if err := m.broken.Load(); err != nil {
		return *err
	}
	results, err := m.store.Apply(l.Index, l.Term, l.Data)
	if err != nil {
		err = errs.New(errs.Internal, "apply entry %d of term %d: %w", l.Index, l.Term, err)
		m.broken.Store(&err)
		m.fatal(err)
		return err
	}
	m.applied(len(results))
	m.move()
	return results
}

// ApplyBatch implements raft.BatchingFSM.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	answers := make([]any, len(logs))
	for i, l := range logs {
		if l.Type == raft.LogCommand {
			answers[i] = m.Apply(l)
		}
	}
	return answers
}

// Snapshot implements raft.FSM.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if err := m.broken.Load(); err != nil {
		return nil, *err
	}
	return snapshot{m.store.Snapshot()}, nil
}

// Restore implements raft.FSM.
func (m *machine) Restore(r io.ReadCloser) error {
	defer r.Close()
	defer m.move()
	return m.store.Restore(r)
}

func (m *machine) move() {
	now := time.Now()
	m.moved.Store(&now)
}

type snapshot struct{ s *fsm.Snapshot }

// Persist implements raft.FSMSnapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := s.s.WriteTo(sink); err != nil {
		_ = sink.Cancel() // the first error is the one to report
		return err
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (snapshot) Release() {}

// resultsOf reads the answer of Apply.
func resultsOf(answer any, want int) ([]*api.Result, error) {
	switch a := answer.(type) {
	case error:
		return nil, a
	case []*api.Result:
		if len(a) == want {
			return a, nil
		}
		return nil, errs.New(errs.Internal, "apply gave %d results for %d commands", len(a), want)
	}
	return nil, errs.New(errs.Internal, "apply gave no results")
}

// Snapshot writes a snapshot now, instead of when enough entries have come.
func (c *Cluster) Snapshot() error {
	r := c.raft.Load()
	if r == nil {
		return errs.New(errs.WrongState, "this peer is not running")
	}
	err := r.Snapshot().Error()
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	if err != nil {
		return errs.New(errs.Internal, "snapshot: %w", err)
	}
	return nil
}
