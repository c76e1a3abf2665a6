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
		f.fails(errs.WrongState, open(token)) // nobody has asked whose BMC it is
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

// claimants is a fixture with nodes that are locked, and a write of what their
// BMCs tell.
func claimants(t *testing.T, count int) (*fixture, func(i int, facts *api.BmcFacts) *api.Op) {
	f := newFixture(t)
	f.ok(memberSet("p1"), register("L1", "p1", "m1", false))
	token := map[int]uint64{}
	for i := 1; i <= count; i++ {
		create := nodeCreate(nodeID(i), "")
		create.GetNodeCreate().Node.Assigned = "p1"
		f.ok(create)
		token[i] = f.ok(acquire(nodeID(i), "L1")).GetToken()
	}
	return f, func(i int, facts *api.BmcFacts) *api.Op {
		return &api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: nodeID(i), Token: token[i], Fields: []string{"bmc"}, Node: &api.Node{Bmc: facts}}}}
	}
}

// One machine behind two addresses of its BMC is one machine by whatever mark
// both tell; a UUID that differs outweighs equal serial numbers; and what nobody
// filled in is nobody's.
func TestClaims(t *testing.T) {
	const uuidA, uuidB = "4c4c4544-0035-4d10-8032-b4c04f4a3332", "4c4c4544-0036-4d10-8032-b4c04f4a3332"
	macs := func(m ...string) []string { return m }
	for name, c := range map[string]struct {
		first, second *api.BmcFacts
		one           bool
	}{
		"serial number":                  {&api.BmcFacts{Serial: "S4EVNX0R"}, &api.BmcFacts{Serial: " s4evnx0r"}, true},
		"serial number, other MACs":      {&api.BmcFacts{Serial: "S4EVNX0R", BmcMacs: macs("52:54:00:00:00:01")}, &api.BmcFacts{Serial: "S4EVNX0R", BmcMacs: macs("52:54:00:00:00:02")}, true},
		"MAC":                            {&api.BmcFacts{BmcMacs: macs("52:54:00:00:00:07", "52:54:00:00:00:01")}, &api.BmcFacts{BmcMacs: macs("5254.0000.0001")}, true},
		"MAC, only one tells the UUID":   {&api.BmcFacts{SystemUuid: uuidA, BmcMacs: macs("52:54:00:00:00:01")}, &api.BmcFacts{BmcMacs: macs("52:54:00:00:00:01")}, true},
		"a later reading of the UUID":    {&api.BmcFacts{SystemUuid: uuidB, SystemUuids: macs(uuidB, uuidA)}, &api.BmcFacts{SystemUuid: uuidA}, true},
		"two UUIDs, one serial number":   {&api.BmcFacts{SystemUuid: uuidA, Serial: "S4EVNX0R"}, &api.BmcFacts{SystemUuid: uuidB, Serial: "S4EVNX0R"}, false},
		"two serial numbers, one MAC":    {&api.BmcFacts{Serial: "S-1", BmcMacs: macs("52:54:00:00:00:01")}, &api.BmcFacts{Serial: "S-2", BmcMacs: macs("52:54:00:00:00:01")}, false},
		"two systems of one BMC":         {&api.BmcFacts{BmcKey: "b 443 /1", BmcMacs: macs("52:54:00:00:00:01")}, &api.BmcFacts{BmcKey: "b 443 /2", BmcMacs: macs("52:54:00:00:00:01")}, false},
		"serial number not filled in":    {&api.BmcFacts{Serial: "To be filled by O.E.M."}, &api.BmcFacts{Serial: "To be filled by O.E.M."}, false},
		"serial number of zeros":         {&api.BmcFacts{Serial: "0000000000"}, &api.BmcFacts{Serial: "0000000000"}, false},
		"serial number not specified":    {&api.BmcFacts{Serial: "Not Specified"}, &api.BmcFacts{Serial: "Not Specified"}, false},
		"MAC of zeros":                   {&api.BmcFacts{BmcMacs: macs("00:00:00:00:00:00")}, &api.BmcFacts{BmcMacs: macs("00:00:00:00:00:00")}, false},
		"MAC that no NIC was given":      {&api.BmcFacts{BmcMacs: macs("ac:1f:6b:00:00:00")}, &api.BmcFacts{BmcMacs: macs("ac:1f:6b:00:00:00")}, false},
		"the UUID that nobody filled in": {&api.BmcFacts{SystemUuid: "03000200-0400-0500-0006-000700080009"}, &api.BmcFacts{SystemUuid: "03000200-0400-0500-0006-000700080009"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			f, write := claimants(t, 2)
			if c.first.BmcKey == "" {
				c.first.BmcKey, c.second.BmcKey = "10.0.0.5 623", "bmc5.example.org 623"
			}
			f.ok(write(1, c.first))
			if got := f.s.View().NodeWithBMC(c.second, nodeID(2)); (got != nil) != c.one {
				t.Errorf("whose machine it is: %v", got)
			}
			if c.one {
				f.fails(errs.Exists, write(2, c.second))
				f.fails(errs.Exists, write(1, &api.BmcFacts{BmcKey: "x 623"}), write(1, c.first), write(2, c.second)) // the last of a command
				f.ok(write(1, &api.BmcFacts{BmcKey: "x 623"}), write(2, c.second))                                    // given up in the same one
			} else {
				f.ok(write(2, c.second))
			}
		})
	}
}
