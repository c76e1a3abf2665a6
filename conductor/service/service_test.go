package service_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/bmc"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/conductor/journal"
	"github.com/ironring/ironring/conductor/service"
	"github.com/ironring/ironring/conductor/watch"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
	"github.com/ironring/ironring/internal/seal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var _ service.Cluster = (*conductortest.Peer)(nil)

const (
	secret = "s3cret-of-the-BMC"
	mac    = "52:54:00:00:00:01"
)

type fixture struct {
	*testing.T
	c   *conductortest.Cluster
	p   *conductortest.Peer
	j   *journal.Journal
	svc *service.Service
	ctx context.Context // of a local caller
	// hardware stands for the BMCs.
	hardware func(ctx context.Context, node string, parts []api.HardwarePart) (*api.GetHardwareReply, error)
}

func bubble(t *testing.T, test func(f *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := conductortest.New(t, "p1", "p2")
		f := &fixture{T: t, c: c, p: c.Peer("p1"), ctx: conductortest.OverSocket(t.Context())}
		drv, err := fake.New(fake.Config{})
		if err != nil {
			t.Fatal(err)
		}
		f.j, err = journal.New(journal.Config{Dir: t.TempDir(), Peer: "p1", Clock: c.Clock, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		b := watch.New(c.Store, 0)
		ctx, cancel := context.WithCancel(context.Background())
		var all sync.WaitGroup
		all.Go(func() { _ = b.Run(ctx) })
		all.Go(func() { _ = f.j.Run(ctx) })
		t.Cleanup(func() { cancel(); all.Wait() })
		f.svc = service.New(service.Config{
			Cluster: f.p, Leave: f.p.Leave, Registry: drivers.NewRegistry(drv), Journal: f.j, Watch: b, Version: "test", Clock: c.Clock, Logger: slog.New(slog.DiscardHandler),
			Hardware: func(ctx context.Context, node string, parts []api.HardwarePart) (*api.GetHardwareReply, error) {
				return f.hardware(ctx, node, parts)
			},
		})
		all.Go(func() { _ = f.svc.Run(ctx) })
		test(f)
	})
}

// create makes a node through the API.
func (f *fixture) create(name string) *api.Node {
	f.Helper()
	rep, err := f.svc.CreateNode(f.ctx, &api.CreateNodeRequest{
		Node:  &api.Node{Name: name, Driver: "fake", DriverInfo: fmt.Appendf(nil, `{"fake_address":"a","fake_password":%q}`, secret)},
		Ports: []*api.Port{{Address: mac, PxeEnabled: true}},
	})
	if err != nil {
		f.Fatal(err)
	}
	return rep.GetNode()
}

func (f *fixture) stored(ref string) *api.Node {
	f.Helper()
	n, err := f.c.Store.View().NodeByRef(ref)
	if err != nil {
		f.Fatal(err)
	}
	return n
}

func (f *fixture) update(ref string, set map[string]string, unset ...string) error {
	_, err := f.svc.UpdateNode(f.ctx, &api.UpdateNodeRequest{Node: ref, Set: set, Unset: unset})
	return err
}

func wants(t *testing.T, what string, err error, kind errs.Kind, says string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: %v (%v), want %v about %q", what, err, errs.KindOf(err), kind, says)
	}
	if err != nil && strings.Contains(err.Error(), secret) {
		t.Errorf("%s: the secret is in the error %v", what, err)
	}
}

