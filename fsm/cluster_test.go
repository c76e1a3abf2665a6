package fsm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

func TestBootstrapOnce(t *testing.T) {
	f := newFixture(t)
	f.fails(errs.Exists, &api.Op{Op: &api.Op_Bootstrap{Bootstrap: &api.Bootstrap{ClusterId: "c2", Settings: testSettings()}}})
	v := f.s.View()
	if v.Globals().GetClusterId() != "c1" || v.Globals().GetFeatureLevel() != 1 || v.Settings().GetRev() != 1 {
		t.Errorf("%v %v", v.Globals(), v.Settings())
	}
	set := func(rev uint64) *api.Op {
		s := testSettings()
		s.Rev, s.MaxVoters = rev, 5
		return &api.Op{Op: &api.Op_SettingsSet{SettingsSet: &api.SettingsSet{Settings: s}}}
	}
	f.fails(errs.Conflict, set(0))
	f.ok(set(1))
	f.fails(errs.Conflict, set(1))
}

func TestTickIsCapped(t *testing.T) {
	f := newFixture(t)
	f.ok(tick(1000, 1))
	f.ok(tick(3_600_000, 1))
	f.fails(errs.NotLeader, tick(1000, 2))
	if got := f.s.View().Globals().GetTicks(); got != 11_000 {
		t.Errorf("%d ticks", got)
	}
}

func TestMembers(t *testing.T) {
	f := newFixture(t)
	f.ok(tick(3000, 1))
	f.ok(memberSet("p1"))
	f.ok(tick(3000, 1))
	f.ok(memberSet("p1"))
	if m := f.s.View().Member("p1"); m.GetStableTick() != 3000 || m.GetJoinedMs() != user.GetWallMs() {
		t.Errorf("set again in the same phase: %v", m)
	}
	f.fails(errs.Invalid, memberSet("a/b"))
	level := func(n uint32) *api.Op {
		return &api.Op{Op: &api.Op_FeatureLevelSet{FeatureLevelSet: &api.FeatureLevelSet{Level: n, Term: 1}}}
	}
	f.fails(errs.WrongState, level(2))
	m := memberSet("p1")
	m.GetMemberSet().Member.FeatureLevel = 2
	f.ok(m)
	f.ok(level(2))
	f.fails(errs.Conflict, level(1))
	f.fails(errs.Unsupported, memberSet("p2"))
}

func TestJoinToken(t *testing.T) {
	f := newFixture(t)
	secret, key := sha256.Sum256([]byte("s")), sha256.Sum256([]byte("k"))
	f.ok(&api.Op{Op: &api.Op_TokenCreate{TokenCreate: &api.TokenCreate{Token: &api.JoinToken{
		Id: "t1", SecretDigest: secret[:], ExpiresMs: user.GetWallMs() + 1000,
	}}}})
	consume := func(id string, secret, key [32]byte, member string) *api.Op {
		return &api.Op{Op: &api.Op_TokenConsume{TokenConsume: &api.TokenConsume{Id: id, SecretDigest: secret[:], KeyDigest: key[:], MemberId: member}}}
	}
	f.fails(errs.Denied, consume("t2", secret, key, "p2"))
	f.fails(errs.Denied, consume("t1", key, key, "p2"))
	late := &api.Meta{Principal: "peer:p1", Source: "peer:p1", Reason: "test", WallMs: user.GetWallMs() + 2000}
	if res := f.command(late, consume("t1", secret, key, "p2")); res.GetFailure().GetKind() != "denied" {
		t.Errorf("an expired token: %v", res)
	}
	f.ok(consume("t1", secret, key, "p2"))
	f.ok(consume("t1", secret, key, "p2")) // its answer was lost
	f.fails(errs.Denied, consume("t1", secret, secret, "p2"))
	f.fails(errs.Denied, consume("t1", secret, key, "p3"))
}

// Two hosts of one name join at once: the second does not take the record over.
func TestMemberIsOneKey(t *testing.T) {
	f := newFixture(t)
	first, second := peerWithKey("p2", 0), peerWithKey("p2", 0)
	second.GetMemberSet().Member.KeyDigest = []byte("another key")
	f.ok(first)
	f.fails(errs.Exists, second)
	f.ok(first)
	f.ok(removal("p2", true))
	f.ok(second)
}

func TestRequestID(t *testing.T) {
	f := newFixture(t)
	meta := &api.Meta{Principal: "client:a", Source: "unix", Reason: "test", RequestId: "r1"}
	if res := f.command(meta, nodeCreate("bad", "")); res.GetFailure() == nil {
		t.Fatal("accepted")
	}
	first := f.command(meta, nodeCreate(nodeID(1), "a"))
	again := f.command(meta, nodeCreate(nodeID(2), "b"))
	if !proto.Equal(first, again) || f.s.View().NodeCount() != 1 {
		t.Errorf("the retry acted: %v then %v", first, again)
	}
	for range 61 {
		f.ok(tick(10_000, 1))
	}
	if answerTo(f.s.View(), "r1") != nil {
		t.Error("the answer is kept for ever")
	}
}

