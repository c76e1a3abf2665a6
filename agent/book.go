package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// Bounds of what is remembered; the oldest finished commands go first. They
// keep an AgentHello under gRPC's 4 MiB.
const (
	maxCommands    = 64
	maxResultBytes = 2 << 20
	maxOneResult   = 1 << 20
)

// book is what the agent knows of commands and tokens: in memory, and on file
// before anything is done under it. Safe for concurrent use.
type book struct {
	dir  string
	line Line
	wake chan struct{} // buffered by one: a status changed

	// saving is held while the file is written, and taken before mu.
	saving sync.Mutex

	mu      sync.Mutex
	inc     string // fixed after openBook
	highest uint64
	entries map[string]*entry
	order   []string // ids, oldest first
	closed  bool
}

// entry is one command. Its fields are guarded by book.mu.
type entry struct {
	name    string
	status  *api.CommandStatus // replaced, never changed: senders may hold it
	states  uint64             // raised with each change of state
	steps   uint64             // raised with each progress
	cancel  context.CancelFunc // nil when it does not run
	told    chan struct{}      // closed when a stream has taken the final status
	isKnown bool               // told is closed
}

// openBook reads the state file. Commands that ran when the agent stopped are
// failed: what they did to the machine is not known. Without a readable file
// of this boot the incarnation is a new one, which tells the holder that all
// was forgotten.
func openBook(dir string, line Line, log *slog.Logger) *book {
	b := &book{dir: dir, line: line, wake: make(chan struct{}, 1), entries: map[string]*entry{}}
	var s saved
	ok, err := loadJSON(dir, stateFile, &s)
	if err != nil {
		log.Error("earlier commands are forgotten", "err", err)
	}
	if !ok || s.Nonce != line.Nonce || s.Node != line.Node || s.Incarnation == "" {
		b.inc = newIncarnation()
		return b
	}
	b.inc, b.highest = s.Incarnation, s.Highest
	for _, c := range s.Commands {
		st := &api.CommandStatus{
			CmdId: c.ID, State: c.State, DoneBytes: c.Done, TotalBytes: c.Total, Message: c.Message,
			Result: c.Result, Error: c.Error, ErrorKind: c.ErrorKind,
		}
		switch st.State {
		case api.CommandStatus_RUNNING:
			st.State = api.CommandStatus_FAILED
			st.Error, st.ErrorKind = "interrupted by an agent restart", errs.Internal.String()
			log.Warn("command was interrupted by an agent restart", cmdKey, c.ID, "name", c.Name)
		case api.CommandStatus_DONE:
			st.Percent = 100
		}
		b.entries[c.ID] = &entry{name: c.Name, status: st, told: make(chan struct{})}
		b.order = append(b.order, c.ID)
	}
	return b
}

func newIncarnation() string {
	var r [8]byte
	_, _ = rand.Read(r[:]) // cannot fail
	return hex.EncodeToString(r[:])
}

func (b *book) incarnation() string { return b.inc }

// save writes the state file. It must be called without mu.
func (b *book) save() error {
	b.saving.Lock()
	defer b.saving.Unlock()
	b.mu.Lock()
	s := saved{Node: b.line.Node, Nonce: b.line.Nonce, Incarnation: b.inc, Highest: b.highest}
	for _, id := range b.order {
		e := b.entries[id]
		st := e.status
		s.Commands = append(s.Commands, savedCommand{
			ID: id, Name: e.name, State: st.State, Done: st.DoneBytes, Total: st.TotalBytes, Message: st.Message,
			Result: bytes.Clone(st.Result), Error: st.Error, ErrorKind: st.ErrorKind,
		})
	}
	b.mu.Unlock()
	return saveJSON(b.dir, stateFile, s)
}

// see takes note of a token and tells whether it is a new one. A lower one
// than the highest is errs.Fenced.
func (b *book) see(token uint64) (raised bool, err error) {
	b.mu.Lock()
	highest := b.highest
	if token > highest {
		b.highest = token
	}
	b.mu.Unlock()
	if token < highest {
		return false, errs.New(errs.Fenced, "token %d is older than %d", token, highest)
	}
	if token == highest {
		return false, nil
	}
	return true, b.save()
}

// begin makes a command known as running. It returns false when it is known
// already; the stream then shows its status again. cancel stops it.
func (b *book) begin(id, name string, cancel context.CancelFunc) (bool, error) {
	b.mu.Lock()
	if e, ok := b.entries[id]; ok {
		defer b.mu.Unlock()
		if e.name != name {
			return false, errs.New(errs.Conflict, "command %s is %s, not %s", id, e.name, name)
		}
		e.states++ // say it again
		poke(b.wake)
		return false, nil
	}
	if b.closed {
		b.mu.Unlock()
		return false, errs.New(errs.Busy, "the agent is ending")
	}
	b.trimLocked()
	b.entries[id] = &entry{name: name, cancel: cancel, told: make(chan struct{}), states: 1,
		status: &api.CommandStatus{CmdId: id, State: api.CommandStatus_RUNNING}}
	b.order = append(b.order, id)
	b.mu.Unlock()
	if err := b.save(); err != nil {
		b.mu.Lock()
		delete(b.entries, id)
		b.order = removeString(b.order, id)
		b.mu.Unlock()
		return false, err
	}
	poke(b.wake)
	return true, nil
}

