package fsm

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

func TestNodeIdentity(t *testing.T) {
	f := newFixture(t)
	f.ok(nodeCreate(nodeID(1), "web-1"))
	f.fails(errs.Exists, nodeCreate(nodeID(1), "web-2"))
	if fail := f.fails(errs.Exists, nodeCreate(nodeID(2), "web-1")); !strings.Contains(fail.GetMessage(), nodeID(1)) {
		t.Errorf("message %q does not name the other node", fail.GetMessage())
	}
	f.fails(errs.Invalid, nodeCreate("not-a-uuid", ""))
	f.ok(nodeCreate(nodeID(2), "web-2"), portCreate(uid(2, 1), nodeID(2), mac(1)))
	f.fails(errs.Exists, portCreate(uid(2, 2), nodeID(1), mac(1)))
	f.fails(errs.Invalid, portCreate(uid(2, 2), nodeID(1), "52:54:00:AA:00:01"))

	v := f.s.View()
	if n, err := v.NodeByRef("web-2"); err != nil || n.GetId() != nodeID(2) || n.GetState() != api.State_ENROLL || n.GetRev() != 1 {
		t.Errorf("node by name: %v, %v", n, err)
	}
	if _, err := v.NodeByRef("web-3"); errs.KindOf(err) != errs.NotFound {
		t.Errorf("node by unknown name: %v", err)
	}
	if v.NodeCount() != 2 || v.PortByMAC(mac(1)).GetNodeId() != nodeID(2) || len(v.PortsOf(nodeID(2))) != 1 {
		t.Error("counts or indexes are wrong")
	}
	var after []string
	for n := range v.NodesAfter(nodeID(1)) {
		after = append(after, n.GetId())
	}
	if len(after) != 1 || after[0] != nodeID(2) {
		t.Errorf("nodes after the first: %v", after)
	}
}