func TestAudit(t *testing.T) {
	f := newFixture(t)
	audit := func() []*api.Audit { return collect(f.s.View().Audit()) }
	n := len(audit())
	f.command(&api.Meta{Principal: "peer:p1", Source: "peer:p1", Reason: "test"}, nodeCreate(nodeID(1), "a"))
	f.command(&api.Meta{Principal: "system", Source: "peer:p1", Reason: "test"}, tick(1, 1))
	f.command(user, nodeCreate(nodeID(1), "a")) // refused
	if got := len(audit()); got != n {
		t.Errorf("%d entries for commands of peers and refused ones", got-n)
	}
	f.ok(nodePatch(nodeID(1), &api.Node{Name: "b"}, "name"))
	if a := audit()[n]; a.GetOp() != "node_patch" || a.GetSubject() != nodeID(1) || a.GetMeta().GetPrincipal() != "client:test" {
		t.Errorf("entry %v", a)
	}
	for i := range auditKept + 5 {
		f.entry(&api.Command{Meta: user, Ops: []*api.Op{nodePatch(nodeID(1), &api.Node{Description: fmt.Sprint(i)}, "description")}})
	}
	if got := len(audit()); got != auditKept {
		t.Errorf("%d entries are kept", got)
	}
	h := f.s.View().History(nodeID(1))
	if len(h) != historyKept || h[0].GetSeq()+historyKept-1 != h[historyKept-1].GetSeq() {
		t.Errorf("history: %d lines", len(h))
	}
}

func TestBounds(t *testing.T) {
	f := newFixture(t)
	big := func(n int) *api.Op {
		return nodePatch(nodeID(1), &api.Node{Description: string(make([]byte, n))}, "extra")
	}
	f.fails(errs.Invalid, big(MaxCommand))
	res := f.entry(
		&api.Command{Ops: []*api.Op{nodeCreate(nodeID(1), "a")}},
		&api.Command{Ops: []*api.Op{big(MaxCommand)}},
	)
	if res[0].GetFailure() != nil || res[1].GetFailure() == nil {
		t.Errorf("the large command spoils its neighbour, or is accepted: %v", res)
	}
	res = f.entry(
		&api.Command{Ops: []*api.Op{nodeCreate(nodeID(2), "b")}},
		&api.Command{Ops: []*api.Op{big(MaxEntry)}},
	)
	if res[0].GetFailure() == nil || res[1].GetFailure() == nil {
		t.Error("commands of an oversize entry were accepted")
	}
	f.fails(errs.Invalid)
	f.fails(errs.Invalid, &api.Op{})
}

// A command with a bad last operation leaves nothing of the first ones, and
// the commands beside it in the entry stand.
func TestAtomicity(t *testing.T) {
	f := newFixture(t)
	res := f.entry(
		&api.Command{Ops: []*api.Op{nodeCreate(nodeID(1), "a"), portCreate(uid(2, 1), nodeID(1), mac(1))}},
		&api.Command{Ops: []*api.Op{nodeCreate(nodeID(2), "b"), portCreate(uid(2, 2), nodeID(2), mac(2)), nodeCreate(nodeID(3), "a")}},
		&api.Command{Ops: []*api.Op{nodeCreate(nodeID(4), "b"), portCreate(uid(2, 3), nodeID(4), mac(2))}},
	)
	if res[0].GetFailure() != nil || res[1].GetFailure().GetKind() != "exists" || res[2].GetFailure() != nil {
		t.Fatalf("%v", res)
	}
	v := f.s.View()
	if v.NodeCount() != 2 || v.NodeByName("b").GetId() != nodeID(4) || v.PortByMAC(mac(2)).GetNodeId() != nodeID(4) {
		t.Error("the refused command left something")
	}
}

func TestUnknownStops(t *testing.T) {
	f := newFixture(t)
	at, _ := f.s.Digest()
	good, err := proto.Marshal(&api.Entry{Commands: []*api.Command{{Ops: []*api.Op{nodeCreate(nodeID(1), "a")}}}})
	if err != nil {
		t.Fatal(err)
	}
	op := nodeCreate(nodeID(2), "b")
	op.GetNodeCreate().GetNode().ProtoReflect().SetUnknown([]byte{0xf8, 0x7f, 1}) // deep inside
	deep, _ := proto.Marshal(&api.Entry{Commands: []*api.Command{{Ops: []*api.Op{op}}}})
	enum, _ := proto.Marshal(&api.Entry{Commands: []*api.Command{{Ops: []*api.Op{flowCreate(api.Event(77), nil)}}}})
	for name, b := range map[string][]byte{
		"rubbish":       []byte("rubbish"),
		"truncated":     good[:len(good)-3],
		"unknown op":    {0x0a, 0x06, 0x12, 0x04, 0xfa, 0x3e, 0x01, 0x00},
		"unknown field": deep,
		"unknown enum":  enum,
	} {
		if _, err := f.s.Apply(f.index+1, 1, b); err == nil {
			t.Errorf("%s: applied", name)
		}
	}
	if _, err := f.s.Apply(f.index, 1, good); err == nil {
		t.Error("an index was applied twice")
	}
	if now, index := f.s.Digest(); now != at || index != f.index {
		t.Error("an entry that was not understood changed the state")
	}
}

