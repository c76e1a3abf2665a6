package fsm

import (
	"cmp"
	"slices"

	"github.com/hashicorp/go-memdb"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
)

// work is what one entry is applied with: the transaction of the entry, and
// the overlay of the command at hand. See the package comment.
type work struct {
	// Of the entry.
	db       *memdb.Txn
	index    uint64
	term     uint64
	sealed   bool // it may bring sealed values
	head     head // as of the last accepted command
	hints    hints
	answered map[string]*api.RequestResult // the Store's
	answers  []*api.RequestResult          // of the entry so far
	changes  []Change
	reported map[slotKey]struct{} // in changes

	// Of the command; dropped when it is refused.
	meta      *api.Meta
	c         counters
	slots     map[slotKey]*slot
	order     []slotKey // keys of slots in order of first touch
	lines     []*api.History
	audits    []*api.Audit
	forgotten []string
	newHints  hints
}

type slotKey struct{ table, key string }

// slot is a record that the command has written.
type slot struct {
	obj     proto.Message // nil: deleted
	was     proto.Message // in the transaction; nil: not there
	watched bool
}

// begin forgets the overlay.
func (w *work) begin(meta *api.Meta) {
	w.meta = meta
	w.c = w.head.counters
	clear(w.slots)
	clear(w.newHints)
	w.order, w.lines, w.audits, w.forgotten = w.order[:0], w.lines[:0], w.audits[:0], w.forgotten[:0]
}

// get is a record as the command sees it; nil when there is none. It must not
// be modified.
func get[R proto.Message](w *work, t *table[R], key string) (r R) {
	if s := w.slots[slotKey{t.name, key}]; s != nil {
		if s.obj != nil {
			r = s.obj.(R)
		}
		return r
	}
	return first(w.db, t, byID, key)
}

// base is a record as it was before the command.
func base[R proto.Message](w *work, t *table[R], key string) R { return first(w.db, t, byID, key) }

// find is the records that an index has under a key and that match, as the
// command sees them, in key order.
func find[R proto.Message](w *work, t *table[R], ix, key string, match func(R) bool) []R {
	var out []R
	for r := range scan(w.db, t, ix, key) {
		if w.slots[slotKey{t.name, t.key(r)}] == nil {
			out = append(out, r)
		}
	}
	return overlaid(w, t, out, match)
}

// overlaid adds what the command has written.
func overlaid[R proto.Message](w *work, t *table[R], out []R, match func(R) bool) []R {
	n := len(out)
	for _, k := range w.order {
		if s := w.slots[k]; k.table == t.name && s.obj != nil && match(s.obj.(R)) {
			out = append(out, s.obj.(R))
		}
	}
	if len(out) > n {
		slices.SortFunc(out, func(a, b R) int { return cmp.Compare(t.key(a), t.key(b)) })
	}
	return out
}

// all is every record of a table, as the command sees them, in key order.
func all[R proto.Message](w *work, t *table[R]) []R {
	var out []R
	for r := range scan(w.db, t, byID) {
		if w.slots[slotKey{t.name, t.key(r)}] == nil {
			out = append(out, r)
		}
	}
	return overlaid(w, t, out, func(R) bool { return true })
}

// edit is a record for modification: a clone that the command owns; nil when
// there is none.
func edit[R proto.Message](w *work, t *table[R], key string) (r R) {
	k := slotKey{t.name, key}
	if s := w.slots[k]; s != nil {
		if s.obj != nil {
			r = s.obj.(R)
		}
		return r
	}
	raw, err := w.db.First(t.name, byID, key)
	must(err)
	if raw == nil {
		return r
	}
	r = proto.Clone(raw.(R)).(R)
	w.keep(k, &slot{obj: r, was: raw.(R), watched: t.watched})
	return r
}

// put writes a record that the caller owns.
func put[R proto.Message](w *work, t *table[R], r R) {
	k := slotKey{t.name, t.key(r)}
	if s := w.slots[k]; s != nil {
		s.obj = r
		return
	}
	w.keep(k, &slot{obj: r, was: w.stored(k), watched: t.watched})
}

// drop deletes a record if it is there.
func drop[R proto.Message](w *work, t *table[R], key string) {
	k := slotKey{t.name, key}
	if s := w.slots[k]; s != nil {
		s.obj = nil
		return
	}
	if was := w.stored(k); was != nil {
		w.keep(k, &slot{was: was, watched: t.watched})
	}
}

func (w *work) keep(k slotKey, s *slot) {
	w.slots[k] = s
	w.order = append(w.order, k)
}

func (w *work) stored(k slotKey) proto.Message {
	raw, err := w.db.First(k.table, byID, k.key)
	must(err)
	if raw == nil {
		return nil
	}
	return raw.(proto.Message)
}

// flush writes the overlay of an accepted command into the transaction.
func (w *work) flush() {
	for _, k := range w.order {
		s := w.slots[k]
		switch {
		case s.obj != nil:
			stamp(s.obj, w.index)
			must(w.db.Insert(k.table, s.obj))
			w.count(k.table, s.was, +1)
		case s.was != nil:
			must(w.db.Delete(k.table, s.was))
			w.count(k.table, nil, -1)
		default:
			continue // made and deleted by the same command
		}
		w.report(k, s)
	}
	w.flushHistory()
	w.flushAudit()
	w.head.counters = w.c
	w.hints.merge(w.newHints)
}

func (w *work) count(table string, was proto.Message, by int) {
	if was != nil {
		return // replaced
	}
	if table == TableNodes {
		w.head.nodes += by
	}
}

func (w *work) report(k slotKey, s *slot) {
	if !s.watched {
		return
	}
	if _, ok := w.reported[k]; ok {
		return
	}
	w.reported[k] = struct{}{}
	w.changes = append(w.changes, Change{Index: w.index, Table: k.table, Key: k.key})
}

// stamp sets the index of a record's last change.
func stamp(m proto.Message, index uint64) {
	switch r := m.(type) {
	case *api.Node:
		r.Index = index
	case *api.Port:
		r.Index = index
	case *api.Network:
		r.Index = index
	case *api.Address:
		r.Index = index
	case *api.Flow:
		r.Index = index
	case *api.Lock:
		r.Index = index
	case *api.Lease:
		r.Index = index
	case *api.Intent:
		r.Index = index
	case *api.Member:
		r.Index = index
	case *api.Inventory:
		r.Index = index
	case *api.Reach:
		r.Index = index
	case *api.Settings:
		r.Index = index
	case *api.Keys:
		r.Index = index
	case *api.FormerMember:
		r.Index = index
	case *api.SpentKey:
		r.Index = index
	case *api.Artifact:
		r.Index = index
	case *api.Ramdisk:
		r.Index = index
	}
}
