package pxe

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(benchTFTP); dir != "" {
		if err := serveTFTP(dir); err != nil {
			panic(err)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

var update = flag.Bool("update", false, "write golden files")

// golden compares with testdata/NAME.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s differs; got:\n%s", path, got)
	}
}

// The machines of the test world.
const (
	digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	nonce  = "00112233445566778899aabbccddeeff"

	nodeDeploying = "11111111-1111-4111-8111-111111111111"
	nodeActive    = "22222222-2222-4222-8222-222222222222"
	nodeNothing   = "33333333-3333-4333-8333-333333333333"
	nodeVerifying = "44444444-4444-4444-8444-444444444444"
	nodeNoPXE     = "55555555-5555-4555-8555-555555555555"
	nodeOther     = "66666666-6666-4666-8666-666666666666"

	macDeploying = "52:54:00:00:00:01" // INSPECTING, target RAMDISK, has an address
	macActive    = "52:54:00:00:00:02" // MANAGEABLE, target LOCAL, has an address
	macNothing   = "52:54:00:00:00:03" // target NOTHING, no address yet
	macVerifying = "52:54:00:00:00:04" // VERIFYING, target RAMDISK
	macNoPXE     = "52:54:00:00:00:05" // INSPECTING, target RAMDISK, pxe_enabled off
	macOther     = "52:54:00:00:00:06" // target NOTHING, has an address
	macUnknown   = "52:54:00:00:00:99"
)

// world is a replicated state built by commands alone.
type world struct {
	t     testing.TB
	store *fsm.Store
	index uint64
}

const provisioning = "prov"

// newWorld has three members, one network 10.77.0.0/24, and the machines
// above. The addresses of machines are 10.77.0.50 and on, in their order.
func newWorld(t testing.TB) *world {
	w := emptyWorld(t, &api.Network{
		Name: provisioning, Cidr: "10.77.0.0/24", RangeStart: "10.77.0.50", RangeEnd: "10.77.0.99",
		Gateway: "10.77.0.1", Dns: []string{"10.77.0.2", "10.77.0.3"}, LeaseSeconds: 900, Relays: []string{"192.0.2.1"},
	}, "10.77.0.11:7484", "10.77.0.12:7484", "10.77.0.13:7484")
	w.machine(nodeDeploying, macDeploying, api.State_INSPECTING, api.BootTarget_BOOT_RAMDISK, true)
	w.machine(nodeActive, macActive, api.State_MANAGEABLE, api.BootTarget_BOOT_LOCAL, true)
	w.machine(nodeNothing, macNothing, api.State_ENROLL, api.BootTarget_BOOT_NOTHING, true)
	w.machine(nodeVerifying, macVerifying, api.State_VERIFYING, api.BootTarget_BOOT_RAMDISK, true)
	w.machine(nodeNoPXE, macNoPXE, api.State_INSPECTING, api.BootTarget_BOOT_RAMDISK, false)
	w.machine(nodeOther, macOther, api.State_ENROLL, api.BootTarget_BOOT_NOTHING, true)
	for _, mac := range []string{macDeploying, macActive, macVerifying, macNoPXE, macOther} {
		w.address(mac)
	}
	return w
}

func emptyWorld(t testing.TB, n *api.Network, boot ...string) *world {
	w := &world{t: t, store: fsm.New()}
	w.do(&api.Op{Op: &api.Op_Bootstrap{Bootstrap: &api.Bootstrap{ClusterId: "test", Settings: &api.Settings{Timing: &api.Timing{LeaseMs: 1}, RingVersion: 1}}}})
	for i, b := range boot {
		id := "p" + string(rune('1'+i))
		w.do(&api.Op{Op: &api.Op_MemberSet{MemberSet: &api.MemberSet{Member: &api.Member{
			Id: id, BootAddress: b, AgentAddress: strings.Replace(b, ":7484", ":7483", 1), Drivers: []string{"fake"},
			Phase: api.Member_READY, FeatureLevel: 1,
		}}}})
	}
	w.do(&api.Op{Op: &api.Op_LeaseRegister{LeaseRegister: &api.LeaseRegister{Lease: &api.Lease{Id: "l1", Conductor: "p1"}}}})
	w.do(&api.Op{Op: &api.Op_NetworkSet{NetworkSet: &api.NetworkSet{Network: n}}})
	return w
}

