package fsm

import (
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

func trust(how api.BmcTrust_How, print, address string) *api.Op {
	return &api.Op{Op: &api.Op_BmcTrust{BmcTrust: &api.BmcTrust{NodeId: nodeID(1), How: how, Fingerprint: print, Address: address, Trusted: fpA}}}
}

var (
	fpA = "sha256:" + strings.Repeat("a", 64)
	fpB = "sha256:" + strings.Repeat("b", 64)
)

// The first certificate is taken where none is known, a different one is noted
// and nothing else, and only a person replaces it.
func TestBmcTrust(t *testing.T) {
	f := newFixture(t)
	f.ok(nodeCreate(nodeID(1), "a"))
	n := func() *api.Node { return f.s.View().Node(nodeID(1)) }
	f.fails(errs.WrongState, trust(api.BmcTrust_ACCEPT, fpA, ""))
	f.fails(errs.Invalid, trust(api.BmcTrust_FIRST, "sha256:AA", "b:443"))
	f.fails(errs.Invalid, trust(api.BmcTrust_FIRST, fpA, ""))
	f.fails(errs.Invalid, trust(api.BmcTrust_UNSPECIFIED, fpA, "b:443"))
	f.ok(trust(api.BmcTrust_FIRST, fpA, "b:443"))
	f.ok(trust(api.BmcTrust_FIRST, fpA, "b:443"))
	f.fails(errs.Conflict, trust(api.BmcTrust_FIRST, fpB, "b:443"))
	f.fails(errs.Conflict, trust(api.BmcTrust_CHANGED, fpA, "b:443"))
	f.ok(trust(api.BmcTrust_CHANGED, fpB, "b:443"))
	if g := n(); g.GetBmcTls().GetFingerprint() != fpA || g.GetBmcTls().GetChangedTo() != fpB ||
		!strings.Contains(g.GetFault(), fpA) || !strings.Contains(g.GetFault(), fpB) {
		t.Errorf("after a change: %v, fault %q", g.GetBmcTls(), g.GetFault())
	}
	f.ok(trust(api.BmcTrust_ACCEPT, fpB, ""))
	if g := n(); g.GetBmcTls().GetFingerprint() != fpB || g.GetBmcTls().GetAddress() != "b:443" || g.GetBmcTls().GetChangedTo() != "" || g.GetFault() != "" {
		t.Errorf("once accepted: %v, fault %q", g.GetBmcTls(), g.GetFault())
	}
	// Another address is another BMC; new driver_info is a new try.
	f.ok(trust(api.BmcTrust_CHANGED, fpA, "b:443"))
	f.ok(nodePatch(nodeID(1), &api.Node{DriverInfo: []byte(`{"x":1}`)}, "driver_info"))
	if g := n(); g.GetBmcTls().GetChangedTo() != "" || g.GetBmcTls().GetFingerprint() != fpB || g.GetFault() != "" {
		t.Errorf("after new driver_info: %v, fault %q", g.GetBmcTls(), g.GetFault())
	}
	f.ok(trust(api.BmcTrust_FIRST, fpA, "c:443"))
	if g := n(); g.GetBmcTls().GetAddress() != "c:443" || g.GetBmcTls().GetFingerprint() != fpA {
		t.Errorf("at another address: %v", g.GetBmcTls())
	}
}

// Two nodes can not be verified with one BMC or one machine, whichever order
// of bytes the UUID is told in; a node that is deleted or gets new driver_info
// gives its BMC back.
func TestOneNodeOneBMC(t *testing.T) {
	f := newFixture(t)
	token := map[int]uint64{}
	write := func(i int, key, uuid string) *api.Op {
		return &api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{
			NodeId: nodeID(i), Token: token[i], Fields: []string{"bmc"}, Node: &api.Node{Bmc: &api.BmcFacts{BmcKey: key, SystemUuid: uuid}},
		}}}
	}
	f.ok(memberSet("p1"), register("L1", "p1", "m1", false))
	for i := 1; i <= 3; i++ {
		create := nodeCreate(nodeID(i), "")
		create.GetNodeCreate().Node.Assigned = "p1"
		f.ok(create)
		token[i] = f.ok(acquire(nodeID(i), "L1")).GetToken()
	}
	const u1, swapped, u2 = "4c4c4544-0035-4d10-8032-b4c04f4a3332", "44454c4c-3500-104d-8032-b4c04f4a3332", "4c4c4544-0036-4d10-8032-b4c04f4a3332"
	f.ok(write(1, "b 443 /redfish/v1/Systems/1", u1))
	f.ok(write(1, "b 443 /redfish/v1/Systems/1", u1))
	f.fails(errs.Exists, write(2, "b 443 /redfish/v1/Systems/1", u2))
	f.fails(errs.Exists, write(2, "c 443 /redfish/v1/Systems/1", u1))
	f.fails(errs.Exists, write(2, "c 623", swapped))
	f.fails(errs.Invalid, write(2, "c\x00", u2))
	// Two in one command: the second sees the first.
	f.fails(errs.Exists, write(2, "d 623", u2), write(3, "d 623", ""))
	// What many machines have tells nothing.
	f.ok(write(2, "c 443 /redfish/v1/Systems/1", "00000000-0000-0000-0000-000000000000"))
	f.ok(write(3, "d 443 /redfish/v1/Systems/1", "00000000-0000-0000-0000-000000000000"))
	f.ok(nodePatch(nodeID(1), &api.Node{DriverInfo: []byte(`{"x":1}`)}, "description"))
	f.ok(release(nodeID(1), token[1]))
	f.ok(nodePatch(nodeID(1), &api.Node{DriverInfo: []byte(`{"x":1}`)}, "driver_info"))
	f.ok(write(2, "b 443 /redfish/v1/Systems/1", u1))
}

func TestUUIDKey(t *testing.T) {
	const want = "4c4c4544-0035-4d10-8032-b4c04f4a3332"
	for _, u := range []string{want, strings.ToUpper(want), "44454c4c-3500-104d-8032-b4c04f4a3332", "32334a4f-c0b4-3280-104d-350044454c4c"} {
		if node.UUIDKey(u) != node.UUIDKey(want) || node.UUIDKey(u) == "" {
			t.Errorf("%s has the key %s", u, node.UUIDKey(u))
		}
	}
	if node.UUIDKey("x") != "" {
		t.Error("a key of nothing")
	}
}