// Two nodes exchange names in one command: no index may keep the old owner.
func TestNamesExchanged(t *testing.T) {
	f := newFixture(t)
	f.ok(nodeCreate(nodeID(1), "a"), nodeCreate(nodeID(2), "b"))
	f.fails(errs.Exists, nodePatch(nodeID(1), &api.Node{Name: "b"}, "name"), nodePatch(nodeID(2), &api.Node{Name: "a"}, "name"))
	f.ok(nodePatch(nodeID(1), &api.Node{}, "description"), nodePatch(nodeID(2), &api.Node{Name: "c"}, "name"),
		nodePatch(nodeID(1), &api.Node{Name: "b"}, "name"), nodePatch(nodeID(2), &api.Node{Name: "a"}, "name"))
	v := f.s.View()
	for name, want := range map[string]string{"a": nodeID(2), "b": nodeID(1), "c": ""} {
		if got := v.NodeByName(name).GetId(); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if rev := v.Node(nodeID(1)).GetRev(); rev != 2 {
		t.Errorf("rev %d after one command with two patches, want 2", rev)
	}
}

func TestPatch(t *testing.T) {
	f := newFixture(t)
	f.ok(nodeCreate(nodeID(1), "a"))
	stale := nodePatch(nodeID(1), &api.Node{Description: "x"}, "description")
	stale.GetNodePatch().Rev = 7
	f.fails(errs.Conflict, stale)
	f.fails(errs.Invalid, nodePatch(nodeID(1), &api.Node{LastError: "x"}, "last_error"))
	f.fails(errs.Invalid, nodePatch(nodeID(1), &api.Node{}))
	f.fails(errs.NotFound, nodePatch(nodeID(9), &api.Node{}, "name"))
	f.fails(errs.Invalid, nodePatch(nodeID(1), &api.Node{Extra: make([]byte, 65<<10)}, "extra"))
	f.ok(nodePatch(nodeID(1), &api.Node{Maintenance: true, MaintenanceReason: "disk"}, "maintenance", "maintenance_reason"))
	f.ok(nodePatch(nodeID(1), &api.Node{}, "maintenance"))
	if n := f.s.View().Node(nodeID(1)); n.GetMaintenanceReason() != "" {
		t.Errorf("reason %q outlived the maintenance", n.GetMaintenanceReason())
	}
}

func TestNodeDeleteTakesAll(t *testing.T) {
	f := newFixture(t)
	f.ok(networkSet(testNetwork()))
	f.ok(nodeCreate(nodeID(1), "a"), portCreate(uid(2, 1), nodeID(1), mac(1)))
	f.ok(allocate("prov", mac(1)))
	f.ok(nodeDelete(nodeID(1)))
	v := f.s.View()
	if v.NodeCount() != 0 || v.Port(uid(2, 1)) != nil || v.Address("prov", mac(1)) != nil || v.History(nodeID(1)) != nil {
		t.Error("something of the node is left")
	}
}

func testNetwork() *api.Network {
	return &api.Network{
		Name: "prov", Cidr: "10.77.0.0/29", RangeStart: "10.77.0.0", RangeEnd: "10.77.0.7", Gateway: "10.77.0.2",
		Relays: []string{"192.0.2.1"},
	}
}

func TestAddresses(t *testing.T) {
	f := newFixture(t)
	f.ok(networkSet(testNetwork()))
	f.ok(nodeCreate(nodeID(1), ""))
	for i := range 8 {
		f.ok(portCreate(uid(2, i), nodeID(1), mac(i)))
	}
	// Network, broadcast and gateway are never given: five are left.
	for i, want := range []string{"10.77.0.1", "10.77.0.3", "10.77.0.4", "10.77.0.5", "10.77.0.6"} {
		if got := f.ok(allocate("prov", mac(i))).GetAddress(); got != want {
			t.Errorf("address %d is %s, want %s", i, got, want)
		}
	}
	f.fails(errs.Busy, allocate("prov", mac(5)))
	if got := f.ok(allocate("prov", mac(1))).GetAddress(); got != "10.77.0.3" {
		t.Errorf("asked again: %s", got)
	}
	f.fails(errs.NotFound, allocate("prov", "52:54:00:ff:ff:ff"))
	f.fails(errs.NotFound, allocate("other", mac(1)))

	f.ok(&api.Op{Op: &api.Op_PortDelete{PortDelete: &api.PortDelete{PortId: uid(2, 1)}}})
	if got := f.ok(allocate("prov", mac(5))).GetAddress(); got != "10.77.0.3" {
		t.Errorf("the freed address was not given again: %s", got)
	}
	smaller := testNetwork()
	smaller.Rev, smaller.RangeEnd = 1, "10.77.0.4"
	f.fails(errs.Conflict, networkSet(smaller))

	v := f.s.View()
	if a := v.AddressByIP("prov", "10.77.0.3"); a.GetMac() != mac(5) {
		t.Errorf("10.77.0.3 belongs to %v", a)
	}
	for addr, want := range map[string]string{"10.77.0.6": "prov", "192.0.2.1": "prov", "10.78.0.1": ""} {
		if got := v.NetworkFor(netip.MustParseAddr(addr)).GetName(); got != want {
			t.Errorf("network for %s is %q, want %q", addr, got, want)
		}
	}
}

// What a machine boots with stays while there is work on its node.
func TestPortAndNetworkUnderWork(t *testing.T) {
	f := owned(t)
	f.ok(networkSet(testNetwork()))
	f.ok(allocate("prov", mac(1)))
	portDelete := &api.Op{Op: &api.Op_PortDelete{PortDelete: &api.PortDelete{PortId: uid(2, 1)}}}
	networkDelete := &api.Op{Op: &api.Op_NetworkDelete{NetworkDelete: &api.NetworkDelete{Name: "prov"}}}
	refused := func(why string) {
		t.Helper()
		for _, op := range []*api.Op{portDelete, networkDelete} {
			if text := f.fails(errs.Locked, op).GetMessage(); !strings.Contains(text, why) {
				t.Errorf("refused with %q, should say %q", text, why)
			}
		}
	}
	flow := newFlow(api.FlowKind_FLOW_VERIFY, 1)
	f.ok(flowCreate(api.Event_EV_MANAGE, flow))
	refused("verify of node a is under way")
	smaller := testNetwork()
	smaller.Rev, smaller.RangeStart = 1, "10.77.0.4"
	f.fails(errs.Conflict, networkSet(smaller))
	token := f.lock()
	refused("verify of node a is under way")
	f.ok(&api.Op{Op: &api.Op_FlowEnd{FlowEnd: &api.FlowEnd{
		NodeId: nodeID(1), Token: token, FlowId: flow.GetId(), Status: api.FlowStatus_FLOW_FAILED, Event: api.Event_EV_FAIL,
	}}})
	refused("node a is locked by conductor p1")
	f.ok(release(nodeID(1), token))
	f.ok(networkDelete)
	f.ok(portDelete)
}

func TestNetworkRules(t *testing.T) {
	f := newFixture(t)
	f.ok(networkSet(testNetwork()))
	f.fails(errs.Exists, networkSet(testNetwork()))
	for name, c := range map[string]struct {
		kind   errs.Kind
		says   string
		change func(*api.Network)
	}{
		"no prefix length":      {errs.Invalid, "not an IPv4 network", func(n *api.Network) { n.Cidr = "10.78.0.0" }},
		"host bits":             {errs.Invalid, "use 10.78.0.0/24", func(n *api.Network) { n.Cidr = "10.78.0.1/24" }},
		"ipv6":                  {errs.Unsupported, "IPv4 networks only", func(n *api.Network) { n.Cidr = "fd00::/64" }},
		"too small":             {errs.Invalid, "too small", func(n *api.Network) { n.Cidr = "10.78.0.0/31" }},
		"too large":             {errs.Invalid, "too large", func(n *api.Network) { n.Cidr = "0.0.0.0/0" }},
		"multicast":             {errs.Invalid, "no addresses of hosts", func(n *api.Network) { n.Cidr = "224.0.0.0/24" }},
		"start outside":         {errs.Invalid, "not a range inside", func(n *api.Network) { n.RangeStart = "10.79.0.1" }},
		"end outside":           {errs.Invalid, "not a range inside", func(n *api.Network) { n.RangeEnd = "10.78.1.1" }},
		"reversed":              {errs.Invalid, "not a range inside", func(n *api.Network) { n.RangeStart, n.RangeEnd = n.RangeEnd, n.RangeStart }},
		"no range":              {errs.Invalid, "range_start", func(n *api.Network) { n.RangeStart, n.RangeEnd = "", "" }},
		"half a range":          {errs.Invalid, "range_start", func(n *api.Network) { n.RangeStart = "" }},
		"half a range in proxy": {errs.Invalid, "range_end", func(n *api.Network) { n.Mode, n.RangeEnd = api.DHCPMode_DHCP_PROXY, "" }},
		"nothing to give":       {errs.Invalid, "no address for a machine", func(n *api.Network) { n.RangeStart, n.RangeEnd = "10.78.0.255", "10.78.0.255" }},
		"gateway outside":       {errs.Invalid, "outside", func(n *api.Network) { n.Gateway = "10.79.0.1" }},
		"gateway broadcast":     {errs.Invalid, "not an address of a host", func(n *api.Network) { n.Gateway = "10.78.0.255" }},
		"gateway network":       {errs.Invalid, "not an address of a host", func(n *api.Network) { n.Gateway = "10.78.0.0" }},
		"dns":                   {errs.Invalid, "dns", func(n *api.Network) { n.Dns = []string{"fd00::1"} }},
		"relay":                 {errs.Invalid, "relay", func(n *api.Network) { n.Relays = []string{"relay"} }},
		"relay of nobody":       {errs.Invalid, "relay", func(n *api.Network) { n.Relays = []string{"0.0.0.0"} }},
		"relay twice":           {errs.Invalid, "twice", func(n *api.Network) { n.Relays = []string{"192.0.2.9", "192.0.2.9"} }},
		"relay of another":      {errs.Exists, "has the relay", func(n *api.Network) { n.Relays = []string{"192.0.2.1"} }},
		"relay inside another":  {errs.Exists, "inside", func(n *api.Network) { n.Relays = []string{"10.77.0.1"} }},
		"around a relay":        {errs.Exists, "has the relay", func(n *api.Network) { n.Cidr, n.RangeStart, n.RangeEnd = "192.0.2.0/24", "192.0.2.9", "192.0.2.10" }},
		"overlap":               {errs.Exists, "overlaps", func(n *api.Network) { n.Cidr, n.RangeStart, n.RangeEnd = "10.77.0.0/16", "10.77.5.1", "10.77.5.9" }},
		"short lease":           {errs.Invalid, "lease", func(n *api.Network) { n.LeaseSeconds = 1 }},
		"peer twice": {errs.Invalid, "twice", func(n *api.Network) {
			n.Peers = []*api.PeerAddress{{Peer: "p1", Address: "192.0.2.8"}, {Peer: "p1", Address: "192.0.2.9"}}
		}},
		"peer without address": {errs.Invalid, "address of peer p1", func(n *api.Network) { n.Peers = []*api.PeerAddress{{Peer: "p1"}} }},
		"peer in the range":    {errs.Invalid, "inside the range", func(n *api.Network) { n.Peers = []*api.PeerAddress{{Peer: "p1", Address: "10.78.0.15"}} }},
		"name":                 {errs.Invalid, "network name", func(n *api.Network) { n.Name = "a/b" }},
	} {
		n := &api.Network{Name: "b", Cidr: "10.78.0.0/24", RangeStart: "10.78.0.10", RangeEnd: "10.78.0.20"}
		c.change(n)
		t.Run(name, func(t *testing.T) {
			if text := f.fails(c.kind, networkSet(n)).GetMessage(); !strings.Contains(text, c.says) {
				t.Errorf("refused with %q, should say %q", text, c.says)
			}
		})
	}
}

// A network beside a foreign server has no addresses of ours.
func TestNetworkModes(t *testing.T) {
	f := newFixture(t)
	f.ok(networkSet(testNetwork()))
	f.ok(nodeCreate(nodeID(1), ""), portCreate(uid(2, 1), nodeID(1), mac(1)))
	f.ok(allocate("prov", mac(1)))
	proxy := &api.Network{Name: "prov", Cidr: "10.77.0.0/29", Mode: api.DHCPMode_DHCP_PROXY, Rev: 1}
	f.ok(networkSet(proxy))
	if a := f.s.View().Address("prov", mac(1)); a != nil {
		t.Errorf("the address %v is left", a)
	}
	f.fails(errs.WrongState, allocate("prov", mac(1)))
}

// A refused command must not move the search for the next free address.
func TestAddressOfRefusedCommand(t *testing.T) {
	f := newFixture(t)
	f.ok(networkSet(testNetwork()))
	f.ok(nodeCreate(nodeID(1), ""), portCreate(uid(2, 1), nodeID(1), mac(1)), portCreate(uid(2, 2), nodeID(1), mac(2)))
	res := f.entry(
		&api.Command{Ops: []*api.Op{allocate("prov", mac(1)), nodeDelete("none")}},
		&api.Command{Ops: []*api.Op{nodePatch(nodeID(1), &api.Node{}, "extra")}},
		&api.Command{Ops: []*api.Op{allocate("prov", mac(2))}},
	)
	if res[0].GetFailure() == nil || res[2].GetOps()[0].GetAddress() != "10.77.0.1" {
		t.Errorf("%v", res)
	}
}
