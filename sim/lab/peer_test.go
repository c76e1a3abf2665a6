package lab

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
)

// TestPeer: a peer that is stopped or killed in the middle of a deployment and
// started again goes on with it; and what a peer is started with, if it is
// wrong, is refused by name.
func TestPeer(t *testing.T) {
	t.Parallel()
	f := startFixture(t, 512<<10)
	t.Run("restart", func(t *testing.T) { testRestart(t, f) })
	t.Run("serve", func(t *testing.T) { testServe(t, f) })
	t.Run("join", func(t *testing.T) { testJoin(t, f) })
}

// testRestart: the only peer goes away and comes back while the agent writes.
func testRestart(t *testing.T, f *fixture) {
	first, second := f.ready(t), f.ready(t)
	p := f.peers[0]
	for _, c := range []struct {
		n    *node
		how  string
		stop func()
	}{{first, "SIGTERM", p.term}, {second, "SIGKILL", p.kill}} {
		after := f.asks(t, c.n, api.Event_EV_DEPLOY, f.image(c.n))
		eventually(t, "a part of the image is fetched", func() bool { return f.images.served(c.n.name) > 1<<20 })
		c.stop()
		if got := f.images.served(c.n.name); got >= imageMiB<<20 {
			t.Fatalf("%s: the whole image was fetched before the peer ended: nothing is shown", c.how)
		}
		if err := p.restart(f.opts.Binary); err != nil {
			t.Fatal(err)
		}
		if err := f.await(within(t), p, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := f.client.Wait(within(t), c.n.name, client.Until{State: api.State_ACTIVE, After: after}, nil); err != nil {
			t.Fatalf("%s: %v", c.how, err)
		}
		f.bootsDisk(t, c.n, 1)
		if got := f.images.served(c.n.name); got != imageMiB<<20 {
			t.Errorf("%s: %d bytes of the image were fetched, not %d", c.how, got, imageMiB<<20)
		}
		reply, err := f.client.GetFlow(within(t), &api.GetFlowRequest{Node: c.n.name})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range reply.GetFlow().GetSteps() {
			if s.GetStarts() != 1 {
				t.Errorf("%s: step %s.%s was started %d times", c.how, s.GetInterface(), s.GetName(), s.GetStarts())
			}
		}
	}
}

// testServe starts peers that must not start.
func testServe(t *testing.T, f *fixture) {
	p := f.peers[0]
	own, err := os.ReadFile(filepath.Join(p.dir, "ironring.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config := func(change func(string) string) string {
		path := filepath.Join(t.TempDir(), "ironring.yaml")
		if err := os.WriteFile(path, []byte(change(string(own))), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	here := p.addr.String() + ":"
	elsewhere := func(s string) string { return strings.ReplaceAll(s, here, f.net.peer(200).String()+":") }
	empty := func(s string) string { return strings.ReplaceAll(s, p.dir, shortDir(t)) }
	for _, c := range []struct {
		name   string
		args   []string
		config string
		code   int
		why    []string
	}{
		{"unknown key", nil, config(func(s string) string { return strings.Replace(s, "drivers:", "driver:", 1) }),
			3, []string{`line 4: unknown key "driver"`, `did you mean "drivers"?`}},
		{"unknown driver", []string{"--init"}, config(func(s string) string { return elsewhere(empty(strings.Replace(s, "redfish", "ilo", 1))) }),
			3, []string{`no driver "ilo"`, "redfish"}},
		{"port in use", []string{"--init"}, config(empty), 5, []string{"listen.api", here + "7482", "in use"}},
		{"directory in use", nil, config(elsewhere), 5, []string{p.dir + "/data", "in use"}},
		{"directory in use, --init", []string{"--init"}, config(elsewhere), 5, []string{p.dir + "/data", "in use"}},
		{"the same peer, --init", []string{"--init"}, config(func(s string) string { return s }), 5, []string{"data directory " + p.dir + "/data is in use"}},
		{"neither --init nor a token", nil, config(func(s string) string { return elsewhere(empty(s)) }),
			4, []string{"holds no peer", "--init", "token"}},
	} {
		out, code := f.ironring(append([]string{"serve", "--config", c.config}, c.args...)...)
		t.Logf("%s: exit code %d: %s", c.name, code, out)
		if code != c.code {
			t.Errorf("%s: exit code %d, not %d", c.name, code, c.code)
		}
		for _, w := range c.why {
			if !strings.Contains(out, w) {
				t.Errorf("%s: %q is not in the error", c.name, w)
			}
		}
	}
	// A second --init does not found a second cluster over the first.
	p.term()
	out, code := f.ironring("serve", "--config", filepath.Join(p.dir, "ironring.yaml"), "--init")
	t.Logf("second --init: exit code %d: %s", code, out)
	if code != 5 || !strings.Contains(out, "--init") {
		t.Errorf("second --init: exit code %d: %s", code, out)
	}
	if err := p.restart(f.opts.Binary); err != nil {
		t.Fatal(err)
	}
	if err := f.await(within(t), p, 1); err != nil {
		t.Fatal(err)
	}
	if n, err := f.client.ListNodes(within(t), nil); err != nil || len(n.GetNodes()) != 2 {
		t.Errorf("after all that: %d nodes, %v", len(n.GetNodes()), err)
	}
}

// testJoin gives tokens that must not open the door.
func testJoin(t *testing.T, f *fixture) {
	p := f.peers[0]
	tok, err := f.client.CreateJoinToken(within(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	good := tok.GetToken()
	join := func(name, token string) (string, int) {
		dir := shortDir(t)
		cfg := fmt.Sprintf(peerConfig, dir, name, f.net.peer(201), tftpPort, dhcpPort, f.ipxeDir())
		if err := os.WriteFile(filepath.Join(dir, "ironring.yaml"), []byte(cfg), 0o600); err != nil {
			t.Fatal(err)
		}
		return f.run(token+"\n", "cluster", "join", "--config", filepath.Join(dir, "ironring.yaml"), "--token-file", "-")
	}
	forged := func(field string, value any) string {
		raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(good, "ir1."))
		if err != nil {
			t.Fatal(err)
		}
		doc := map[string]any{}
		if err := json.Unmarshal(raw, &doc); err != nil {
			t.Fatal(err)
		}
		doc[field] = value
		if raw, err = json.Marshal(doc); err != nil {
			t.Fatal(err)
		}
		return "ir1." + base64.RawURLEncoding.EncodeToString(raw)
	}
	refused := func(name, token string, code int, why string) {
		t.Helper()
		out, got := join("p9", token)
		if got != code || !strings.Contains(out, why) {
			t.Errorf("%s: exit code %d, not %d, or no %q in: %s", name, got, code, why, out)
		}
		if strings.Contains(out, token) {
			t.Errorf("%s: the token is shown: %s", name, out)
		}
	}
	refused("no token", "hello", 3, "join token")
	refused("cut", good[:len(good)/2], 3, "damaged")
	refused("wrong secret", forged("secret", make([]byte, 32)), 10, "secret of the join token is wrong")
	refused("wrong CA", forged("ca_digest", strings.Repeat("0", 64)), 10, "belongs to another cluster")
	refused("wrong cluster id", forged("cluster_id", "c0ffee"), 10, "is for cluster c0ffee, this is cluster "+f.clusterID(within(t)))
	refused("nobody there", forged("addresses", []string{closedPort(t)}), 8, "connection refused")
	// The token was good all along, but only once. The peer that has joined
	// is not started: it is no voter, so nothing depends on it.
	if out, code := join("p8", good); code != 0 {
		t.Fatalf("join: exit code %d: %s", code, out)
	}
	refused("used", good, 10, "used already, by p8")
	if _, err := f.client.ListNodes(within(t), &api.ListNodesRequest{Read: &api.ReadOptions{Linearizable: true}}); err != nil {
		t.Errorf("after all that, %s says: %v", p.id, err)
	}
}