// A secret is sealed before it enters the log and masked before it leaves.
func TestSecrets(t *testing.T) {
	bubble(t, func(f *fixture) {
		shown := f.create("n1")
		want := `{"fake_address":"a","fake_password":"******"}`
		if string(shown.GetDriverInfo()) != want {
			f.Errorf("created: %s", shown.GetDriverInfo())
		}
		n := f.stored("n1")
		if strings.Contains(string(n.GetDriverInfo()), secret) || !strings.Contains(string(n.GetDriverInfo()), seal.Prefix) {
			f.Errorf("stored: %s", n.GetDriverInfo())
		}
		doc, err := f.p.Keyring().OpenDoc(bmc.AAD(n.GetId()), n.GetDriverInfo())
		if err != nil || !strings.Contains(string(doc), secret) {
			f.Errorf("opened: %v", err)
		}
		get, err := f.svc.GetNode(f.ctx, &api.GetNodeRequest{Node: "n1"})
		if err != nil || string(get.GetNode().GetDriverInfo()) != want {
			f.Errorf("%s, %v", get.GetNode().GetDriverInfo(), err)
		}
		list, err := f.svc.ListNodes(f.ctx, &api.ListNodesRequest{})
		if err != nil || len(list.GetNodes()) != 1 || string(list.GetNodes()[0].GetDriverInfo()) != want {
			f.Errorf("%v, %v", list, err)
		}
		ex, err := f.svc.Explain(f.ctx, &api.ExplainRequest{Node: "n1"})
		if err != nil || string(ex.GetNode().GetDriverInfo()) != want {
			f.Errorf("%v, %v", ex, err)
		}
		// Other keys change, the secret stays.
		if err := f.update("n1", map[string]string{"driver_info/fake_address": `"b"`}); err != nil {
			f.Fatal(err)
		}
		doc, err = f.p.Keyring().OpenDoc(bmc.AAD(n.GetId()), f.stored("n1").GetDriverInfo())
		if err != nil || string(doc) != fmt.Sprintf(`{"fake_address":"b","fake_password":%q}`, secret) {
			f.Errorf("%s, %v", doc, err)
		}
		// What was read masked and is sent back would lose the secret.
		wants(f.T, "mask", f.update("n1", map[string]string{"driver_info": want}), errs.Invalid, "fake_password")
		// A sealed value of another node does not fit here.
		_, err = f.svc.CreateNode(f.ctx, &api.CreateNodeRequest{Node: &api.Node{Name: "n2", Driver: "fake", DriverInfo: n.GetDriverInfo()}})
		wants(f.T, "sealed for n1", err, errs.Invalid, "driver_info")
		// Nor does what only looks like one.
		wants(f.T, "looks sealed", f.update("n1", map[string]string{"driver_info/fake_password": `"` + seal.Prefix + `x:y"`}), errs.Invalid, "driver_info")
		wants(f.T, "number", f.update("n1", map[string]string{"driver_info/fake_password": `123`}), errs.Invalid, "must be a string")
	})
}

func TestCreateRefused(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.create("n1")
		f.c.Must(&api.Op{Op: &api.Op_MemberSet{MemberSet: &api.MemberSet{Member: &api.Member{Id: "p2", Drivers: []string{"fake", "ipmi"}, Phase: api.Member_READY, FeatureLevel: 1}}}})
		for _, test := range []struct {
			name string
			req  *api.CreateNodeRequest
			kind errs.Kind
			says string
		}{
			{"no driver", &api.CreateNodeRequest{Node: &api.Node{}}, errs.Invalid, "needs a driver"},
			{"unknown driver", &api.CreateNodeRequest{Node: &api.Node{Driver: "ilo"}}, errs.Invalid, "known are: fake"},
			{"driver of another peer", &api.CreateNodeRequest{Node: &api.Node{Driver: "ipmi"}}, errs.NotOwner, "ask p2"},
			{"name taken", &api.CreateNodeRequest{Node: &api.Node{Name: "n1", Driver: "fake"}}, errs.Exists, "n1"},
			{"bad name", &api.CreateNodeRequest{Node: &api.Node{Name: "n 1", Driver: "fake"}}, errs.Invalid, "name"},
			{"MAC taken", &api.CreateNodeRequest{Node: &api.Node{Driver: "fake"}, Ports: []*api.Port{{Address: "52-54-00-00-00-01"}}}, errs.Exists, mac},
			{"MAC given twice", &api.CreateNodeRequest{Node: &api.Node{Driver: "fake"}, Ports: []*api.Port{{Address: "52:54:00:00:0a:01"}, {Address: "52-54-00-00-0A-01"}}}, errs.Invalid, "52:54:00:00:0a:01 is given twice"},
			{"unknown hint", &api.CreateNodeRequest{Node: &api.Node{Driver: "fake", Properties: []byte(`{"root_device":{"frob":1}}`)}}, errs.Invalid, "properties/root_device: root device hint \"frob\""},
			{"bad hint", &api.CreateNodeRequest{Node: &api.Node{Driver: "fake", InstanceInfo: []byte(`{"root_device":{"size":"big"}}`)}}, errs.Invalid, "instance_info/root_device"},
			{"bad MAC", &api.CreateNodeRequest{Node: &api.Node{Driver: "fake"}, Ports: []*api.Port{{Address: "x"}}}, errs.Invalid, "MAC"},
			{"bad id", &api.CreateNodeRequest{Node: &api.Node{Id: "N1", Driver: "fake"}}, errs.Invalid, "UUID"},
			{"misspelt key", &api.CreateNodeRequest{Node: &api.Node{Driver: "fake", DriverInfo: []byte(`{"fake_addr":"a"}`)}}, errs.Invalid, "fake_addr"},
			{"no JSON", &api.CreateNodeRequest{Node: &api.Node{Driver: "fake", Properties: []byte(`{`)}}, errs.Invalid, "properties"},
			{"no object", &api.CreateNodeRequest{Node: &api.Node{Driver: "fake", Extra: []byte(`[1]`)}}, errs.Invalid, "extra"},
			{"too long", &api.CreateNodeRequest{Node: &api.Node{Driver: "fake", Extra: fmt.Appendf(nil, `{"a":%q}`, strings.Repeat("x", 70_000))}}, errs.Invalid, "extra"},
		} {
			_, err := f.svc.CreateNode(f.ctx, test.req)
			wants(f.T, test.name, err, test.kind, test.says)
		}
		if n := f.c.Store.View().NodeCount(); n != 1 {
			f.Errorf("%d nodes: a refused request left something behind", n)
		}
	})
}

