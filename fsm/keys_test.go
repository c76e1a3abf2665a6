package fsm

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

func (g *gen) keysOp() *api.Op {
	switch g.n(3, "keys op") {
	case 0:
		return &api.Op{Op: &api.Op_KeysRequest{KeysRequest: &api.KeysRequest{Reason: "drawn"}}}
	case 1:
		op := rotateTo(g.v, fmt.Sprint("k", g.next()), g.wrongTerm())
		if g.rarely("one too few") && len(op.GetKeysRotate().GetSealed()) > 0 {
			op.GetKeysRotate().Sealed = op.GetKeysRotate().GetSealed()[1:]
		}
		return op
	case 2:
		id := g.id()
		doc := g.v.Node(id).GetDriverInfo()
		sum := sha256.Sum256(doc)
		return &api.Op{Op: &api.Op_KeysReseal{KeysReseal: &api.KeysReseal{Term: g.wrongTerm(), Docs: []*api.Resealed{
			{NodeId: id, Place: []string{"driver_info", "instance_info", "flow", "port/extra"}[g.n(3, "place")], Digest: sum[:], Doc: doc},
		}}}}
	}
	op := &api.KeysRetire{Term: g.wrongTerm()}
	if k := g.v.Keys().GetDataKeys(); len(k) > 0 {
		op.DataKeys = k[:g.n(len(k)-1, "retired")]
	}
	return &api.Op{Op: &api.Op_KeysRetire{KeysRetire: op}}
}

// rotateTo brings in a data key for the members of a view.
func rotateTo(v *View, key string, term uint64) *api.Op {
	op := &api.KeysRotate{Generation: v.Keys().GetGeneration() + 1, DataPrimary: key, Term: term}
	for _, m := range v.Members() {
		op.Sealed = append(op.Sealed, &api.SealedKeys{Member: m.GetId(), SealKey: m.GetSealKey(), Box: []byte("box")})
	}
	return &api.Op{Op: &api.Op_KeysRotate{KeysRotate: op}}
}

func keyedMember(id, key string) *api.Op {
	op := memberSet(id)
	op.GetMemberSet().Member.SealKey, op.GetMemberSet().Member.KeyDigest = []byte(key), []byte("digest of "+key)
	return op
}

func sealedValue(key, text string) string { return sealedStart + key + ":" + text }

// The life of keys: a removal asks for new ones, they come for exactly the
// members, values move over, and the old key goes only when nothing needs it.
func TestKeysLife(t *testing.T) {
	f := newFixture(t)
	f.ok(keyedMember("p1", "s1"), keyedMember("p2", "s2"), keyedMember("p3", "s3"))
	f.ok(rotateTo(f.s.View(), "k1", f.term))
	node := nodeCreate(nodeID(1), "a")
	node.GetNodeCreate().Node.DriverInfo = []byte(`{"password":"` + sealedValue("k1", "AAAA") + `"}`)
	f.ok(node)

	before := rotateTo(f.s.View(), "k2", f.term) // made while p3 was a member
	f.ok(&api.Op{Op: &api.Op_MemberRemove{MemberRemove: &api.MemberRemove{Id: "p3"}}})
	if due := f.s.View().Keys().GetDue(); !strings.Contains(due, "p3") {
		t.Errorf("after a removal keys are due because of %q", due)
	}
	if f.s.View().Former("p3", []byte("digest of s3")) == nil || f.s.View().Former("p3", []byte("other")) != nil {
		t.Error("the former member is not known by its key")
	}
	f.fails(errs.Conflict, before)
	one := rotateTo(f.s.View(), "k2", f.term)
	one.GetKeysRotate().Sealed = one.GetKeysRotate().GetSealed()[:1]
	f.fails(errs.Conflict, one)
	other := rotateTo(f.s.View(), "k2", f.term)
	other.GetKeysRotate().GetSealed()[0].SealKey = []byte("s9")
	f.fails(errs.Conflict, other)
	f.fails(errs.NotLeader, rotateTo(f.s.View(), "k2", f.term-1))
	f.ok(rotateTo(f.s.View(), "k2", f.term))
	if k := f.s.View().Keys(); k.GetDue() != "" || k.GetGeneration() != 2 || k.GetDataPrimary() != "k2" || len(k.GetDataKeys()) != 2 {
		t.Errorf("keys after the rotation: %v", k)
	}

	retire := &api.Op{Op: &api.Op_KeysRetire{KeysRetire: &api.KeysRetire{DataKeys: []string{"k1"}, Term: f.term}}}
	f.fails(errs.Conflict, retire)
	reseal := func(doc string) *api.Op {
		sum := sha256.Sum256(f.s.View().Node(nodeID(1)).GetDriverInfo())
		return &api.Op{Op: &api.Op_KeysReseal{KeysReseal: &api.KeysReseal{Term: f.term, Docs: []*api.Resealed{
			{NodeId: nodeID(1), Place: "driver_info", Digest: sum[:], Doc: []byte(doc)},
		}}}}
	}
	f.fails(errs.Invalid, reseal(`{"password":"plain"}`))
	f.fails(errs.Invalid, reseal(`{"password":"`+sealedValue("k2", "BBBB")+`","more":1}`))
	rev := f.s.View().Node(nodeID(1)).GetRev()
	stale := reseal(`{"password":"` + sealedValue("k2", "CCCC") + `"}`)
	f.ok(reseal(`{"password":"` + sealedValue("k2", "BBBB") + `"}`))
	f.ok(stale) // of a document that is gone: left out
	n := f.s.View().Node(nodeID(1))
	if !strings.Contains(string(n.GetDriverInfo()), "k2:BBBB") || n.GetRev() != rev {
		t.Errorf("resealed to %s at rev %d, was at %d", n.GetDriverInfo(), n.GetRev(), rev)
	}
	f.ok(retire)
	// Whoever slept through all this cannot bring in what nobody can open.
	late := nodeCreate(nodeID(2), "b")
	late.GetNodeCreate().Node.DriverInfo = []byte(`{"password":"` + sealedValue("k1", "AAAA") + `"}`)
	f.fails(errs.Conflict, late)
	f.fails(errs.Conflict, &api.Op{Op: &api.Op_KeysRetire{KeysRetire: &api.KeysRetire{DataKeys: []string{"k2"}, Term: f.term}}})
}

func TestUnsealed(t *testing.T) {
	a := `{"a":"` + sealedValue("k1", "x+/=") + `","b":2}`
	b := `{"a":"` + sealedValue("k2", "yyy") + `","b":2}`
	if string(unsealed([]byte(a))) != string(unsealed([]byte(b))) {
		t.Error("documents that differ in sealed values only are not equal")
	}
	for _, c := range []string{`{"a":"plain","b":2}`, `{"a":"` + sealedValue("k2", "yyy") + `","b":3}`, `{}`} {
		if string(unsealed([]byte(a))) == string(unsealed([]byte(c))) {
			t.Errorf("%s seems equal to %s", c, a)
		}
	}
}
