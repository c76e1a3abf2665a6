package fsm

import (
	"bufio"
	"encoding/binary"
	"hash/crc32"
	"io"
	"iter"

	"github.com/hashicorp/go-memdb"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
)

// A snapshot is
//
//	magic, version (4 bytes)
//	frames: payload length (4), kind (1), payload, CRC-32C (4)
//	        first the head, then the records by kind and key, audit, history
//	trailer: a frame of kind 0 whose payload is the number of frames before it
//
// Numbers are big endian. The CRC covers the frame's number, kind and payload,
// so that frames which were lost, doubled or exchanged are found too. A reader
// restores its own version and older ones, and refuses newer ones.
const (
	snapshotMagic   = "IRONSNAP"
	snapshotVersion = 1
	frameMax        = 4 << 20 // bytes of one payload; records are far smaller
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func frameCRC(number uint64, kind byte, payload []byte) uint32 {
	var b [9]byte
	binary.BigEndian.PutUint64(b[:], number)
	b[8] = kind
	return crc32.Update(crc32.Checksum(b[:], castagnoli), castagnoli, payload)
}

// Snapshot is the state at one moment, for writing. It costs nothing to make.
type Snapshot struct{ view *View }

// Snapshot takes the state as it is now.
func (s *Store) Snapshot() *Snapshot { return &Snapshot{view: s.View()} }

// View is the picture that the snapshot holds.
func (s *Snapshot) View() *View { return s.view }

// WriteTo streams the snapshot.
func (s *Snapshot) WriteTo(to io.Writer) (int64, error) {
	w := &frameWriter{to: bufio.NewWriterSize(to, 64<<10)}
	w.bytes([]byte(snapshotMagic))
	w.bytes(binary.BigEndian.AppendUint32(nil, snapshotVersion))
	w.frame(kindHead, s.view.head.encode(w.buf[:0]))
	for kind, m := range s.view.records() {
		if w.err != nil {
			break
		}
		w.message(kind, m)
	}
	w.frame(kindTrailer, binary.BigEndian.AppendUint64(nil, w.frames))
	if w.err == nil {
		w.err = w.to.Flush()
	}
	return w.n, w.err
}

// records are all records by kind and key, audit and history last.
func (v *View) records() iter.Seq2[byte, proto.Message] {
	return func(yield func(byte, proto.Message) bool) {
		for _, t := range tables {
			for _, m := range t.records(v.txn) {
				if !yield(t.frameKind(), m) {
					return
				}
			}
		}
		for _, a := range v.head.audits {
			if !yield(kindAudit, a) {
				return
			}
		}
		for p := range pasts(v.txn) {
			for _, h := range p.entries {
				if !yield(kindHistory, h) {
					return
				}
			}
		}
	}
}

func pasts(txn *memdb.Txn) iter.Seq[*past] {
	return func(yield func(*past) bool) {
		it, err := txn.Get(tableHistory, byID)
		must(err)
		for raw := it.Next(); raw != nil; raw = it.Next() {
			if !yield(raw.(*past)) {
				return
			}
		}
	}
}

// encode is the payload of the head frame.
func (h *head) encode(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, h.index)
	b = binary.BigEndian.AppendUint64(b, h.term)
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, h.globals())
	must(err)
	return b
}

func decodeHead(b []byte) (*head, error) {
	if len(b) < 16 {
		return nil, io.ErrUnexpectedEOF
	}
	g := &api.Globals{}
	if err := unmarshalKnown(b[16:], g); err != nil {
		return nil, err
	}
	return &head{
		counters: countersOf(g),
		index:    binary.BigEndian.Uint64(b), term: binary.BigEndian.Uint64(b[8:]),
	}, nil
}

// frameWriter writes frames and keeps the first error.
type frameWriter struct {
	to     *bufio.Writer
	buf    []byte // reused
	frames uint64
	n      int64
	err    error
}

func (w *frameWriter) bytes(b []byte) {
	if w.err != nil {
		return
	}
	n, err := w.to.Write(b)
	w.n, w.err = w.n+int64(n), err
}

func (w *frameWriter) message(kind byte, m proto.Message) {
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(w.buf[:0], m)
	if err != nil {
		w.err = err
		return
	}
	w.buf = b
	w.frame(kind, b)
}

func (w *frameWriter) frame(kind byte, payload []byte) {
	var head [5]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(payload)))
	head[4] = kind
	w.bytes(head[:])
	w.bytes(payload)
	w.bytes(binary.BigEndian.AppendUint32(nil, frameCRC(w.frames, kind, payload)))
	w.frames++
}