// do applies one command, which must be accepted.
func (w *world) do(ops ...*api.Op) *api.Result {
	w.t.Helper()
	entry, err := proto.Marshal(&api.Entry{Commands: []*api.Command{{Meta: &api.Meta{Principal: "test", Source: "test", Reason: "test"}, Ops: ops}}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.index++
	res, err := w.store.Apply(w.index, 1, entry)
	if err != nil {
		w.t.Fatal(err)
	}
	if f := res[0].GetFailure(); f != nil {
		w.t.Fatalf("%v: %s: %s", ops, f.GetKind(), f.GetMessage())
	}
	return res[0]
}

func (w *world) flow(id, flow string, kind api.FlowKind, verb api.Event) {
	w.do(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: id, Event: verb, Flow: &api.Flow{
		Id: flow + "-" + id, Kind: kind,
		Steps: []*api.Step{{Interface: "power", Name: "on", Policy: api.ResumePolicy_RESUME_OBSERVE}},
	}}}})
}

func (w *world) lock(id string) uint64 {
	res := w.do(&api.Op{Op: &api.Op_LockAcquire{LockAcquire: &api.LockAcquire{NodeId: id, LeaseId: "l1", Purpose: "test"}}})
	return res.GetOps()[0].GetToken()
}

// machine enrols a node with one port and takes it to a state and boot target.
func (w *world) machine(id, mac string, state api.State, target api.BootTarget, pxe bool) {
	w.t.Helper()
	w.do(&api.Op{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{Id: id, Driver: "fake", Assigned: "p1"}}}},
		&api.Op{Op: &api.Op_PortCreate{PortCreate: &api.PortCreate{Port: &api.Port{Id: "a" + id[1:], NodeId: id, Address: mac, PxeEnabled: pxe}}}})
	if state != api.State_ENROLL {
		w.flow(id, "verify", api.FlowKind_FLOW_VERIFY, api.Event_EV_MANAGE)
	}
	if state == api.State_INSPECTING || state == api.State_MANAGEABLE {
		token := w.lock(id)
		w.do(&api.Op{Op: &api.Op_FlowEnd{FlowEnd: &api.FlowEnd{NodeId: id, Token: token, FlowId: "verify-" + id,
			Status: api.FlowStatus_FLOW_ABORTED, Event: api.Event_EV_DONE}}})
		w.do(&api.Op{Op: &api.Op_LockRelease{LockRelease: &api.LockRelease{NodeId: id, Token: token}}})
	}
	if state == api.State_INSPECTING {
		w.flow(id, "inspect", api.FlowKind_FLOW_INSPECT, api.Event_EV_INSPECT)
	}
	boot := &api.Boot{Target: target}
	if target == api.BootTarget_BOOT_RAMDISK {
		boot.Nonce = nonce
	}
	w.boot(id, boot)
	if got := w.store.View().Node(id).GetState(); got != state {
		w.t.Fatalf("node %s is %v, want %v", id, got, state)
	}
}

// boot writes a node's boot record, as a conductor does.
func (w *world) boot(id string, b *api.Boot) {
	w.t.Helper()
	token := w.lock(id)
	w.do(&api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: id, Token: token, Fields: []string{"boot"}, Node: &api.Node{Boot: b}}}})
	w.do(&api.Op{Op: &api.Op_LockRelease{LockRelease: &api.LockRelease{NodeId: id, Token: token}}})
}

// address allocates an address, as Config.Allocate does.
func (w *world) address(mac string) netip.Addr {
	w.t.Helper()
	res := w.do(&api.Op{Op: &api.Op_AddressAllocate{AddressAllocate: &api.AddressAllocate{Network: provisioning, Mac: mac}}})
	return netip.MustParseAddr(res.GetOps()[0].GetAddress())
}
