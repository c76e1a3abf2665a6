package fsm

import (
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// A change of driver or driver_info leaves what is known of the BMC, unverified:
// no change at it is announced until it was asked again with what the node has
// now.
func TestDriverInfoChangeDoubtsTheBMC(t *testing.T) {
	f := newFixture(t)
	id := nodeID(1)
	n := func() *api.Node { return f.s.View().Node(id) }
	f.ok(memberSet("p1"), register("L1", "p1", "m1", false))
	create := nodeCreate(id, "a")
	create.GetNodeCreate().Node.Assigned = "p1"
	f.ok(create)
	var token uint64
	write := func(rev uint64) *api.Op {
		return nodeWrite(token, &api.Node{Bmc: &api.BmcFacts{BmcKey: "b 443", Serial: "S-17", DriverRev: rev}}, "bmc")
	}
	under := func(do func()) {
		token = f.ok(acquire(id, "L1")).GetToken()
		do()
		f.ok(release(id, token))
	}
	closed := func() *api.Op {
		return &api.Op{Op: &api.Op_IntentClose{IntentClose: &api.IntentClose{NodeId: id, Token: token, Seq: n().GetIntentSeq()}}}
	}
	under(func() {
		f.ok(write(0))
		f.ok(open(token))
		f.ok(closed())
	})
	f.ok(nodePatch(id, &api.Node{DriverInfo: n().GetDriverInfo()}, "driver_info")) // nothing new
	if !node.Verified(n()) {
		t.Errorf("unverified although nothing has changed: %v", n())
	}
	was := n().GetDriverRev()
	f.ok(nodePatch(id, &api.Node{DriverInfo: []byte(`{"x":1}`)}, "driver_info"))
	if n().GetBmc().GetSerial() != "S-17" || node.Verified(n()) || n().GetDriverRev() != n().GetRev() {
		t.Errorf("after the change: %v", n())
	}
	under(func() {
		f.fails(errs.WrongState, open(token))
		f.fails(errs.Conflict, write(was)) // asked with the old one
		f.ok(write(n().GetDriverRev()))
		f.ok(open(token))
		f.ok(closed())
	})
	f.ok(nodePatch(id, &api.Node{Driver: "other"}, "driver"))
	if n().GetBmc() == nil || node.Verified(n()) {
		t.Errorf("with another driver: %v", n())
	}
	f.ok(nodePatch(id, &api.Node{Driver: "fake"}, "driver"))
	under(func() { f.ok(write(n().GetDriverRev())) })
	// The second of two changes in one command counts as well.
	f.ok(nodePatch(id, &api.Node{Description: "x"}, "description"), nodePatch(id, &api.Node{DriverInfo: []byte(`{"x":2}`)}, "driver_info"))
	if node.Verified(n()) {
		t.Error("verified after the second change of a command")
	}
}

// What a node was verified with before its driver_info changed another node may
// get, as when two of them were mixed up; the FSM keeps verified ones apart.
func TestUnverifiedClaimGivesWay(t *testing.T) {
	f := newFixture(t)
	f.ok(memberSet("p1"), register("L1", "p1", "m1", false))
	token := map[int]uint64{}
	facts := func(i int, serial string) *api.Op {
		n := f.s.View().Node(nodeID(i))
		return &api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: nodeID(i), Token: token[i], Fields: []string{"bmc"}, Node: &api.Node{
			Bmc: &api.BmcFacts{BmcKey: serial, DriverRev: n.GetDriverRev()},
		}}}}
	}
	for i := 1; i <= 2; i++ {
		create := nodeCreate(nodeID(i), "")
		create.GetNodeCreate().Node.Assigned = "p1"
		f.ok(create)
		token[i] = f.ok(acquire(nodeID(i), "L1")).GetToken()
	}
	f.ok(facts(1, "b1"))
	f.ok(facts(2, "b2"))
	f.fails(errs.Exists, facts(1, "b2"))
	for i := 1; i <= 2; i++ {
		f.ok(release(nodeID(i), token[i]))
		f.ok(nodePatch(nodeID(i), &api.Node{DriverInfo: []byte(`{"x":1}`)}, "driver_info"))
		token[i] = f.ok(acquire(nodeID(i), "L1")).GetToken()
	}
	if other := f.s.View().NodeWithBMC(&api.BmcFacts{BmcKey: "b2"}, nodeID(1)); other.GetId() != nodeID(2) {
		t.Errorf("the claim of an unverified node is not seen: %v", other)
	}
	f.ok(facts(1, "b2"))
	f.fails(errs.Exists, facts(2, "b2"))
	f.ok(facts(2, "b1"))
}