// A request that is repeated under its id gets the first answer.
func TestRepeatedRequest(t *testing.T) {
	bubble(t, func(f *fixture) {
		req := &api.CreateNodeRequest{Node: &api.Node{Driver: "fake"}, Ports: []*api.Port{{Address: mac}}, RequestId: "r1"}
		first, err := f.svc.CreateNode(f.ctx, req)
		if err != nil {
			f.Fatal(err)
		}
		again, err := f.svc.CreateNode(f.ctx, req)
		if err != nil || again.GetNode().GetId() != first.GetNode().GetId() || f.c.Store.View().NodeCount() != 1 {
			f.Errorf("%v, %v", again.GetNode().GetId(), err)
		}
	})
}

func TestUpdate(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.create("n1")
		for _, test := range []struct {
			name  string
			set   map[string]string
			unset []string
			want  string // properties afterwards
			kind  errs.Kind
			says  string
		}{
			{name: "whole document", set: map[string]string{"properties": `{"b": 1.50, "a":{"x":"y"}}`}, want: `{"a":{"x":"y"},"b":1.50}`},
			{name: "value inside", set: map[string]string{"properties/a/z": `[true]`}, want: `{"a":{"x":"y","z":[true]},"b":1.50}`},
			{name: "objects on the way are made", set: map[string]string{"properties/c/d/e": `null`}, want: `{"a":{"x":"y","z":[true]},"b":1.50,"c":{"d":{"e":null}}}`},
			{name: "remove inside", unset: []string{"properties/c"}, want: `{"a":{"x":"y","z":[true]},"b":1.50}`},
			{name: "remove what is not there", unset: []string{"properties/no/such/key"}, want: `{"a":{"x":"y","z":[true]},"b":1.50}`},
			{name: "through a value", set: map[string]string{"properties/b/c": `1`}, kind: errs.Invalid, says: "not an object"},
			{name: "an empty key", set: map[string]string{"properties/": `1`}, kind: errs.Invalid, says: "key is empty"},
			{name: "an empty key on the way", set: map[string]string{"properties//x": `1`}, kind: errs.Invalid, says: "key is empty"},
			{name: "no JSON", set: map[string]string{"properties/x": `hello`}, kind: errs.Invalid, says: "not JSON"},
			{name: "two values", set: map[string]string{"properties/x": `1 2`}, kind: errs.Invalid, says: "not JSON"},
			{name: "inside of a scalar", set: map[string]string{"name/x": `1`}, kind: errs.Invalid, says: "not a document"},
			{name: "unknown field", set: map[string]string{"nam": `"x"`}, kind: errs.Invalid, says: "nam"},
			{name: "a field of the flow", set: map[string]string{"power_state": `"POWER_ON"`}, kind: errs.Invalid, says: "power_state"},
			{name: "a field of the lifecycle", set: map[string]string{"state": `"ACTIVE"`}, kind: errs.Invalid, says: "state"},
			{name: "wrong type", set: map[string]string{"protected": `"yes"`}, kind: errs.Invalid, says: "protected"},
			{name: "a second field smuggled in", set: map[string]string{"name": `"n1","driver":"other"`}, want: `{"a":{"x":"y","z":[true]},"b":1.50}`},
			{name: "nothing", kind: errs.Invalid, says: "no field"},
			{name: "unknown hint", set: map[string]string{"properties/root_device/frob": `1`}, kind: errs.Invalid, says: "properties/root_device"},
			{name: "hints that are none", set: map[string]string{"instance_info": `{"root_device":[1]}`}, kind: errs.Invalid, says: "instance_info/root_device"},
			{name: "hints", set: map[string]string{"instance_info/root_device/serial": `"S1"`}, want: `{"a":{"x":"y","z":[true]},"b":1.50}`},
			{name: "unknown driver", set: map[string]string{"driver": `"ilo"`}, kind: errs.Invalid, says: "known are"},
			{name: "remove the document", unset: []string{"properties"}, want: `{}`},
		} {
			err := f.update("n1", test.set, test.unset...)
			if test.says != "" {
				wants(f.T, test.name, err, test.kind, test.says)
				continue
			}
			if err != nil {
				f.Errorf("%s: %v", test.name, err)
			}
			if n := f.stored("n1"); string(n.GetProperties()) != test.want || n.GetDriver() != "fake" {
				f.Errorf("%s: properties %s, driver %s", test.name, n.GetProperties(), n.GetDriver())
			}
		}
		if err := f.update("n1", map[string]string{"name": `"n2"`, "maintenance": `true`, "maintenance_reason": `"fan"`, "description": `"d"`}); err != nil {
			f.Error(err)
		}
		n := f.stored("n2")
		if !n.GetMaintenance() || n.GetMaintenanceReason() != "fan" || n.GetDescription() != "d" {
			f.Errorf("%v", n)
		}
		_, err := f.svc.UpdateNode(f.ctx, &api.UpdateNodeRequest{Node: "n2", Rev: 1, Set: map[string]string{"name": `"n3"`}})
		wants(f.T, "old revision", err, errs.Conflict, "revision")
	})
}