// trimLocked forgets the oldest finished commands beyond the bounds.
func (b *book) trimLocked() {
	size := 0
	for _, e := range b.entries {
		size += len(e.status.Result)
	}
	for i := 0; i < len(b.order) && (len(b.order) >= maxCommands || size > maxResultBytes); {
		e := b.entries[b.order[i]]
		if e.cancel != nil {
			i++
			continue
		}
		size -= len(e.status.Result)
		delete(b.entries, b.order[i])
		b.order = append(b.order[:i:i], b.order[i+1:]...)
	}
}

// progress notes how far a command has come. An unknown total is 0.
func (b *book) progress(id string, done, total uint64, msg string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[id]
	if e == nil || e.cancel == nil {
		return
	}
	st := &api.CommandStatus{CmdId: id, State: api.CommandStatus_RUNNING, DoneBytes: done, TotalBytes: total, Message: msg}
	if total > 0 {
		// 100 is kept for DONE.
		st.Percent = min(99.9, 100*float64(done)/float64(total))
	}
	e.status = st
	e.steps++
}

// finish notes how a command ended, on file first. It returns the channel
// that is closed when a stream has taken it.
func (b *book) finish(id string, result any, cause error, cancelled bool) (<-chan struct{}, error) {
	st := &api.CommandStatus{CmdId: id}
	var encErr error
	if cause == nil {
		st.Result, encErr = json.Marshal(result)
		if encErr == nil && len(st.Result) > maxOneResult {
			encErr = fmt.Errorf("result of %d bytes, %d are allowed", len(st.Result), maxOneResult)
		}
		cause = encErr
	}
	switch {
	case cause == nil:
		st.State, st.Percent = api.CommandStatus_DONE, 100
	case cancelled:
		st.State, st.Error, st.ErrorKind = api.CommandStatus_CANCELLED, "cancelled", errs.KindOf(cause).String()
	default:
		st.State, st.Error, st.ErrorKind = api.CommandStatus_FAILED, cause.Error(), errs.KindOf(cause).String()
	}
	if st.State != api.CommandStatus_DONE {
		st.Result = nil
	}
	b.mu.Lock()
	e := b.entries[id]
	st.DoneBytes, st.TotalBytes = e.status.DoneBytes, e.status.TotalBytes
	e.status, e.cancel = st, nil
	e.states++
	b.mu.Unlock()
	err := b.save()
	poke(b.wake)
	return e.told, err
}

// cancel stops a running command; false when it is not known.
func (b *book) cancel(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[id]
	if e == nil {
		return false
	}
	if e.cancel != nil {
		e.cancel()
	}
	e.states++ // say how it stands
	poke(b.wake)
	return true
}

// close keeps new commands from starting.
func (b *book) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
}

func removeString(list []string, s string) []string {
	out := list[:0:0]
	for _, v := range list {
		if v != s {
			out = append(out, v)
		}
	}
	return out
}

// mark is what one stream has sent of a command.
type mark struct{ states, steps uint64 }

// hello is the opening of a stream: all that is remembered.
func (b *book) hello(version string, sent map[string]mark) *api.AgentHello {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := &api.AgentHello{
		NodeId: b.line.Node, Nonce: b.line.Nonce, Incarnation: b.inc, HighestToken: b.highest, Version: version,
	}
	for _, id := range b.order {
		e := b.entries[id]
		h.Commands = append(h.Commands, e.status)
		sent[id] = mark{e.states, e.steps}
	}
	return h
}

// changed are the statuses that this stream has not sent: changes of state
// always, progress only when asked for. They count as sent.
func (b *book) changed(sent map[string]mark, progress bool) []*api.CommandStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []*api.CommandStatus
	for _, id := range b.order {
		e, was := b.entries[id], sent[id]
		if e.states != was.states || progress && e.steps != was.steps {
			out = append(out, e.status)
			sent[id] = mark{e.states, e.steps}
		}
	}
	return out
}

// told notes that a stream has taken these statuses.
func (b *book) told(list []*api.CommandStatus) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, st := range list {
		if e := b.entries[st.CmdId]; e != nil && st.State != api.CommandStatus_RUNNING && !e.isKnown {
			e.isKnown = true
			close(e.told)
		}
	}
}