func TestChanges(t *testing.T) {
	f := newFixture(t)
	at := f.s.Index()
	changes, upTo, more, err := f.s.Changes(at)
	if err != nil || len(changes) != 0 || upTo != at {
		t.Fatalf("%v %d %v", changes, upTo, err)
	}
	f.ok(nodeCreate(nodeID(1), "a"), portCreate(uid(2, 1), nodeID(1), mac(1)))
	select {
	case <-more:
	case <-time.After(10 * time.Second):
		t.Fatal("the watcher was not woken")
	}
	changes, upTo, _, err = f.s.Changes(at)
	want := []Change{{at + 1, TableNodes, nodeID(1)}, {at + 1, TablePorts, uid(2, 1)}}
	if err != nil || upTo != at+1 || fmt.Sprint(changes) != fmt.Sprint(want) {
		t.Fatalf("%v %d %v", changes, upTo, err)
	}
	var cmds []*api.Command
	for i := range 64 {
		cmds = append(cmds, &api.Command{Ops: []*api.Op{nodeCreate(uid(3, i), "")}})
	}
	f.entry(cmds...)
	for i := range 300 {
		for j, c := range cmds {
			c.Ops = []*api.Op{nodePatch(uid(3, j), &api.Node{Description: fmt.Sprint(i)}, "description")}
		}
		f.entry(cmds...)
	}
	if _, _, _, err := f.s.Changes(at); !errors.Is(err, ErrCompacted) || errs.KindOf(err) != errs.NotFound {
		t.Errorf("far behind: %v", err)
	}
	changes, _, _, err = f.s.Changes(f.index - 10)
	if err != nil || len(changes) != 640 || changes[0].Index != f.index-9 || changes[639].Index != f.index {
		t.Errorf("ten entries: %d, %v", len(changes), err)
	}
	if changes, _, _, err = f.s.Changes(f.index - 255); err != nil || len(changes) != 255*64 {
		t.Errorf("as far back as is kept: %d, %v", len(changes), err)
	}
}

func TestWaitIndex(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(context.Background())
	done, next := make(chan error), f.index+1
	go func() { done <- f.s.WaitIndex(ctx, next) }()
	f.entry(&api.Command{Ops: []*api.Op{tick(1, 1)}})
	if err := <-done; err != nil {
		t.Errorf("wait: %v", err)
	}
	cancel()
	if err := f.s.WaitIndex(ctx, 1000); !errors.Is(err, context.Canceled) {
		t.Errorf("wait with an ended context: %v", err)
	}
}

// Readers need no lock, whatever Apply and Restore do meanwhile (run with
// -race).
func TestViewsWhileApplying(t *testing.T) {
	f := populated(t)
	raw := snapshotOf(t, f.s)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				v := f.s.View()
				sum := v.Digest()
				for range v.History(nodeID(1)) {
				}
				if v.Digest() != sum {
					t.Error("a view changed")
					return
				}
				_, _, _, _ = f.s.Changes(0)
			}
		})
	}
	for i := range 200 {
		f.entry(&api.Command{Meta: user, Ops: []*api.Op{nodePatch(nodeID(1), &api.Node{Description: fmt.Sprint(i)}, "description")}})
		if i%50 == 49 {
			if err := f.s.Restore(bytes.NewReader(raw)); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	readers.Wait()
}

// The loss of a conductor with many locks is one command.
func TestFenceOfManyLocks(t *testing.T) {
	const many = 1000
	f := owned(t)
	for i := 10; i < 10+many; i++ {
		op := nodeCreate(nodeID(i), "")
		op.GetNodeCreate().Node.Assigned = "p1"
		f.entry(&api.Command{Ops: []*api.Op{op, acquire(nodeID(i), "l1")}})
	}
	if n := len(collect(f.s.View().LocksOf("l1"))); n != many {
		t.Fatalf("%d locks", n)
	}
	at := f.index
	f.ok(expire("l1", 0, 1))
	v := f.s.View()
	if n := len(collect(v.Locks())); n != 0 {
		t.Errorf("%d locks are left", n)
	}
	for i := 10; i < 10+many; i++ {
		if q := v.Node(nodeID(i)).GetQuarantine(); q.GetClass() != api.Quarantine_SHORT || q.GetFenceIndex() != at+1 {
			t.Fatalf("node %d: %v", i, q)
		}
	}
	if changes, _, _, err := f.s.Changes(at); err != nil || len(changes) != 2*many+1 {
		t.Errorf("%d changes, %v", len(changes), err)
	}
}