// Two clients change a document at once: both changes stay.
func TestConcurrentUpdates(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.create("n1")
		raced := false
		f.p.Decide(func(cmd *api.Command) conductortest.Fate {
			if cmd.GetOps()[0].GetNodePatch() != nil && !raced {
				raced = true
				f.c.Must(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{
					NodeId: cmd.GetOps()[0].GetNodePatch().GetNodeId(), Fields: []string{"extra"}, Node: &api.Node{Extra: []byte(`{"other":1}`)},
				}}})
			}
			return conductortest.Fate{}
		})
		if err := f.update("n1", map[string]string{"extra/mine": `2`}); err != nil {
			f.Fatal(err)
		}
		if got := string(f.stored("n1").GetExtra()); got != `{"mine":2,"other":1}` {
			f.Errorf("extra is %s", got)
		}
	})
}

// A peer without the node's driver can change what no driver is asked about.
func TestUpdateWithoutDriver(t *testing.T) {
	bubble(t, func(f *fixture) {
		n := f.create("n1")
		before := string(f.stored("n1").GetDriverInfo())
		f.c.Must(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{NodeId: n.GetId(), Fields: []string{"driver"}, Node: &api.Node{Driver: "ipmi"}}}})
		if err := f.update("n1", map[string]string{"description": `"x"`}); err != nil {
			f.Error(err)
		}
		if string(f.stored("n1").GetDriverInfo()) != before {
			f.Error("driver_info changed")
		}
		wants(f.T, "driver_info", f.update("n1", map[string]string{"driver_info/x": `"y"`}), errs.Invalid, "unknown driver")
	})
}

