package cluster_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/cluster/clustertest"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
	"github.com/ironring/ironring/internal/seal"
)

// forge changes one field of a join token.
func forge(t *testing.T, token, field string, value any) string {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, "ir1."))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	doc[field] = value
	raw, err = json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return "ir1." + base64.RawURLEncoding.EncodeToString(raw)
}

func TestJoinRefusals(t *testing.T) {
	t.Parallel()
	k := clustertest.Start(t, 1, clustertest.Options{})
	other := clustertest.Start(t, 1, clustertest.Options{})
	used := k.Token("p1")
	k.Join("p2", used)
	good := k.Token("p1")
	short, _, err := k.Peer("p1").CreateJoinToken(within(t, 10*time.Second), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	foreign := other.Token("p1")
	var foreignDoc map[string]any
	raw, _ := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(foreign, "ir1."))
	if err := json.Unmarshal(raw, &foreignDoc); err != nil {
		t.Fatal(err)
	}
	try := func(id, token string) error {
		p := k.Add(id)
		err := k.TryStart(p, func(c *cluster.Config) { c.JoinToken = token })
		if err == nil {
			t.Errorf("%s joined", id)
		}
		return err
	}
	for _, c := range []struct {
		name, token string
		kind        errs.Kind
		text        string
	}{
		{"rubbish", "hello", errs.Invalid, "must begin with"},
		{"cut", good[:len(good)/2], errs.Invalid, "damaged"},
		{"used", used, errs.Denied, "used already, by p2"},
		{"wrong secret", forge(t, good, "secret", make([]byte, 32)), errs.Denied, "secret of the join token is wrong"},
		{"wrong CA", forge(t, good, "ca_digest", strings.Repeat("0", 64)), errs.Denied, "belongs to another cluster"},
		{"wrong cluster", forge(t, good, "cluster_id", "c0ffee"), errs.Denied, "is for cluster c0ffee, this is cluster " + k.Peer("p1").ClusterID()},
		{"token of another cluster at our address", forge(t, foreign, "addresses", []string{k.Peer("p1").Advertised().GetApiAddress()}), errs.Denied, "belongs to another cluster"},
		{"unknown", forge(t, good, "id", "0000"), errs.Denied, "not known to this cluster"},
		{"nobody there", forge(t, good, "addresses", []string{"127.0.0.1:1"}), errs.Unreachable, "127.0.0.1:1"},
	} {
		if err := try("px", c.token); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: kind %v: %v", c.name, errs.KindOf(err), err)
		}
	}
	k.Wait("the token expires", func() bool {
		p := k.Add("py")
		err := k.TryStart(p, func(c *cluster.Config) { c.ID, c.JoinToken = "p2", short })
		return err != nil && strings.Contains(err.Error(), "expired at")
	})
	if err := k.TryStart(k.Add("pz"), func(c *cluster.Config) { c.ID, c.JoinToken = "p1", good }); !errors.Is(err, errs.Exists) {
		t.Errorf("an id that is taken: %v", err)
	}
	// The token was good all along. Repeating a join whose answer was lost
	// works with the same key and data directory.
	p3 := k.Add("p3")
	if err := k.TryStart(p3, func(c *cluster.Config) { c.JoinToken = good }); err != nil {
		t.Fatal(err)
	}
	k.WaitReady(p3)
	k.Quit("p3")
	if err := os.Remove(filepath.Join(p3.Dir, "identity.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(p3.Dir, "raft")); err != nil {
		t.Fatal(err)
	}
	if err := k.TryStart(p3, func(c *cluster.Config) { c.JoinToken = good }); err != nil {
		t.Fatalf("a repeated join: %v", err)
	}
	k.WaitReady(p3)
	// A restart with the same flags is a restart.
	k.Quit("p3")
	if err := k.TryStart(p3, func(c *cluster.Config) { c.JoinToken = good }); err != nil {
		t.Fatalf("restart with the token still given: %v", err)
	}
	k.WaitReady(p3)
	k.Quit("p3")
	if err := k.TryStart(p3, func(c *cluster.Config) { c.JoinToken = foreign }); !errors.Is(err, errs.Exists) {
		t.Errorf("restart with a token of another cluster: %v", err)
	}
}

// joiner is what a peer sends to join, which then never starts; its record is
// its own word.
type joiner struct {
	req *api.JoinRequest
	key []byte // digest of its key pair
}

