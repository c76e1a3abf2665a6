// Package benchtest measures ours and a ceiling in turn, in one process, so
// that what it prints is worth something on a busy machine too; and it has the
// ceiling of everything that is committed: a bare Raft that packs.
//
// Use it from benchmarks run with -benchtime 1x (`make bench`): one run is
// several rounds of two seconds.
package benchtest

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

const (
	rounds    = 5
	roundTime = 2 * time.Second
	packed    = 256 // commands in one entry, as in package cluster
)

// Side is one of the two that are compared.
type Side struct {
	Do      func() error
	Callers int // how many goroutines do it
	Each    int // how many operations it does at once; 0: one
}

// NotRun ends a benchmark that cannot measure here. `make bench` shows the
// reason in the place of figures.
func NotRun(b *testing.B, format string, args ...any) {
	b.Helper()
	fmt.Printf("NOT RUN %s: %s\n", b.Name(), fmt.Sprintf(format, args...)) // the log of a skipped benchmark is not printed
	b.SkipNow()
}

// Alone is Compare without a ceiling, with the reason why there is none: there
// is no ratio then.
func Alone(b *testing.B, ours Side, format string, args ...any) {
	b.Helper()
	var us []float64
	for range rounds {
		us = append(us, rate(b, ours))
	}
	slices.Sort(us)
	b.Logf("NOT RUN %s: %s", b.Name(), fmt.Sprintf(format, args...))
	b.ReportMetric(us[rounds/2], "ours/s")
	b.ReportMetric(0, "ns/op")
}

// Compare runs ours and ceiling in turn and reports operations a second.
func Compare(b *testing.B, ours, ceiling Side) {
	b.Helper()
	var us, top []float64
	for range rounds {
		us = append(us, rate(b, ours))
		top = append(top, rate(b, ceiling))
	}
	slices.Sort(us)
	slices.Sort(top)
	mine, most := us[rounds/2], top[rounds/2]
	b.ReportMetric(mine, "ours/s")
	b.ReportMetric(most, "ceiling/s")
	b.ReportMetric(100*mine/most, "%ofceiling")
	b.ReportMetric(0, "ns/op")
}

// rate runs one side for one round.
func rate(b *testing.B, s Side) float64 {
	b.Helper()
	var done atomic.Int64
	var all sync.WaitGroup
	start := time.Now()
	for range s.Callers {
		all.Go(func() {
			for time.Since(start) < roundTime {
				if err := s.Do(); err != nil {
					b.Error(err)
					return
				}
				done.Add(int64(max(s.Each, 1)))
			}
		})
	}
	all.Wait()
	return float64(done.Load()) / time.Since(start).Seconds()
}

// Packer gives a function that commits one command of a size and returns when
// it is applied; up to callers of them may run at once. Two entries are in
// flight. stop may be called when no commit runs.
func Packer(r *raft.Raft, size, callers int) (commit func() error, stop func()) {
	queue, quit := make(chan chan error, callers), make(chan struct{})
	inFlight := make(chan struct{}, 2)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			inFlight <- struct{}{}
			var batch []chan error
			select {
			case first := <-queue:
				batch = append(batch, first)
			case <-quit:
				return
			}
			for more := true; more && len(batch) < packed; {
				select {
				case next := <-queue:
					batch = append(batch, next)
				default:
					more = false
				}
			}
			f := r.Apply(make([]byte, size*len(batch)), 10*time.Second)
			all.Go(func() {
				err := f.Error()
				<-inFlight
				for _, c := range batch {
					c <- err
				}
			})
		}
	})
	commit = func() error {
		done := make(chan error, 1)
		queue <- done
		return <-done
	}
	return commit, func() { close(quit); all.Wait() }
}

// nothing is a state machine that forgets.
type nothing struct{}

func (nothing) Apply(*raft.Log) any                 { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, nil }
func (nothing) Restore(r io.ReadCloser) error       { return r.Close() }
func (nothing) Persist(s raft.SnapshotSink) error   { return s.Close() }
func (nothing) Release()                            {}

// Raft runs n bare servers in this process, over loopback when there is more
// than one, on the same log store as a peer's, synced to disk, and gives the
// leader.
func Raft(b *testing.B, n int) *raft.Raft {
	b.Helper()
	var servers []raft.Server
	var transports []raft.Transport
	for i := range n {
		t, err := raft.NewTCPTransport("127.0.0.1:0", nil, 3, 10*time.Second, io.Discard)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = t.Close() })
		transports = append(transports, t)
		servers = append(servers, raft.Server{ID: raft.ServerID(fmt.Sprint(i)), Address: t.LocalAddr()})
	}
	var all []*raft.Raft
	for i, s := range servers {
		all = append(all, server(b, s, transports[i], servers))
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		for _, r := range all {
			if r.State() == raft.Leader {
				return r
			}
		}
		if time.Now().After(deadline) {
			b.Fatal("the bare raft has no leader")
		}
		<-time.After(20 * time.Millisecond)
	}
}

func server(b *testing.B, s raft.Server, t raft.Transport, servers []raft.Server) *raft.Raft {
	b.Helper()
	dir := b.TempDir()
	store, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, "raft.db")})
	if err != nil {
		b.Fatal(err)
	}
	snaps, err := raft.NewFileSnapshotStore(dir, 1, io.Discard)
	if err != nil {
		b.Fatal(err)
	}
	cfg := raft.DefaultConfig()
	cfg.LocalID, cfg.LogOutput = s.ID, io.Discard
	// Long enough that a busy machine does not change leaders in the middle.
	cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = 2*time.Second, 2*time.Second, time.Second
	if err := raft.BootstrapCluster(cfg, store, store, snaps, t, raft.Configuration{Servers: servers}); err != nil {
		b.Fatal(err)
	}
	r, err := raft.NewRaft(cfg, nothing{}, store, store, snaps, t)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := r.Shutdown().Error(); err != nil {
			b.Error(err)
		}
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	})
	return r
}
