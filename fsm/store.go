package fsm

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-memdb"

	"github.com/ironring/ironring/api"
)

// Store is the replicated state of one peer. Use New.
type Store struct {
	db      atomic.Pointer[memdb.MemDB] // replaced by Restore
	changes changeRing

	mu       sync.Mutex                    // serialises Apply and Restore
	hints    hints                         // guarded by mu
	answered map[string]*api.RequestResult // guarded by mu; head.answers by request id
}

// head is the state's one-of-a-kind part: counters, the index, and counts
// that memdb cannot give. It is replaced with each entry.
type head struct {
	counters
	index   uint64 // of the last entry
	term    uint64 // of the last entry
	nodes   int
	answers []*api.RequestResult // by age; only ever appended to, by flushAnswers alone
	audits  []*api.Audit         // oldest first; only ever appended to, by flush alone
}

// counters are Globals as a value, so that a refused command can be forgotten
// by copying.
type counters struct {
	clusterID    string
	ticks        uint64
	nextToken    uint64
	restoreEpoch uint64
	featureLevel uint32
	nextHistory  uint64
	nextAudit    uint64
}

func (c counters) globals() *api.Globals {
	return &api.Globals{
		ClusterId: c.clusterID, Ticks: c.ticks, NextToken: c.nextToken, RestoreEpoch: c.restoreEpoch,
		FeatureLevel: c.featureLevel, NextHistory: c.nextHistory, NextAudit: c.nextAudit,
	}
}

func countersOf(g *api.Globals) counters {
	return counters{
		clusterID: g.GetClusterId(), ticks: g.GetTicks(), nextToken: g.GetNextToken(), restoreEpoch: g.GetRestoreEpoch(),
		featureLevel: g.GetFeatureLevel(), nextHistory: g.GetNextHistory(), nextAudit: g.GetNextAudit(),
	}
}

// New makes an empty store.
func New() *Store {
	s := &Store{hints: hints{}, answered: map[string]*api.RequestResult{}}
	db := newDB()
	txn := db.Txn(true)
	must(txn.Insert(tableHead, &head{}))
	txn.Commit()
	s.db.Store(db)
	s.changes.reset(0)
	return s
}

// newDB makes an empty database. It is a snapshot, because a memdb that is none
// notes the channel of every node of a tree that a write copies, for watches
// which nobody here uses (changes.go).
func newDB() *memdb.MemDB {
	db, err := memdb.NewMemDB(newSchema())
	must(err)
	return db.Snapshot()
}

// must is for errors of memdb that only a wrong schema can cause.
func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("fsm: %v", err))
	}
}

// View is a consistent picture of the state as it is now.
func (s *Store) View() *View { return newView(s.db.Load()) }

// Index is the index of the last entry that was applied or restored.
func (s *Store) Index() uint64 { return s.View().Index() }

// Changes gives the changes of entries after an index, oldest first, the index
// up to which they are complete, and a channel that is closed at the next
// entry. ErrCompacted: the ring no longer reaches that far back, resync from a
// View.
//
// Changes of history, audit, requests, join tokens and counters are not
// reported.
func (s *Store) Changes(after uint64) (changes []Change, upTo uint64, more <-chan struct{}, err error) {
	return s.changes.since(after)
}

// WaitIndex returns when the entry at an index was applied. The index must be
// that of a command entry: Raft's own entries never reach the store.
func (s *Store) WaitIndex(ctx context.Context, index uint64) error {
	for {
		at, more := s.changes.position()
		if at >= index {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("wait for index %d, have %d: %w", index, at, ctx.Err())
		}
	}
}
