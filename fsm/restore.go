package fsm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/go-memdb"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// Restore replaces the state by a snapshot. When it cannot be read whole, for
// any reason, the state stays as it was. Watchers have to resync.
func (s *Store) Restore(from io.Reader) error {
	db, h, err := readSnapshot(from)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.db.Store(db)
	s.hints, s.answered = hints{}, answeredBy(h.answers)
	s.changes.reset(h.index)
	return nil
}

func readSnapshot(from io.Reader) (*memdb.MemDB, *head, error) {
	r := &frameReader{from: bufio.NewReaderSize(from, 64<<10)}
	if err := r.header(); err != nil {
		return nil, nil, err
	}
	kind, payload, err := r.next()
	if err != nil {
		return nil, nil, err
	}
	if kind != kindHead {
		return nil, nil, damaged("it does not begin with the head")
	}
	l := &loader{db: newDB()}
	if l.head, err = decodeHead(payload); err != nil {
		return nil, nil, damaged("head: %w", err)
	}
	l.txn = l.db.Txn(true)
	defer l.txn.Abort() // nothing once committed
	for {
		kind, payload, err := r.next()
		if err != nil {
			return nil, nil, err
		}
		if kind == kindTrailer {
			if err := r.trailer(payload); err != nil {
				return nil, nil, err
			}
			break
		}
		if err := l.load(kind, payload); err != nil {
			return nil, nil, damaged("frame %d: %w", r.frames-1, err)
		}
	}
	l.endPast()
	must(l.txn.Insert(tableHead, l.head))
	l.txn.Commit()
	return l.db, l.head, nil
}

func damaged(format string, args ...any) error {
	return errs.New(errs.Invalid, "the snapshot is damaged: "+format, args...)
}

// frameReader reads frames and checks them.
type frameReader struct {
	from   *bufio.Reader
	frames uint64
	buf    []byte // reused: a payload is valid until the next frame
}

func (r *frameReader) full(b []byte) error {
	_, err := io.ReadFull(r.from, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errs.New(errs.Invalid, "the snapshot is truncated after %d frames", r.frames)
	}
	return err
}

func (r *frameReader) header() error {
	var b [len(snapshotMagic) + 4]byte
	if err := r.full(b[:]); err != nil {
		return err
	}
	if string(b[:len(snapshotMagic)]) != snapshotMagic {
		return errs.New(errs.Invalid, "this is not a snapshot of ironring")
	}
	switch v := binary.BigEndian.Uint32(b[len(snapshotMagic):]); {
	case v == 0:
		return damaged("it has version 0")
	case v > snapshotVersion:
		return errs.New(errs.Unsupported, "the snapshot has version %d, this build reads up to %d: upgrade this peer", v, snapshotVersion)
	}
	return nil
}

func (r *frameReader) next() (kind byte, payload []byte, err error) {
	var b [5]byte
	if err := r.full(b[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(b[:])
	if size > frameMax {
		return 0, nil, damaged("frame %d claims %d bytes", r.frames, size)
	}
	if cap(r.buf) < int(size)+4 {
		r.buf = make([]byte, size+4)
	}
	r.buf = r.buf[:size+4]
	if err := r.full(r.buf); err != nil {
		return 0, nil, err
	}
	kind, payload = b[4], r.buf[:size]
	if frameCRC(r.frames, kind, payload) != binary.BigEndian.Uint32(r.buf[size:]) {
		return 0, nil, damaged("frame %d has a wrong checksum", r.frames)
	}
	r.frames++
	return kind, payload, nil
}

func (r *frameReader) trailer(payload []byte) error {
	if len(payload) != 8 || binary.BigEndian.Uint64(payload) != r.frames-1 {
		return damaged("its trailer counts other frames than the %d before it", r.frames-1)
	}
	if _, err := r.from.ReadByte(); !errors.Is(err, io.EOF) {
		if err != nil {
			return err
		}
		return damaged("something follows the trailer")
	}
	return nil
}

// loader fills a new database. Records come by kind and key, strictly rising,
// which shows doubled ones.
type loader struct {
	db   *memdb.MemDB
	txn  *memdb.Txn
	head *head

	kind byte
	key  string
	past *past // being read
}

func (l *loader) load(kind byte, payload []byte) error {
	switch kind {
	case kindHistory:
		return l.loadHistory(payload)
	case kindAudit:
		return l.loadAudit(payload)
	}
	for _, t := range tables {
		if t.frameKind() != kind {
			continue
		}
		m := t.empty()
		if err := unmarshalKnown(payload, m); err != nil {
			return err
		}
		if err := l.rise(kind, t.keyOf(m)); err != nil {
			return err
		}
		switch kind {
		case nodes.kind:
			l.head.nodes++
		case kindAnswers:
			l.head.answers = append(l.head.answers, m.(*api.RequestResult))
			if len(l.head.answers) > requestsKept {
				return fmt.Errorf("more than %d answers to request ids", requestsKept)
			}
			return nil
		}
		return l.txn.Insert(t.tableName(), m)
	}
	return fmt.Errorf("a record of the unknown kind %d", kind)
}

// place is where records of a kind stand in a snapshot: in order of kind, but
// audit and history last.
func place(kind byte) int {
	if kind == kindAudit || kind == kindHistory {
		return 256 + int(kind)
	}
	return int(kind)
}

func (l *loader) rise(kind byte, key string) error {
	if place(kind) < place(l.kind) || kind == l.kind && key <= l.key {
		return fmt.Errorf("a record of kind %d out of order", kind)
	}
	l.kind, l.key = kind, key
	return nil
}

func (l *loader) loadAudit(payload []byte) error {
	a := &api.Audit{}
	if err := unmarshalKnown(payload, a); err != nil {
		return err
	}
	l.head.audits = append(l.head.audits, a)
	if len(l.head.audits) > auditKept {
		return fmt.Errorf("more than %d lines of audit", auditKept)
	}
	return l.rise(kindAudit, be64(a.GetSeq()))
}

func (l *loader) loadHistory(payload []byte) error {
	h := &api.History{}
	if err := unmarshalKnown(payload, h); err != nil {
		return err
	}
	if l.past == nil || l.past.node != h.GetNodeId() {
		l.endPast()
		if err := l.rise(kindHistory, h.GetNodeId()); err != nil {
			return err
		}
		l.past = &past{node: h.GetNodeId()}
	}
	if n := len(l.past.entries); n == historyKept || n > 0 && l.past.entries[n-1].GetSeq() >= h.GetSeq() {
		return fmt.Errorf("history of node %s out of order", h.GetNodeId())
	}
	l.past.entries = append(l.past.entries, h)
	return nil
}

func (l *loader) endPast() {
	if l.past != nil {
		must(l.txn.Insert(tableHistory, l.past))
		l.past = nil
	}
}

// unmarshalKnown refuses fields that this build does not know: they would be
// lost with the next change of the record.
func unmarshalKnown(b []byte, m proto.Message) error {
	if err := (proto.UnmarshalOptions{RecursionLimit: maxDepth}).Unmarshal(b, m); err != nil {
		return err
	}
	return known(m.ProtoReflect())
}