func TestPorts(t *testing.T) {
	bubble(t, func(f *fixture) {
		n := f.create("n1")
		rep, err := f.svc.CreatePort(f.ctx, &api.CreatePortRequest{Node: "n1", Port: &api.Port{Address: "52:54:00:00:00:0A", Extra: []byte(`{"b":1, "a":2}`)}})
		if err != nil || rep.GetPort().GetAddress() != "52:54:00:00:00:0a" || string(rep.GetPort().GetExtra()) != `{"a":2,"b":1}` {
			f.Errorf("%v, %v", rep, err)
		}
		list, err := f.svc.ListPorts(f.ctx, &api.ListPortsRequest{Node: n.GetId()})
		if err != nil || len(list.GetPorts()) != 2 {
			f.Errorf("%v, %v", list, err)
		}
		if _, err := f.svc.DeletePort(f.ctx, &api.DeletePortRequest{Port: "52-54-00-00-00-0a"}); err != nil {
			f.Error(err)
		}
		_, err = f.svc.DeletePort(f.ctx, &api.DeletePortRequest{Port: "52-54-00-00-00-0a"})
		wants(f.T, "twice", err, errs.NotFound, "52-54")
		if list, err := f.svc.ListPorts(f.ctx, &api.ListPortsRequest{}); err != nil || len(list.GetPorts()) != 1 {
			f.Errorf("%v, %v", list, err)
		}
	})
}

func TestListPages(t *testing.T) {
	bubble(t, func(f *fixture) {
		for i := range 5 {
			if _, err := f.svc.CreateNode(f.ctx, &api.CreateNodeRequest{Node: &api.Node{Driver: "fake", ConductorGroup: []string{"", "g"}[i%2]}}); err != nil {
				f.Fatal(err)
			}
		}
		var ids []string
		marker := ""
		for pages := 0; ; pages++ {
			rep, err := f.svc.ListNodes(f.ctx, &api.ListNodesRequest{Marker: marker, Limit: 2})
			if err != nil || pages > 3 {
				f.Fatal(pages, err)
			}
			for _, n := range rep.GetNodes() {
				ids = append(ids, n.GetId())
			}
			if marker = rep.GetNext(); marker == "" {
				break
			}
		}
		if len(ids) != 5 {
			f.Errorf("%d nodes over all pages", len(ids))
		}
		if rep, err := f.svc.ListNodes(f.ctx, &api.ListNodesRequest{Group: "g"}); err != nil || len(rep.GetNodes()) != 2 {
			f.Errorf("group: %v, %v", rep, err)
		}
	})
}

// Reads say how old they may be, and can ask for more.
func TestReads(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.create("n1")
		f.p.Cut(true)
		rep, err := f.svc.GetNode(f.ctx, &api.GetNodeRequest{Node: "n1"})
		if err != nil || !rep.GetStale() {
			f.Errorf("%v, %v", rep, err)
		}
		_, err = f.svc.GetNode(f.ctx, &api.GetNodeRequest{Node: "n1", Read: &api.ReadOptions{Linearizable: true}})
		wants(f.T, "linearizable", err, errs.NoQuorum, "leader")
		f.p.Cut(false)
		f.p.Lag(time.Minute) // it hears the leader and applies nothing
		if rep, err := f.svc.ListNodes(f.ctx, &api.ListNodesRequest{}); err != nil || !rep.GetStale() {
			f.Errorf("behind: %v, %v", rep, err)
		}
		if rep, err := f.svc.Explain(f.ctx, &api.ExplainRequest{Node: "n1"}); err != nil || !strings.Contains(strings.Join(rep.GetNotes(), "; "), "applied no change for 1m0s") {
			f.Errorf("explain of a peer that is behind: %v, %v", rep.GetNotes(), err)
		}
		f.p.Lag(0)
		if rep, err := f.svc.GetNode(f.ctx, &api.GetNodeRequest{Node: "n1"}); err != nil || rep.GetStale() {
			f.Errorf("in step again: %v, %v", rep, err)
		}
		begin := time.Now()
		_, err = f.svc.GetNode(f.ctx, &api.GetNodeRequest{Node: "n1", Read: &api.ReadOptions{MinIndex: 1 << 40}})
		wants(f.T, "an index to come", err, errs.NoQuorum, "ask another peer")
		if time.Since(begin) > 3*time.Second {
			f.Errorf("waited %v", time.Since(begin))
		}
		_, err = f.svc.GetNode(f.ctx, &api.GetNodeRequest{Node: "n9"})
		wants(f.T, "unknown", err, errs.NotFound, "n9")
	})
}