func newJoiner(t *testing.T, k *clustertest.Kit, id string) *joiner {
	t.Helper()
	csr, _, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := pki.ParseRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	self, err := seal.NewRecipient()
	if err != nil {
		t.Fatal(err)
	}
	return &joiner{
		key: pki.KeyDigest(parsed.RawSubjectPublicKeyInfo),
		req: &api.JoinRequest{ClusterId: k.Peer("p1").ClusterID(), CsrDer: csr, Member: &api.Member{
			Id: id, ClusterAddress: "127.0.0.1:1", GossipAddress: "127.0.0.1:1", ApiAddress: "127.0.0.1:1", FeatureLevel: 1, SealKey: self.Public(),
		}},
	}
}

// token makes a token for who proved a shared key.
func (j *joiner) token(k *clustertest.Kit, id, formKey string) {
	secret := []byte("secret of " + id)
	digest := sha256.Sum256(secret)
	k.MustPropose("p1", &api.Op{Op: &api.Op_TokenCreate{TokenCreate: &api.TokenCreate{Token: &api.JoinToken{
		Id: id, SecretDigest: digest[:], ExpiresMs: time.Now().Add(time.Hour).UnixMilli(), FormKey: formKey,
	}}}})
	j.req.TokenId, j.req.Secret = id, secret
}

// A peer that was removed while somebody still took it in gets nothing, and is
// no member; that it did not tell its shared key does not keep it from being
// spent. The host is welcome with another key pair and a good token.
func TestRemovedWhileItJoins(t *testing.T) {
	t.Parallel()
	const formKey = "0123456789abcdef0123456789abcdef"
	k := clustertest.Start(t, 1, clustertest.Options{})
	p1 := k.Peer("p1")
	join := func(j *joiner) (*api.JoinReply, error) {
		return p1.JoinServer().Join(within(t, clustertest.Limit), proto.CloneOf(j.req))
	}
	j := newJoiner(t, k, "p9")
	j.token(k, "t1", formKey)
	for range 2 { // the first answer is lost
		if reply, err := join(j); err != nil || len(reply.GetDataKeyring()) == 0 {
			t.Fatalf("join: %v", err)
		}
	}
	if err := p1.Remove(within(t, clustertest.Limit), "p9"); err != nil {
		t.Fatal(err)
	}
	if s := p1.Store().View().SpentKey(formKey); s.GetMember() != "p9" {
		t.Errorf("the key that p9 proved and did not tell: %v", s)
	}
	if _, err := join(j); !errors.Is(err, errs.Exists) || !strings.Contains(err.Error(), "former member p9") {
		t.Errorf("a repeated join: %v", err)
	}
	// As from a peer that took the token before the removal, and slept.
	if _, err := p1.Welcome(j.req, j.key); !errors.Is(err, errs.Denied) || !strings.Contains(err.Error(), "removed while it joined") {
		t.Errorf("the end of a join: %v", err)
	}

	again := newJoiner(t, k, "p9")
	again.token(k, "t2", "")
	if _, err := join(again); err != nil {
		t.Fatalf("with another key pair and a new token: %v", err)
	}
	if _, err := p1.Welcome(j.req, j.key); !errors.Is(err, errs.Denied) {
		t.Errorf("the old p9 gets what is for the new one: %v", err)
	}
	if m := p1.Store().View().Member("p9"); !bytes.Equal(m.GetKeyDigest(), again.key) {
		t.Errorf("the record of p9: %v", m)
	}
}

