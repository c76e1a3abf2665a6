package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// populated is a store with a record of most kinds.
func populated(t testing.TB) *fixture {
	f := owned(t)
	f.ok(networkSet(testNetwork()))
	f.ok(allocate("prov", mac(1)))
	f.ok(flowCreate(manage, newFlow(api.FlowKind_FLOW_VERIFY, 2)))
	tok := f.lock()
	f.ok(nodeWrite(tok, &api.Node{Boot: &api.Boot{}, Bmc: &api.BmcFacts{BmcMacs: []string{mac(9)}}}, "boot", "bmc"), open(tok))
	f.command(&api.Meta{Principal: "client:a", Source: "unix", Reason: "test", RequestId: "r1"}, nodeCreate(nodeID(2), "b"))
	return f
}

func snapshotOf(t testing.TB, s *Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := s.Snapshot().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSnapshotRoundTrip(t *testing.T) {
	f := populated(t)
	b := snapshotOf(t, f.s)
	if again := snapshotOf(t, f.s); !bytes.Equal(b, again) {
		t.Error("two snapshots of one state differ")
	}
	s := New()
	if err := s.Restore(bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	want, index := f.s.Digest()
	if got, at := s.Digest(); got != want || at != index {
		t.Errorf("digest %x at %d, want %x at %d", got, at, want, index)
	}
	a, c := *f.s.View().head, *s.View().head
	asked := len(a.answers)
	a.audits, c.audits, a.answers, c.answers = nil, nil, nil, nil // in the digest
	if !reflect.DeepEqual(a, c) || asked != 1 || a.nodes != 2 {
		t.Errorf("the head was %+v and is %+v", a, c)
	}
	if _, _, _, err := s.Changes(index - 1); !errors.Is(err, ErrCompacted) {
		t.Errorf("watchers do not resync after a restore: %v", err)
	}
}

// A snapshot that is cut or changed anywhere is refused, and the store stays.
func TestSnapshotDamage(t *testing.T) {
	b := snapshotOf(t, populated(t).s)
	f := newFixture(t)
	want, _ := f.s.Digest()
	refused := func(what string, b []byte) {
		t.Helper()
		err := f.s.Restore(bytes.NewReader(b))
		if err == nil {
			t.Fatalf("%s: restored", what)
		}
		if k := errs.KindOf(err); k != errs.Invalid && k != errs.Unsupported {
			t.Fatalf("%s: %v (%v)", what, err, k)
		}
	}
	for i := range b {
		refused(fmt.Sprint("cut at ", i), b[:i])
		c := bytes.Clone(b)
		c[i] ^= 0x10
		refused(fmt.Sprint("changed at ", i), c)
	}
	refused("longer", append(bytes.Clone(b), 0))
	if got, _ := f.s.Digest(); got != want {
		t.Error("a refused snapshot changed the state")
	}
	f.ok(tick(1, 1)) // and it goes on
}

func TestSnapshotOfNewerVersion(t *testing.T) {
	b := snapshotOf(t, populated(t).s)
	b[len(snapshotMagic)+3] = snapshotVersion + 1
	err := New().Restore(bytes.NewReader(b))
	if errs.KindOf(err) != errs.Unsupported || !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("%v", err)
	}
}

// A frame of the right form with records doubled, exchanged or of fields that
// this build does not know.
func TestSnapshotOfWrongRecords(t *testing.T) {
	write := func(kinds []byte, records ...proto.Message) []byte {
		var b bytes.Buffer
		w := frameWriter{to: newBuffered(&b)}
		w.bytes([]byte(snapshotMagic + "\x00\x00\x00\x01"))
		w.frame(kindHead, (&head{}).encode(nil))
		for i, m := range records {
			w.message(kinds[i], m)
		}
		w.frame(kindTrailer, []byte{0, 0, 0, 0, 0, 0, 0, byte(w.frames)})
		w.to.Flush()
		return b.Bytes()
	}
	a, c := &api.Node{Id: nodeID(1)}, &api.Node{Id: nodeID(2)}
	odd := &api.Node{Id: nodeID(3)}
	odd.ProtoReflect().SetUnknown([]byte{0xf8, 0x7f, 1})
	kind := []byte{nodes.kind, nodes.kind}
	if err := New().Restore(bytes.NewReader(write(kind, a, c))); err != nil {
		t.Fatalf("a good one: %v", err)
	}
	for name, b := range map[string][]byte{
		"doubled":       write(kind, a, a),
		"exchanged":     write(kind, c, a),
		"unknown field": write(kind, a, odd),
		"unknown kind":  write([]byte{200}, a),
		"head again":    write([]byte{nodes.kind, kindHead}, a, c),
	} {
		if err := New().Restore(bytes.NewReader(b)); err == nil {
			t.Errorf("%s: restored", name)
		}
	}
}

type broken struct{ after int }

func (b *broken) Write(p []byte) (int, error) {
	if b.after -= len(p); b.after < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestSnapshotWriteError(t *testing.T) {
	f := populated(t)
	if _, err := f.s.Snapshot().WriteTo(&broken{after: 100}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("%v", err)
	}
}

// A digest tells states apart that differ in one field only.
func TestDigestSeesEverything(t *testing.T) {
	seen := map[[32]byte]string{}
	add := func(name string, f *fixture) {
		d, _ := f.s.Digest()
		if other, ok := seen[d]; ok {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[d] = name
	}
	f := newFixture(t)
	add("empty", f)
	f.ok(nodeCreate(nodeID(1), "a"))
	add("node", f)
	for _, n := range []*api.Node{
		{Description: "x"}, {ResourceClass: "x"}, {Extra: []byte("x")}, {Properties: []byte("x")},
		{Maintenance: true}, {EnforcePower: true},
	} {
		f.ok(nodePatch(nodeID(1), n, "description", "resource_class", "extra", "properties", "maintenance", "enforce_power"))
		add(n.String(), f)
	}
	f.ok(tick(1, 1))
	add("tick", f)
}