// Who may call what.
func TestAuth(t *testing.T) {
	bubble(t, func(f *fixture) {
		as := func(id pki.Identity) context.Context { return f.c.As(f.Context(), f, id) }
		const list, join = "/ironring.v1.Ironring/ListNodes", "/ironring.v1.Join/Join"
		for _, test := range []struct {
			name   string
			ctx    context.Context
			method string
			ok     bool
		}{
			{"unix socket", f.ctx, list, true},
			{"a client", as(pki.Identity{Role: pki.RoleClient, Name: "alice"}), list, true},
			{"a peer", as(pki.Identity{Role: pki.RolePeer, Name: "p2"}), list, true},
			{"an agent", as(pki.Identity{Role: pki.RoleAgent, Name: "n1", Nonce: "x"}), list, false},
			{"nobody", f.Context(), list, false},
			{"nobody, joining", f.Context(), join, true},
			{"nobody, with a name like it", f.Context(), "/ironring.v1.Joiner/ListNodes", false},
		} {
			called := false
			_, err := service.UnaryAuth(test.ctx, nil, &grpc.UnaryServerInfo{FullMethod: test.method}, func(context.Context, any) (any, error) {
				called = true
				return nil, nil
			})
			if called != test.ok || (err == nil) != test.ok || err != nil && !errors.Is(err, errs.Denied) {
				f.Errorf("%s: called %v, %v", test.name, called, err)
			}
			called = false
			err = service.StreamAuth(nil, stream[api.NodeEvent]{ctx: test.ctx}, &grpc.StreamServerInfo{FullMethod: test.method}, func(any, grpc.ServerStream) error {
				called = true
				return nil
			})
			if called != test.ok || (err == nil) != test.ok {
				f.Errorf("%s: stream called %v, %v", test.name, called, err)
			}
		}
		// What only peers may ask of each other.
		for _, ctx := range []context.Context{f.ctx, f.Context(), as(pki.Identity{Role: pki.RoleClient, Name: "alice"}), as(pki.Identity{Role: pki.RoleAgent, Name: "n1", Nonce: "x"})} {
			_, err := f.svc.LocalFacts(ctx, &api.LocalFactsRequest{})
			wants(f.T, "LocalFacts", err, errs.Denied, "peers")
			_, err = f.svc.AppendJournal(ctx, &api.AppendJournalRequest{})
			wants(f.T, "AppendJournal", err, errs.Denied, "peers")
			wants(f.T, "LocalJournal", f.svc.LocalJournal(&api.JournalRequest{}, stream[api.JournalEvent]{ctx: ctx}), errs.Denied, "peers")
		}
		// The caller stands in the record.
		if _, err := f.svc.CreateNode(as(pki.Identity{Role: pki.RoleClient, Name: "alice"}), &api.CreateNodeRequest{Node: &api.Node{Driver: "fake"}}); err != nil {
			f.Error(err)
		}
		for a := range f.c.Store.View().Audit() {
			if a.GetMeta().GetPrincipal() != "client:alice" || !strings.HasPrefix(a.GetMeta().GetSource(), "192.0.2.1") {
				f.Errorf("%v", a.GetMeta())
			}
		}
	})
}

func TestTokensAndCertificates(t *testing.T) {
	bubble(t, func(f *fixture) {
		for ttl, ok := range map[uint64]bool{0: true, 60: true, 59: false, 7 * 24 * 3600: true, 7*24*3600 + 1: false, 1 << 62: false} {
			if _, err := f.svc.CreateJoinToken(f.ctx, &api.CreateJoinTokenRequest{TtlSeconds: ttl}); (err == nil) != ok {
				f.Errorf("token of %d s: %v", ttl, err)
			}
		}
		csr, _, err := pki.NewRequest()
		if err != nil {
			f.Fatal(err)
		}
		rep, err := f.svc.CreateClientCert(f.ctx, &api.CreateClientCertRequest{Name: "alice", CsrDer: csr})
		if err != nil || len(rep.GetCertDer()) == 0 || len(rep.GetCaDer()) == 0 {
			f.Error(err)
		}
		for _, bad := range []*api.CreateClientCertRequest{
			{Name: "a/b", CsrDer: csr}, {Name: "", CsrDer: csr}, {Name: "a", CsrDer: []byte("x")}, {Name: "a", CsrDer: csr, TtlSeconds: 1 << 62},
		} {
			_, err := f.svc.CreateClientCert(f.ctx, bad)
			wants(f.T, "certificate", err, errs.Invalid, "")
		}
	})
}

// stream is a server stream whose messages are kept.
type stream[T any] struct {
	grpc.ServerStream
	ctx context.Context
	out chan *T
}

func (s stream[T]) Context() context.Context { return s.ctx }
func (s stream[T]) Send(m *T) error {
	select {
	case s.out <- m:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}
