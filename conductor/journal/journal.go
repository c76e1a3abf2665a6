// Package journal keeps what peers saw of machines: every request of a booting
// machine, agent log lines, BMC contacts, steps. Journals are not replicated
// through Raft: each peer writes what it saw to bounded files of its own and
// copies it, best effort, to one other peer (the node's owner, else its
// neighbour), so that the loss of a peer rarely loses a line. Readers merge
// the journals of all live peers by (peer, seq).
//
// Invariants: Append never blocks and never fails its caller; a node has at
// most two files of at most segmentBytes each; writing stops while the disk is
// more than 80 % full, so that the log of the cluster never meets a full disk
// because of it.
//
// Concurrency: all methods may be called from anywhere. One goroutine (Run)
// writes files.
package journal

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/clock"
)

const (
	segmentBytes = 1 << 20
	queueLength  = 4096
	maxText      = 2048
	fullPercent  = 80
)

// Config of a Journal.
type Config struct {
	Dir    string // made if missing
	Peer   string // this peer's member id
	Clock  clock.Clock
	Logger *slog.Logger
	// Copy gets each event of this peer; it must not block. May be nil.
	Copy func(*api.JournalEvent)
}

// Journal is the journal of one peer.
type Journal struct {
	cfg   Config
	queue chan *api.JournalEvent
	idle  chan chan struct{} // flush requests

	mu      sync.Mutex
	seq     uint64 // of our own events
	dropped uint64
	facts   map[string]*api.LiveFacts
	subs    map[*subscription]bool
}

type subscription struct {
	node string
	ch   chan *api.JournalEvent
}

// New opens the journal.
func New(cfg Config) (*Journal, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return &Journal{
		cfg:   cfg,
		queue: make(chan *api.JournalEvent, queueLength),
		idle:  make(chan chan struct{}),
		// Sequence numbers only grow over restarts, so that (peer, seq) stays unique.
		seq:   uint64(cfg.Clock.Now().UnixMicro()),
		facts: map[string]*api.LiveFacts{},
		subs:  map[*subscription]bool{},
	}, nil
}

// Append notes an event of this peer and returns it with peer, seq and time
// set. It never blocks.
func (j *Journal) Append(ev *api.JournalEvent) *api.JournalEvent {
	ev = proto.CloneOf(ev)
	j.mu.Lock()
	j.seq++
	ev.Peer, ev.Seq = j.cfg.Peer, j.seq
	j.mu.Unlock()
	if ev.AtMs == 0 {
		ev.AtMs = j.cfg.Clock.Now().UnixMilli()
	}
	j.Store(ev)
	if j.cfg.Copy != nil {
		j.cfg.Copy(ev)
	}
	return ev
}

// Store keeps an event of any peer: a copy that another peer sent, or our own.
func (j *Journal) Store(ev *api.JournalEvent) {
	if !validNode.MatchString(ev.GetNodeId()) {
		return
	}
	if len(ev.Text) > maxText {
		ev.Text = ev.Text[:maxText]
	}
	j.mu.Lock()
	j.note(ev)
	for s := range j.subs {
		if s.node == ev.GetNodeId() {
			select {
			case s.ch <- ev:
			default: // a reader that does not keep up loses lines, the journal does not
			}
		}
	}
	j.mu.Unlock()
	select {
	case j.queue <- ev:
	default:
		j.mu.Lock()
		j.dropped++
		j.mu.Unlock()
	}
}

// Run writes events to files until ctx ends and the queue is empty.
func (j *Journal) Run(ctx context.Context) error {
	for {
		select {
		case ev := <-j.queue:
			j.writeBatch(ev)
		case done := <-j.idle:
			j.drain()
			close(done)
		case <-ctx.Done():
			j.drain()
			return nil
		}
	}
}

func (j *Journal) drain() {
	for {
		select {
		case ev := <-j.queue:
			j.writeBatch(ev)
		default:
			return
		}
	}
}

// writeBatch writes ev and what else waits, one open file per node.
func (j *Journal) writeBatch(first *api.JournalEvent) {
	batch := map[string][]*api.JournalEvent{first.NodeId: {first}}
	for n := 1; n < 256; n++ {
		select {
		case ev := <-j.queue:
			batch[ev.NodeId] = append(batch[ev.NodeId], ev)
			continue
		default:
		}
		break
	}
	if full(j.cfg.Dir) {
		j.cfg.Logger.Warn("journal not written: the disk is more than 80 % full", "dir", j.cfg.Dir)
		return
	}
	for node, evs := range batch {
		if err := j.writeNode(node, evs); err != nil {
			j.cfg.Logger.Warn("journal not written", "node", node, "err", err)
		}
	}
}

func (j *Journal) writeNode(node string, evs []*api.JournalEvent) error {
	path := j.path(node)
	if st, err := os.Stat(path); err == nil && st.Size() > segmentBytes {
		if err := os.Rename(path, path+".1"); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for _, ev := range evs {
		if _, err := protodelim.MarshalTo(w, ev); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(w.Flush(), f.Close())
}

// Read gives the events of a node that this peer has, oldest first.
func (j *Journal) Read(ctx context.Context, node string) ([]*api.JournalEvent, error) {
	if !validNode.MatchString(node) {
		return nil, nil
	}
	j.Flush(ctx)
	var out []*api.JournalEvent
	for _, path := range []string{j.path(node) + ".1", j.path(node)} {
		evs, err := readFile(path)
		if err != nil {
			return nil, err
		}
		out = append(out, evs...)
	}
	slices.SortStableFunc(out, Compare)
	return out, nil
}

// Flush waits until what was appended before is in the files, or ctx ends.
func (j *Journal) Flush(ctx context.Context) {
	done := make(chan struct{})
	select {
	case j.idle <- done:
		select {
		case <-done:
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
}

// Follow gives events of a node as they come, until stop is called.
func (j *Journal) Follow(node string) (events <-chan *api.JournalEvent, stop func()) {
	s := &subscription{node: node, ch: make(chan *api.JournalEvent, 256)}
	j.mu.Lock()
	j.subs[s] = true
	j.mu.Unlock()
	return s.ch, func() {
		j.mu.Lock()
		delete(j.subs, s)
		j.mu.Unlock()
	}
}

// Compare orders events by time, then peer, then sequence.
func Compare(a, b *api.JournalEvent) int {
	return cmp.Or(cmp.Compare(a.GetAtMs(), b.GetAtMs()), cmp.Compare(a.GetPeer(), b.GetPeer()), cmp.Compare(a.GetSeq(), b.GetSeq()))
}

// Node ids become file names: only UUIDs are taken.
var validNode = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func (j *Journal) path(node string) string {
	return filepath.Join(j.cfg.Dir, node[:2], node+".log")
}

// readFile reads a file up to its end or to the first record that a crash cut.
func readFile(path string) ([]*api.JournalEvent, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	r := bufio.NewReader(f)
	var out []*api.JournalEvent
	for {
		ev := new(api.JournalEvent)
		err := protodelim.UnmarshalOptions{MaxSize: 64 << 10}.UnmarshalFrom(r, ev)
		if errors.Is(err, io.EOF) || err != nil {
			return out, nil
		}
		out = append(out, ev)
	}
}

func full(dir string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Blocks == 0 {
		return false
	}
	used := st.Blocks - st.Bfree
	return used*100 > (used+st.Bavail)*fullPercent
}
