package fsm

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// fixture is a store with verbs. Every command is an entry of its own; a
// refused one must leave the digest as it was.
type fixture struct {
	t     testing.TB
	s     *Store
	index uint64
	term  uint64
}

func newFixture(t testing.TB) *fixture {
	f := &fixture{t: t, s: New(), term: 1}
	f.ok(&api.Op{Op: &api.Op_Bootstrap{Bootstrap: &api.Bootstrap{ClusterId: "c1", Settings: testSettings()}}})
	return f
}

func testSettings() *api.Settings {
	return &api.Settings{Timing: &api.Timing{LeaseMs: 12000, HolderMs: 8000}, MaxVoters: 3, RingVersion: 1}
}

func uid(kind, n int) string { return fmt.Sprintf("%08x-0000-4000-8000-%012x", kind, n) }

func nodeID(n int) string { return uid(1, n) }

func mac(n int) string { return fmt.Sprintf("52:54:00:00:%02x:%02x", n>>8&0xff, n&0xff) }

// entry applies commands as one entry, those without a meta in the name of a
// user.
func (f *fixture) entry(cmds ...*api.Command) []*api.Result {
	f.t.Helper()
	for _, c := range cmds {
		if c.Meta == nil {
			c.Meta = user
		}
	}
	b, err := proto.Marshal(&api.Entry{Commands: cmds})
	if err != nil {
		f.t.Fatal(err)
	}
	f.index++
	res, err := f.s.Apply(f.index, f.term, b)
	if err != nil {
		f.t.Fatalf("apply: %v", err)
	}
	return res
}

func (f *fixture) command(meta *api.Meta, ops ...*api.Op) *api.Result {
	f.t.Helper()
	before, _ := f.s.Digest()
	res := f.entry(&api.Command{Meta: meta, Ops: ops})[0]
	if after, _ := f.s.Digest(); res.GetFailure() != nil && after != before {
		f.t.Fatalf("a refused command (%v) changed the state", res.GetFailure())
	}
	return res
}

var user = &api.Meta{Principal: "client:test", Source: "unix", Reason: "test", WallMs: 1_700_000_000_000}

// ok applies one command that must be accepted and gives its last answer.
func (f *fixture) ok(ops ...*api.Op) *api.OpResult {
	f.t.Helper()
	res := f.command(user, ops...)
	if res.GetFailure() != nil {
		f.t.Fatalf("%v: refused: %v", ops, res.GetFailure())
	}
	return res.GetOps()[len(ops)-1]
}

// fails applies one command that must be refused with a kind.
func (f *fixture) fails(kind errs.Kind, ops ...*api.Op) *api.Failure {
	f.t.Helper()
	res := f.command(user, ops...)
	if res.GetFailure() == nil {
		f.t.Fatalf("%v: accepted, should be %v", ops, kind)
	}
	if got := errs.ParseKind(res.GetFailure().GetKind()); got != kind {
		f.t.Fatalf("%v: refused with %v, should be %v", ops, res.GetFailure(), kind)
	}
	return res.GetFailure()
}

// Operations, short.

func nodeCreate(id, name string) *api.Op {
	return &api.Op{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{
		Id: id, Name: name, Driver: "fake", DriverInfo: []byte("{}"),
	}}}}
}

func nodePatch(id string, n *api.Node, fields ...string) *api.Op {
	return &api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{NodeId: id, Fields: fields, Node: n}}}
}

func nodeDelete(id string) *api.Op {
	return &api.Op{Op: &api.Op_NodeDelete{NodeDelete: &api.NodeDelete{NodeId: id}}}
}

func portCreate(id, node, mac string) *api.Op {
	return &api.Op{Op: &api.Op_PortCreate{PortCreate: &api.PortCreate{Port: &api.Port{Id: id, NodeId: node, Address: mac}}}}
}

func networkSet(n *api.Network) *api.Op {
	return &api.Op{Op: &api.Op_NetworkSet{NetworkSet: &api.NetworkSet{Network: n}}}
}

func allocate(network, mac string) *api.Op {
	return &api.Op{Op: &api.Op_AddressAllocate{AddressAllocate: &api.AddressAllocate{Network: network, Mac: mac}}}
}

func memberSet(id string) *api.Op {
	return &api.Op{Op: &api.Op_MemberSet{MemberSet: &api.MemberSet{Member: &api.Member{
		Id: id, Drivers: []string{"fake"}, Phase: api.Member_READY, FeatureLevel: 1,
	}}}}
}

func assignTo(node, member string, epoch, term uint64) *api.Op {
	return &api.Op{Op: &api.Op_Assign{Assign: &api.Assign{Term: term, Nodes: []*api.Assignment{
		{NodeId: node, Conductor: member, Epoch: epoch},
	}}}}
}

func register(id, member, machine string, lock bool) *api.Op {
	return &api.Op{Op: &api.Op_LeaseRegister{LeaseRegister: &api.LeaseRegister{
		Lease: &api.Lease{Id: id, Conductor: member, MachineId: machine, BootId: "b-" + machine}, DirectoryLock: lock,
	}}}
}

func acquire(node, lease string) *api.Op {
	return &api.Op{Op: &api.Op_LockAcquire{LockAcquire: &api.LockAcquire{NodeId: node, LeaseId: lease, Purpose: "test"}}}
}

func release(node string, token uint64) *api.Op {
	return &api.Op{Op: &api.Op_LockRelease{LockRelease: &api.LockRelease{NodeId: node, Token: token}}}
}

func tick(ms, term uint64) *api.Op {
	return &api.Op{Op: &api.Op_Tick{Tick: &api.Tick{Ms: ms, Term: term}}}
}
