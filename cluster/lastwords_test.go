package cluster

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/internal/errs"
)

// failingLog is a log that fails at its n-th term, or at the n-th reading of
// one of its entries.
type failingLog struct {
	logStore
	failTerm, failRead int32 // 0: never
	err                error
	terms, reads       atomic.Int32
}

func (l *failingLog) SetUint64(key []byte, val uint64) error {
	if l.terms.Add(1) == l.failTerm {
		return l.err
	}
	return l.logStore.SetUint64(key, val)
}

func (l *failingLog) GetLog(index uint64, e *raft.Log) error {
	if index == 3 && l.reads.Add(1) == l.failRead {
		return l.err
	}
	return l.logStore.GetLog(index, e)
}

// A term that cannot be stored and an entry that was damaged while the peer
// runs end the peer with words that name the file, the cause and what to do, at
// the start and later: not with a panic of Raft.
func TestLastWords(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		log  *failingLog
		kind errs.Kind
		text []string
	}{
		"term at the start":    {&failingLog{failTerm: 1, err: unix.EIO}, errs.Internal, []string{"store the term", "the disk that holds", "fails"}},
		"term of an election":  {&failingLog{failTerm: 2, err: unix.ENOSPC}, errs.Busy, []string{"store the term", "is full", "free space"}},
		"entry at the start":   {&failingLog{failRead: 1, err: errChecksum("entry 3")}, errs.Invalid, []string{"entry 3 has a wrong checksum", "cluster remove p1"}},
		"entry to be applied":  {&failingLog{failRead: 2, err: errChecksum("entry 3")}, errs.Invalid, []string{"entry 3 has a wrong checksum", "cluster remove p1"}},
		"entry without a form": {&failingLog{failRead: 2, err: errors.New("msgpack decode error")}, errs.Invalid, []string{"was damaged while this peer ran"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := alone(t, nil)
			stop, result := running(t, first)
			stop()
			if err := <-result; err != nil {
				t.Fatal(err)
			}
			told := make(chan error, 1)
			again, err := Open(context.Background(), Config{DataDir: first.cfg.DataDir, OnFatal: func(err error) { told <- err }})
			if err != nil {
				t.Fatal(err)
			}
			log := c.log
			log.logStore = again.storage.log
			again.storage.log = log
			done := make(chan error, 1)
			go func() { done <- again.Run(context.Background()) }()
			for what, ch := range map[string]<-chan error{"told": told, "returned": done} {
				select {
				case err := <-ch:
					if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), again.cfg.DataDir+"/raft/raft.db") {
						t.Errorf("%s: %v: %v", what, errs.KindOf(err), err)
					}
					for _, text := range c.text {
						if !strings.Contains(err.Error(), text) {
							t.Errorf("%s: %q is not in: %v", what, text, err)
						}
					}
				case <-time.After(time.Minute):
					t.Fatalf("nothing is %s", what)
				}
			}
			select {
			case <-again.ended: // here nothing waits for Raft
			case <-time.After(time.Minute):
				t.Fatal("something goes on")
			}
		})
	}
}