func TestDataDirectory(t *testing.T) {
	t.Parallel()
	k := clustertest.Start(t, 1, clustertest.Options{})
	p1 := k.Peer("p1")
	open := func(change func(*cluster.Config)) error {
		cfg := cluster.Config{DataDir: p1.Dir}
		if change != nil {
			change(&cfg)
		}
		c, err := cluster.Open(context.Background(), cfg)
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := open(nil); !errors.Is(err, errs.Exists) || !strings.Contains(err.Error(), "in use by process") {
		t.Errorf("a directory in use: %v", err)
	}
	listen, _ := p1.Addresses()
	err := open(func(c *cluster.Config) { c.DataDir, c.Init, c.ClusterListen = t.TempDir(), true, listen })
	if !errors.Is(err, errs.Exists) || !strings.Contains(err.Error(), listen) {
		t.Errorf("a port in use: %v", err)
	}
	id := p1.ClusterID()
	k.Quit("p1")
	for name, c := range map[string]struct {
		change func(*cluster.Config)
		kind   errs.Kind
		text   string
	}{
		"second init": {func(c *cluster.Config) { c.Init = true }, errs.Exists, "holds member p1 of cluster " + id},
		"other id":    {func(c *cluster.Config) { c.ID = "p9" }, errs.Invalid, "belongs to member p1, not to p9"},
		"nothing":     {func(c *cluster.Config) { c.DataDir = t.TempDir() }, errs.NotFound, "--init"},
		"bad id":      {func(c *cluster.Config) { c.ID = "P_1" }, errs.Invalid, "P_1"},
		"both":        {func(c *cluster.Config) { c.Init, c.JoinToken = true, "x" }, errs.Invalid, "cannot found a cluster and join one"},
		"bad timing": {func(c *cluster.Config) {
			c.DataDir, c.Init, c.Settings = t.TempDir(), true, &api.Settings{Timing: &api.Timing{}}
		}, errs.Invalid, "timing"},
		"no directory": {func(c *cluster.Config) { c.DataDir = "" }, errs.Invalid, "data directory"},
		"unspecified": {func(c *cluster.Config) {
			c.DataDir, c.Init, c.ClusterListen = t.TempDir(), true, "0.0.0.0:0"
		}, errs.Invalid, "set the address to advertise"},
	} {
		if err := open(c.change); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v: %v", name, errs.KindOf(err), err)
		}
	}
	// Everything is private, and damage names the file and the way out.
	err = filepath.Walk(p1.Dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ca.crt", "ca.key", "peer.crt", "peer.key", "keyring", "gossip.key", "identity.json", "raft/raft.db"} {
		path := filepath.Join(p1.Dir, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for what, damage := range map[string]func() error{
			"missing":   func() error { return os.Remove(path) },
			"truncated": func() error { return os.WriteFile(path, good[:min(len(good)/2, 3)], 0o600) },
		} {
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			err := open(nil)
			if err == nil || !strings.Contains(err.Error(), filepath.Base(name)) || !strings.Contains(err.Error(), "join again") && !strings.Contains(err.Error(), "--init") {
				t.Errorf("%s %s: %v", name, what, err)
			}
			if err := os.WriteFile(path, good, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Chmod(filepath.Join(p1.Dir, "ca.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := open(nil); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: %v", err)
	}
	if err := os.Chmod(filepath.Join(p1.Dir, "ca.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	k.WaitReady(k.Restart("p1"))
}

func TestLeaveAndRemove(t *testing.T) {
	t.Parallel()
	k := clustertest.Start(t, 4, clustertest.Options{})
	if err := k.Peer("p1").Remove(within(t, 10*time.Second), "p4"); !errors.Is(err, errs.WrongState) {
		t.Errorf("a live member was removed: %v", err)
	}
	voters := 0
	for _, p := range k.Peer("p1").Status(within(t, 5*time.Second)).GetPeers() {
		if p.GetVoter() {
			voters++
		}
	}
	if voters != 3 {
		t.Errorf("%d of 4 peers vote, the cap is 3", voters)
	}
	// The leader leaves: another leads, the fourth peer gets its vote, and the
	// one that left cannot start again.
	old := k.WaitLeader()
	if err := old.Leave(within(t, 20*time.Second)); err != nil {
		t.Fatalf("leave: %v", err)
	}
	if err := old.Err(); err != nil {
		t.Errorf("a peer that left ended with %v", err)
	}
	k.Quit(old.ID)
	if err := k.TryStart(old, nil); !errors.Is(err, errs.WrongState) || !strings.Contains(err.Error(), "has left the cluster") {
		t.Errorf("a peer that left starts: %v", err)
	}
	k.WaitLeader()
	k.WaitVoters(3)
	// One dies for good and is removed; then it comes back and finds out.
	var dead *clustertest.Peer
	for _, p := range k.Peers() {
		if !p.IsLeader() {
			dead = p
		}
	}
	k.Kill(dead.ID)
	leader := k.WaitLeader()
	k.Wait("gossip sees the death", func() bool { return !leader.Alive(dead.ID) })
	if err := leader.Remove(within(t, 20*time.Second), dead.ID); err != nil {
		t.Fatalf("remove: %v", err)
	}
	k.WaitVoters(2)
	back := k.Restart(dead.ID)
	k.MustPropose(leader.ID, createNode("after-removal"))
	if back.Store().View().NodeByName("after-removal") != nil {
		t.Error("a removed peer still gets entries")
	}
	if _, err := back.Propose(within(t, time.Second), command("", createNode("by-a-stranger"))); err == nil {
		t.Error("a removed peer still writes")
	}
	k.Quit(dead.ID)
	// The id is free again for a new machine.
	if err := os.RemoveAll(dead.Dir); err != nil {
		t.Fatal(err)
	}
	token := k.Token(leader.ID)
	if err := k.TryStart(dead, func(c *cluster.Config) { c.JoinToken = token }); err != nil {
		t.Fatalf("join under an old id: %v", err)
	}
	k.WaitReady(dead)
	k.WaitVoters(3)
	k.WaitSame()
}
