package client

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client/clienttest"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testPeer is a peer of a fake cluster on a unix socket.
type testPeer struct {
	*clienttest.Peer
	address string
	kill    func()
}

func startPeers(t *testing.T, c *clienttest.Cluster, ids ...string) []testPeer {
	t.Helper()
	var out []testPeer
	dir := t.TempDir()
	for _, id := range ids {
		path := filepath.Join(dir, id)
		lis, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		p := c.Peer(id)
		stop := p.Serve(lis)
		t.Cleanup(stop)
		out = append(out, testPeer{p, "unix:" + path, stop})
	}
	return out
}

func newClient(t *testing.T, peers []testPeer, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{}
	for _, p := range peers {
		cfg.Addresses = append(cfg.Addresses, p.address)
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.pause = func(ctx context.Context, d time.Duration) error {
		if d == c.cutOffAfter { // the watchdog would spin
			return clock.Pause(ctx, time.Millisecond)
		}
		return ctx.Err()
	}
	return c
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func createNode(t *testing.T, c *Client, name string) *api.NodeReply {
	t.Helper()
	rep, err := c.CreateNode(testContext(t), &api.CreateNodeRequest{Node: &api.Node{Name: name, Driver: "fake"}})
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func TestNew(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"nobody", Config{}, "no peer to talk to"},
		{"no tls", Config{Addresses: []string{"p1:7482"}}, "needs TLS"},
		{"no port", Config{Addresses: []string{"p1"}}, "not host:port"},
		{"no pem", Config{Addresses: []string{"p1:1"}, TLS: &TLS{CA: []byte("x")}}, "no PEM block"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := New(c.cfg); !errors.Is(err, Invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if _, err := LoadTLS("", "", ""); !errors.Is(err, Invalid) {
		t.Errorf("got %v", err)
	}
}

func TestErrorsHaveKinds(t *testing.T) {
	c := newClient(t, startPeers(t, clienttest.New(), "p1"))
	_, err := c.GetNode(testContext(t), &api.GetNodeRequest{Node: "none"})
	if !errors.Is(err, NotFound) || KindOf(err) != NotFound || SubjectOf(err) != "none" {
		t.Errorf("got %v of kind %v about %q", err, KindOf(err), SubjectOf(err))
	}
}

func TestDeadPeerIsLeft(t *testing.T) {
	fake := clienttest.New()
	peers := startPeers(t, fake, "p1", "p2")
	var switches atomic.Int32
	c := newClient(t, peers, func(cfg *Config) {
		cfg.OnSwitch = func(from, to string, why error) {
			switches.Add(1)
			if from != peers[0].address || to != peers[1].address || why == nil {
				t.Errorf("switched from %s to %s because of %v", from, to, why)
			}
		}
	})
	createNode(t, c, "n1")
	if c.Address() != peers[0].address || c.Index() != fake.Index() {
		t.Errorf("asked %s, index %d", c.Address(), c.Index())
	}
	peers[0].kill()
	for range 3 {
		if _, err := c.GetNode(testContext(t), &api.GetNodeRequest{Node: "n1"}); err != nil {
			t.Fatal(err)
		}
	}
	if c.Address() != peers[1].address || switches.Load() != 1 {
		t.Errorf("now at %s after %d switches", c.Address(), switches.Load())
	}
	createNode(t, c, "n2")
}

func TestAllDead(t *testing.T) {
	peers := startPeers(t, clienttest.New(), "p1", "p2")
	c := newClient(t, peers)
	peers[0].kill()
	peers[1].kill()
	_, err := c.Version(testContext(t), nil)
	if !errors.Is(err, Unreachable) || !strings.Contains(err.Error(), peers[0].address) || !strings.Contains(err.Error(), peers[1].address) {
		t.Errorf("got %v", err)
	}
}

// The new peer must not answer from before the write that the client made.
func TestReadYourWritesAcrossSwitch(t *testing.T) {
	fake := clienttest.New()
	peers := startPeers(t, fake, "p1", "p2", "p3")
	c := newClient(t, peers)
	before := fake.Index()
	createNode(t, c, "n1")
	peers[1].Lag(before)
	peers[0].kill()
	if _, err := c.GetNode(testContext(t), &api.GetNodeRequest{Node: "n1"}); err != nil {
		t.Fatal(err)
	}
	if c.Address() != peers[2].address {
		t.Errorf("asked %s, which lags", c.Address())
	}
	req := peers[2].Requests()[0].(*api.GetNodeRequest)
	if req.GetRead().GetMinIndex() != fake.Index() {
		t.Errorf("min_index is %d, want %d", req.GetRead().GetMinIndex(), fake.Index())
	}
}

// Requests without a place for min_index are preceded by a read that has one.
func TestBarrierBeforeWrites(t *testing.T) {
	fake := clienttest.New()
	peers := startPeers(t, fake, "p1", "p2", "p3")
	c := newClient(t, peers)
	before := fake.Index()
	createNode(t, c, "n1")
	peers[1].Lag(before)
	peers[0].kill()
	if _, err := c.Provision(testContext(t), &api.ProvisionRequest{Node: "n1", Verb: api.Event_EV_MANAGE}); err != nil {
		t.Fatal(err)
	}
	if got := peers[1].Calls(); slices.Contains(got, "Provision") {
		t.Errorf("the lagging peer got %v", got)
	}
	if got, want := peers[2].Calls(), []string{"ListNodes", "Provision"}; !slices.Equal(got, want) {
		t.Errorf("calls %v, want %v", got, want)
	}
	if _, err := c.Explain(testContext(t), &api.ExplainRequest{Node: "n1"}); err != nil {
		t.Fatal(err)
	}
	if got := len(peers[2].Calls()); got != 3 {
		t.Errorf("%d calls: the barrier is only for a peer not known to be up to date", got)
	}
}

func TestWriteIsRepeatedUnderItsRequestID(t *testing.T) {
	fake := clienttest.New()
	peers := startPeers(t, fake, "p1", "p2")
	c := newClient(t, peers)
	peers[0].After(func(string) error { return errs.New(errs.Timeout, "answer lost") })
	in := &api.CreateNodeRequest{Node: &api.Node{Name: "n1", Driver: "fake"}}
	before := proto.Clone(in)
	if _, err := c.CreateNode(testContext(t), in); err != nil {
		t.Fatal(err)
	}
	if got := fake.Done(); len(got) != 1 {
		t.Errorf("done %v, want one creation", got)
	}
	if !proto.Equal(in, before) {
		t.Error("the caller's request was changed")
	}
	a, b := peers[0].Requests()[0].(*api.CreateNodeRequest), peers[1].Requests()[0].(*api.CreateNodeRequest)
	if a.GetRequestId() == "" || a.GetRequestId() != b.GetRequestId() {
		t.Errorf("request ids %q and %q", a.GetRequestId(), b.GetRequestId())
	}
}

func TestWriteWithoutRequestIDIsNotRepeated(t *testing.T) {
	fake := clienttest.New()
	peers := startPeers(t, fake, "p1", "p2")
	c := newClient(t, peers)
	peers[0].After(func(string) error { return errs.New(errs.Timeout, "answer lost") })
	if _, err := c.CreateJoinToken(testContext(t), nil); !errors.Is(err, Timeout) {
		t.Errorf("got %v", err)
	}
	if got := peers[1].Calls(); len(got) != 0 {
		t.Errorf("the second peer got %v", got)
	}
	// When nothing was sent it may go elsewhere.
	peers[0].kill()
	c = newClient(t, peers)
	if _, err := c.CreateJoinToken(testContext(t), nil); err != nil {
		t.Error(err)
	}
}

func TestPeerWithoutLeaderIsLeft(t *testing.T) {
	peers := startPeers(t, clienttest.New(), "p1", "p2")
	c := newClient(t, peers)
	peers[0].Before(func(context.Context, string, any) error { return errs.New(errs.NoQuorum, "no leader") })
	createNode(t, c, "n1")
	peers[1].Before(func(context.Context, string, any) error { return errs.New(errs.NoQuorum, "no leader") })
	_, err := c.GetNode(testContext(t), &api.GetNodeRequest{Node: "n1"})
	if !errors.Is(err, NoQuorum) {
		t.Errorf("got %v", err)
	}
}

func TestFinalErrorsAreNotRepeated(t *testing.T) {
	for _, k := range []Kind{Internal, Invalid, Exists, WrongState, Locked, Fenced, Conflict, Unsupported, Busy, Denied} {
		peers := startPeers(t, clienttest.New(), "p1", "p2")
		c := newClient(t, peers)
		peers[0].Before(func(context.Context, string, any) error { return errs.New(k, "refused") })
		if _, err := c.ListNodes(testContext(t), nil); !errors.Is(err, k) {
			t.Errorf("%v: got %v", k, err)
		}
		if got := peers[1].Calls(); len(got) != 0 {
			t.Errorf("%v: the second peer got %v", k, got)
		}
	}
}

func TestHungPeerIsLeft(t *testing.T) {
	peers := startPeers(t, clienttest.New(), "p1", "p2")
	peers[0].Before(func(ctx context.Context, _ string, _ any) error { <-ctx.Done(); return ctx.Err() })
	c := newClient(t, peers, func(cfg *Config) { cfg.AttemptTimeout = 50 * time.Millisecond })
	createNode(t, c, "n1")
	ctx, cancel := context.WithCancel(context.Background())
	peers[1].Before(func(ctx context.Context, _ string, _ any) error { cancel(); <-ctx.Done(); return ctx.Err() })
	_, err := c.GetNode(ctx, &api.GetNodeRequest{Node: "n1"})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestNodesPages(t *testing.T) {
	peers := startPeers(t, clienttest.New(), "p1")
	c := newClient(t, peers)
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		createNode(t, c, n)
	}
	var got []string
	for n, err := range c.Nodes(testContext(t), &api.ListNodesRequest{Limit: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, n.GetName())
	}
	if want := []string{"a", "b", "c", "d", "e"}; !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}
