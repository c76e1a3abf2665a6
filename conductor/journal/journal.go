// Package journal keeps what peers saw of machines: every request of a booting
// machine, agent log lines, BMC contacts, steps. Journals are not replicated
// through Raft: each peer writes what it saw to bounded files of its own and
// copies it, best effort, to one other peer (the node's owner, else its
// neighbour), so that the loss of a peer rarely loses a line. Readers merge
// the journals of all live peers by (peer, seq).
//
// Invariants: Append never blocks and never fails its caller; a node has at
// most two files of at most segmentBytes each, until Sweep removes those of
// nodes that are gone; writing stops while the disk is more than 80 % full, so
// that the log of the cluster never meets a full disk because of it. A write
// that a crash cut costs the events of that write and no others (file.go).
//
// Concurrency: all methods may be called from anywhere. One goroutine (Run)
// writes files.
package journal

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/clock"
)

const (
	segmentBytes = 1 << 20
	queueLength  = 4096
	maxText      = 2048
	maxField     = 128 // any other text of an event
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
	idle  chan chan struct{}    // flush requests
	ended chan struct{}         // closed when Run has ended
	full  func(dir string) bool // the disk may take no more
	quiet bool                  // owned by Run; the disk was full at the last look

	files sync.RWMutex // held while files are read, written or renamed

	mu      sync.Mutex
	seq     uint64                    // guarded by mu; of our own events
	dropped uint64                    // guarded by mu; since the last batch
	facts   map[string]*api.LiveFacts // guarded by mu
	boots   map[string]boot           // guarded by mu
	subs    map[*subscription]bool    // guarded by mu
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
	// Sequence numbers only grow over restarts, so that (peer, seq) stays unique.
	seq, err := firstSeq(cfg.Dir, cfg.Clock.Now())
	if err != nil { // the disk is full, perhaps: no reason not to start
		cfg.Logger.Warn("the journal's numbers may repeat", "err", err)
	}
	return &Journal{
		cfg:   cfg,
		queue: make(chan *api.JournalEvent, queueLength),
		idle:  make(chan chan struct{}),
		ended: make(chan struct{}),
		full:  full,
		seq:   seq,
		facts: map[string]*api.LiveFacts{},
		boots: map[string]boot{},
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
	j.keep(ev)
	if j.cfg.Copy != nil {
		j.cfg.Copy(ev)
	}
	return ev
}

// Store keeps an event of another peer. It never blocks.
func (j *Journal) Store(ev *api.JournalEvent) { j.keep(proto.CloneOf(ev)) }

// keep owns ev, which nobody changes afterwards: followers, the files and the
// copier share it.
func (j *Journal) keep(ev *api.JournalEvent) {
	if !validNode.MatchString(ev.GetNodeId()) {
		return
	}
	bound(ev)
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

// bound makes an event fit for a record: what machines send may have any
// length and any bytes.
func bound(ev *api.JournalEvent) {
	ev.Text = clip(ev.Text, maxText)
	for _, field := range []*string{&ev.Peer, &ev.Kind, &ev.Stage, &ev.Mac, &ev.BootNonce, &ev.CmdId} {
		*field = clip(*field, maxField)
	}
}

// clip cuts a text to a number of bytes and to valid UTF-8.
func clip(s string, most int) string {
	return strings.ToValidUTF8(s[:min(len(s), most)], "")
}

// Run writes events to files until ctx ends and the queue is empty.
func (j *Journal) Run(ctx context.Context) error {
	defer close(j.ended)
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
	j.mu.Lock()
	dropped := j.dropped
	j.dropped = 0
	j.mu.Unlock()
	if dropped > 0 {
		j.cfg.Logger.Warn("journal events dropped: the disk is too slow", "count", dropped)
	}
	was := j.quiet
	j.quiet = j.full(j.cfg.Dir)
	if j.quiet != was { // said once: the log may be on the same disk
		j.cfg.Logger.Warn("the journal is written only while the disk is less than 80 % full", "dir", j.cfg.Dir, "written", was)
	}
	if j.quiet {
		return
	}
	for node, evs := range batch {
		if err := j.writeNode(node, evs); err != nil {
			j.cfg.Logger.Warn("journal not written", "node", node, "err", err)
		}
	}
}

// Read gives the events of a node that this peer has, oldest first.
func (j *Journal) Read(ctx context.Context, node string) ([]*api.JournalEvent, error) {
	if !validNode.MatchString(node) {
		return nil, nil
	}
	j.Flush(ctx)
	out, err := j.readNode(node)
	if err != nil {
		return nil, fmt.Errorf("journal of node %s: %w", node, err)
	}
	slices.SortStableFunc(out, Compare)
	return out, nil
}

// Flush waits until what was appended before is in the files, ctx ends, or
// Run has.
func (j *Journal) Flush(ctx context.Context) {
	done := make(chan struct{})
	select {
	case j.idle <- done:
		select {
		case <-done:
		case <-ctx.Done():
		case <-j.ended:
		}
	case <-ctx.Done():
	case <-j.ended:
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
