package fsm

import (
	"cmp"
	"iter"
	"slices"

	"github.com/hashicorp/go-memdb"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
)

// Answers to request ids are kept so long and so many.
const (
	requestTicks = 600_000
	requestsKept = 100_000
)

// The answers to request ids are a queue, which goes in at one end and out at
// the other: an array on the head that is only ever appended to (as the audit
// is, history.go) holds them in order of age, and a map that belongs to the
// Store finds them. Nothing else looks for one, so they cost no index.

// answersTable has the answers take part in snapshots and digests.
type answersTable struct{}

const kindAnswers byte = 14 // of its frames in a snapshot

var answers answersTable

func (answersTable) tableName() string            { return tableRequests }
func (answersTable) frameKind() byte              { return kindAnswers }
func (answersTable) empty() proto.Message         { return &api.RequestResult{} }
func (answersTable) keyOf(m proto.Message) string { return m.(*api.RequestResult).GetRequestId() }

// records are the answers by request id, the order of snapshots.
func (t answersTable) records(txn *memdb.Txn) iter.Seq2[string, proto.Message] {
	return func(yield func(string, proto.Message) bool) {
		raw, err := txn.First(tableHead, byID, only)
		must(err)
		all := slices.Clone(raw.(*head).answers)
		slices.SortFunc(all, func(a, b *api.RequestResult) int { return cmp.Compare(a.GetRequestId(), b.GetRequestId()) })
		for _, r := range all {
			if !yield(r.GetRequestId(), r) {
				return
			}
		}
	}
}

// byAge is the order of the queue. An entry's answers have its index; the id
// makes the order the same on a peer that restored them.
func byAge(a, b *api.RequestResult) int {
	return cmp.Or(
		cmp.Compare(a.GetTick(), b.GetTick()),
		cmp.Compare(a.GetResult().GetIndex(), b.GetResult().GetIndex()),
		cmp.Compare(a.GetRequestId(), b.GetRequestId()),
	)
}

// known is the answer to the command's request id, nil when it is not known.
func (w *work) known() *api.Result {
	if id := w.meta.GetRequestId(); id != "" {
		return w.answered[id].GetResult()
	}
	return nil
}

// remember keeps the answer of an accepted command.
func (w *work) remember(res *api.Result) {
	id := w.meta.GetRequestId()
	if id == "" {
		return
	}
	r := &api.RequestResult{RequestId: id, Tick: w.c.ticks, Result: res}
	w.answered[id] = r
	w.answers = append(w.answers, r)
}

// flushAnswers appends the entry's answers to the queue and forgets the oldest.
func (w *work) flushAnswers() {
	slices.SortFunc(w.answers, byAge)
	all := append(w.head.answers, w.answers...)
	n := max(0, len(all)-requestsKept)
	for n < len(all) && after(all[n].GetTick(), requestTicks) <= w.head.ticks {
		n++
	}
	for _, r := range all[:n] {
		delete(w.answered, r.GetRequestId())
	}
	w.head.answers = all[n:]
}

// answeredBy indexes the answers that a snapshot brought, and brings them into
// their order.
func answeredBy(queue []*api.RequestResult) map[string]*api.RequestResult {
	slices.SortFunc(queue, byAge)
	m := make(map[string]*api.RequestResult, len(queue))
	for _, r := range queue {
		m[r.GetRequestId()] = r
	}
	return m
}
