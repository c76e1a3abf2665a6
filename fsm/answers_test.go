package fsm

import (
	"bytes"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
)

// answerTo is the stored answer to a request id.
func answerTo(v *View, id string) *api.RequestResult {
	for _, r := range v.head.answers {
		if r.GetRequestId() == id {
			return r
		}
	}
	return nil
}

// stuff gives a store so many answers more, of an entry that comes after the
// others, without applying their commands.
func stuff(f *fixture, count int) {
	f.index++
	db := f.s.db.Load()
	h := *newView(db).head
	h.index = f.index
	for i := range count {
		h.answers = append(h.answers, &api.RequestResult{RequestId: fmt.Sprint("s", i), Tick: h.ticks, Result: &api.Result{Index: f.index}})
	}
	txn := db.Txn(true)
	must(txn.Insert(tableHead, &h))
	txn.Commit()
	f.s.answered = answeredBy(h.answers)
}

// Only so many answers are kept. Which ones are forgotten is the same for a
// peer that restored them, although many are of one entry; and a repeated
// request gets the first answer until it is forgotten.
func TestAnswersForgotten(t *testing.T) {
	a := newFixture(t)
	ask := func(f *fixture, from, count int) {
		t.Helper()
		e := &api.Entry{}
		for i := from; i < from+count; i++ {
			// Neither in order of the ids nor all different in an entry.
			id := fmt.Sprint("r", i*7919%1_000_003)
			e.Commands = append(e.Commands, &api.Command{
				Meta: &api.Meta{Principal: "peer:p1", Source: "peer:p1", Reason: "test", RequestId: id},
				Ops:  []*api.Op{tick(1, 1)},
			})
		}
		raw, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		f.index++
		if _, err := f.s.Apply(f.index, 1, raw); err != nil {
			t.Fatal(err)
		}
	}
	const each = 1000
	ask(a, 0, each)
	stuff(a, requestsKept-each-each/4)
	b := &fixture{t: t, s: New(), index: a.index, term: a.term}
	if err := b.s.Restore(bytes.NewReader(snapshotOf(t, a.s))); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*fixture{a, b} {
		ask(f, requestsKept, each/2) // now some of the first entry are gone, some are not
		ask(f, requestsKept, 1)      // again
		v := f.s.View()
		if len(v.head.answers) != requestsKept || len(f.s.answered) != requestsKept {
			t.Errorf("%d answers are kept, %d can be found", len(v.head.answers), len(f.s.answered))
		}
	}
	one, _ := a.s.Digest()
	if two, _ := b.s.Digest(); one != two {
		t.Error("a restored peer forgets others")
	}
	if res := a.entry(&api.Command{
		Meta: &api.Meta{Principal: "peer:p1", Source: "peer:p1", Reason: "test", RequestId: fmt.Sprint("r", requestsKept*7919%1_000_003)},
		Ops:  []*api.Op{nodeDelete("none")},
	}); res[0].GetFailure() != nil || res[0].GetIndex() == a.index {
		t.Errorf("a known request was done again: %v", res)
	}
}
