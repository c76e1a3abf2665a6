package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/config"
	"github.com/ironring/ironring/internal/errs"
)

// testConfig is a peer on loopback addresses that no other test process uses.
func testConfig(t *testing.T, n int) *config.Config {
	t.Helper()
	dir := filepath.Join(filepath.Dir(socketPath(t)), "d")
	host := testAddress(n)
	text := fmt.Sprintf(`
data_dir: %s
id: p%d
profile: lan
drivers: [fake]
raft: {heartbeat: 200ms, election: 200ms, leader_lease: 100ms}
listen: {cluster: %[3]s, gossip: %[3]s, api: %[3]s, agent: %[3]s, boot: %[3]s, tftp: '%[3]s:7469', dhcp: '%[3]s:7467'}
`, dir, n, host)
	cfg, err := config.Parse([]byte(text), config.Host{Addresses: func() ([]netip.Addr, error) { return nil, nil }})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func testAddress(n int) string {
	return fmt.Sprintf("127.%d.%d.%d", 1+os.Getpid()>>8&0x7f, os.Getpid()&0xff, n)
}

// start runs a peer and gives its local client and the function that stops it.
func start(t *testing.T, opts Options) (*client.Client, func()) {
	t.Helper()
	_, c, stop := launch(t, opts)
	return c, stop
}

// eventually asks again until the answer is good.
func eventually(t *testing.T, what string, good func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := good(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// members is good when the cluster is healthy and has that many ready peers.
func members(c *client.Client, n int) func(context.Context) error {
	return func(ctx context.Context) error {
		rep, err := c.ClusterStatus(ctx, nil)
		if err != nil {
			return err
		}
		ready := 0
		for _, p := range rep.GetPeers() {
			if p.GetMember().GetPhase() == api.Member_READY && p.GetAlive() {
				ready++
			}
		}
		if ready != n || rep.GetHealth() != api.ClusterStatusReply_HEALTHY {
			return fmt.Errorf("%d ready peers, %v", ready, rep)
		}
		return nil
	}
}

// Two peers: the first founds, the second joins by token and starts; what is
// written through one is read through the other; both stop in order.
func TestPeers(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	first := testConfig(t, 1)
	c1, stop1 := start(t, Options{Config: first, Init: true})
	eventually(t, "first peer", members(c1, 1))

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	token, err := c1.CreateJoinToken(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	second := testConfig(t, 2)
	id, err := Join(ctx, Options{Config: second, JoinToken: token.GetToken(), Logger: quiet})
	if err != nil || id == "" {
		t.Fatalf("join: %q, %v", id, err)
	}
	c2, stop2 := start(t, Options{Config: second})
	eventually(t, "two peers", members(c2, 2))

	created, err := c1.CreateNode(ctx, &api.CreateNodeRequest{Node: &api.Node{Name: "n1", Driver: "fake"}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := c2.GetNode(ctx, &api.GetNodeRequest{Node: "n1", Read: &api.ReadOptions{MinIndex: created.GetIndex()}})
	if err != nil || got.GetNode().GetId() != created.GetNode().GetId() {
		t.Errorf("%v, %v", got, err)
	}

	// What is in use or used up says so.
	if _, err := Open(ctx, Options{Config: second, Logger: quiet}); !errors.Is(err, errs.Exists) {
		t.Errorf("started twice: %v", err)
	}
	third := testConfig(t, 3)
	if _, err := Join(ctx, Options{Config: third, JoinToken: token.GetToken(), Logger: quiet}); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("a used token: %v", err)
	}
	stop2()
	stop1()
	if _, err := Open(ctx, Options{Config: first, Init: true, Logger: quiet}); !errors.Is(err, errs.Exists) {
		t.Errorf("a second --init: %v", err)
	}
}

// Whatever address is in use, --init founds nothing, says which key is at
// fault, and works once the address is free.
func TestInitAllOrNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	cfg := testConfig(t, 4)
	open := func() (*Peer, error) {
		return Open(t.Context(), Options{Config: cfg, Init: true, Logger: quiet})
	}
	for key, l := range map[string][2]string{
		"listen.api": {"tcp", cfg.Listen.API}, "listen.agent": {"tcp", cfg.Listen.Agent}, "listen.boot": {"tcp", cfg.Listen.Boot},
		"listen.tftp": {"udp", cfg.Listen.TFTP}, "listen.dhcp": {"udp", cfg.Listen.DHCP}, "socket": {"unix", cfg.Socket},
	} {
		var taken io.Closer
		var err error
		if err = os.MkdirAll(filepath.Dir(cfg.Socket), 0o700); err != nil {
			t.Fatal(err)
		}
		if l[0] == "udp" {
			taken, err = net.ListenPacket(l[0], l[1])
		} else {
			taken, err = net.Listen(l[0], l[1])
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := open(); !errors.Is(err, errs.Exists) || errs.SubjectOf(err) != key || !strings.HasPrefix(err.Error(), key) {
			t.Errorf("%s in use: %v", key, err)
		}
		taken.Close()
	}
	c, stop := start(t, Options{Config: cfg, Init: true})
	eventually(t, "the peer", members(c, 1))
	if _, err := open(); err == nil || !strings.Contains(err.Error(), "data directory") {
		t.Errorf("--init while the peer runs: %v", err)
	}
	stop()
}
