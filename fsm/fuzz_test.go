package fsm

import (
	"bufio"
	"bytes"
	"io"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
)

func newBuffered(w io.Writer) *bufio.Writer { return bufio.NewWriter(w) }

// FuzzApply: arbitrary bytes never panic, an entry that is not understood
// changes nothing, and one that is gives the same state on two stores.
func FuzzApply(f *testing.F) {
	from := snapshotOf(f, populated(f).s)
	token := uint64(1)
	for _, ops := range [][]*api.Op{
		{nodeCreate(nodeID(3), "c"), portCreate(uid(2, 3), nodeID(3), mac(3))},
		{nodePatch(nodeID(1), &api.Node{Description: "x"}, "description")},
		{closeIntent(token, 1), release(nodeID(1), token)},
		{register("l9", "p1", "m1", true)},
		{expire("l1", 0, 1), assignTo(nodeID(1), "p2", 2, 1), acquire(nodeID(1), "l2")},
		{stepStart(token, "f1", 0, 1, none), stepDone(token, "f1", 0, 1, none), flowEnd(token, "f1", api.FlowStatus_FLOW_FAILED, api.Event_EV_FAIL)},
		{networkSet(testNetwork()), allocate("prov", mac(1))},
		{tick(5, 1), memberSet("p3"), breakLock(token, 1)},
	} {
		b, err := proto.Marshal(&api.Entry{Commands: []*api.Command{{Meta: user, Ops: ops}, {Meta: user, Ops: ops}}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0x0a, 0x06, 0x12, 0x04, 0xfa, 0x3e, 0x01, 0x00})
	f.Add([]byte("rubbish"))
	f.Fuzz(func(t *testing.T, entry []byte) {
		var sums [2][32]byte
		for i := range sums {
			s := New()
			if err := s.Restore(bytes.NewReader(from)); err != nil {
				t.Fatal(err)
			}
			before, index := s.Digest()
			_, err := s.Apply(index+1, 1, bytes.Clone(entry))
			sums[i], _ = s.Digest()
			if err != nil && sums[i] != before {
				t.Fatalf("an entry that was not understood changed the state: %v", err)
			}
		}
		if sums[0] != sums[1] {
			t.Fatal("two stores differ after one entry")
		}
	})
}

// FuzzRestore: arbitrary bytes never panic and are restored only if they are a
// snapshot that can be written again.
func FuzzRestore(f *testing.F) {
	b := snapshotOf(f, populated(f).s)
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add([]byte(snapshotMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := New()
		if err := s.Restore(bytes.NewReader(b)); err != nil {
			return
		}
		again := New()
		if err := again.Restore(bytes.NewReader(snapshotOf(t, s))); err != nil {
			t.Fatal(err)
		}
	})
}
