package cluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/cluster/clustertest"
	"github.com/ironring/ironring/cluster/form"
	"github.com/ironring/ironring/internal/errs"
)

// logText is what a peer logs.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// startLogged is start, and what the peer logs.
func (s *site) startLogged(id string) (<-chan error, *logText) {
	log, done, p := &logText{}, make(chan error, 1), s.k.Peer(id)
	go func() {
		done <- s.k.TryStart(p, func(c *cluster.Config) {
			c.Form, c.Settings, c.Logger = s.formOf(id), clustertest.Settings(), slog.New(slog.NewTextHandler(log, nil))
		})
	}()
	return done, log
}

func (s *site) empty(id string) {
	s.t.Helper()
	if err := os.RemoveAll(s.k.Peer(id).Dir); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) joined(id string, done <-chan error) {
	s.t.Helper()
	if err := <-done; err != nil {
		s.t.Fatalf("%s: %v", id, err)
	}
	s.k.WaitReady(s.k.Peer(id))
}

// waitNote waits until the status of a peer has a note with a text.
func (s *site) waitNote(at, text string) {
	s.t.Helper()
	s.k.Wait("a note at "+at+": "+text, func() bool {
		return strings.Contains(strings.Join(cluster.FormNotes(s.k.Peer(at).Store().View()), "\n"), text)
	})
}

// A host whose peer was removed has the shared key, and gains nothing by it:
// not with an emptied data directory, and not where only some hosts have got
// another key. With the key that an operator gives it, it is welcome. Members
// read a new key without a restart, and who leaves by itself is trusted.
func TestRemovalSpendsTheSharedKey(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4, 3, 3)
	starts := map[string]<-chan error{}
	for _, id := range []string{"p1", "p2", "p3"} {
		starts[id] = s.start(id)
	}
	s.one(starts)

	// Left by itself: the key is as good as before.
	if err := s.k.Peer("p3").Leave(within(t, clustertest.Limit)); err != nil {
		t.Fatal(err)
	}
	s.k.Quit("p3")
	s.empty("p3")
	s.joined("p3", s.start("p3"))
	if notes := cluster.FormNotes(s.k.Peer("p1").Store().View()); len(notes) > 0 {
		t.Errorf("notes after a peer left: %q", notes)
	}

	s.k.Quit("p3")
	s.k.Wait("p3 is seen to be dead", func() bool { return !s.k.Peer("p1").Alive("p3") })
	if err := s.k.Peer("p1").Remove(within(t, clustertest.Limit), "p3"); err != nil {
		t.Fatal(err)
	}
	notes := s.k.Peer("p1").Status(within(t, clustertest.Limit)).GetNotes()
	if text := strings.Join(notes, "\n"); !strings.Contains(text, "shared key of p1, p2 was spent when p3 was removed") {
		t.Errorf("notes after the removal: %q", notes)
	}
	s.empty("p3")
	back, log := s.startLogged("p3")
	s.k.Wait("p3 is told why", func() bool { return log.has("shared key of this peer was spent when member p3 was removed") })

	// The new key is on p1 only, and p2 lost its file; a new host has the new one.
	s.keys["p1"].put(keyOf("n"))
	s.keys["p2"].put(nil)
	s.keys["p4"].put(keyOf("n"))
	s.k.Wait("p3 is refused where the new key is", func() bool { return log.has("is its key_file the same") })
	s.joined("p4", s.start("p4"))
	s.waitNote("p4", "shared key of p2 was spent")
	s.keys["p2"].put(keyOf("o"))
	s.waitNote("p4", "one on p1, p4, another on p2")
	s.keys["p2"].put(keyOf("n"))
	s.k.Wait("all is well", func() bool { return len(cluster.FormNotes(s.k.Peer("p1").Store().View())) == 0 })
	select {
	case err := <-back:
		t.Fatalf("the removed peer went on: %v", err)
	default:
	}
	if m := s.k.Peer("p1").Store().View().Member("p3"); m != nil {
		t.Fatalf("the removed peer is a member: %v", m)
	}

	s.keys["p3"].put(keyOf("n"))
	s.joined("p3", back)
}

// Hosts that are as many as expected, and hear from one member that their key is
// spent, found nothing and do not begin to; with the new key they join.
func TestSpentKeyFoundsNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3, 3, 2)
	p1 := s.k.Peer("p1")
	err := s.k.TryStart(p1, func(c *cluster.Config) {
		c.Settings = clustertest.Settings()
		c.Form = &cluster.Form{ClusterID: "rack-1", Expect: 1, Join: []string{s.address["p1"]}, Key: s.keys["p1"].read}
	})
	if err != nil {
		t.Fatal(err)
	}
	s.k.WaitReady(p1)
	key := p1.Store().View().Member("p1").GetFormKey()
	s.k.MustPropose("p1",
		&api.Op{Op: &api.Op_MemberSet{MemberSet: &api.MemberSet{Member: &api.Member{Id: "p9", FeatureLevel: 1, FormKey: key}}}},
		&api.Op{Op: &api.Op_MemberRemove{MemberRemove: &api.MemberRemove{Id: "p9", SpendFormKeys: true}}})
	if p1.Store().View().SpentKey(key) == nil {
		t.Fatal("the key is not spent")
	}

	asked := make(chan struct{}, 1000) // p2 asks p1
	log, p2 := &logText{}, make(chan error, 1)
	go func() {
		p2 <- s.k.TryStart(s.k.Peer("p2"), func(c *cluster.Config) {
			c.Form, c.Settings, c.Logger = s.formOf("p2"), clustertest.Settings(), slog.New(slog.NewTextHandler(log, nil))
			dial := c.Dial
			c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if address == s.address["p1"] {
					select {
					case asked <- struct{}{}:
					default:
					}
				}
				return dial(ctx, network, address)
			}
		})
	}()
	p3 := s.start("p3")
	s.k.Wait("p2 sees as many as are expected", func() bool {
		return log.has("shared key of this peer was spent") && log.has("peer p3 is there") && log.has("peer p2 is there")
	})
	// The smallest id drives the agreement in the first round that sees enough.
	for len(asked) > 0 {
		<-asked
	}
	for range 6 { // "hello" and "token": three rounds
		select {
		case <-asked:
		case <-time.After(clustertest.Limit):
			t.Fatal("p2 does not ask p1 any more")
		}
	}
	for _, id := range []string{"p2", "p3"} {
		dir := s.k.Peer(id).Dir
		if _, err := os.Stat(filepath.Join(dir, "identity.json")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s has founded or joined a cluster: %v", id, err)
		}
		raw, err := os.ReadFile(filepath.Join(dir, "formation.json"))
		if err != nil {
			t.Fatal(err)
		}
		var me form.Acceptor
		if err := json.Unmarshal(raw, &me); err != nil || me.Promised != (form.Ballot{}) {
			t.Errorf("%s takes part in an agreement: %s, %v", id, raw, err)
		}
	}
	for _, k := range s.keys {
		k.put(keyOf("n"))
	}
	s.joined("p2", p2)
	s.joined("p3", p3)
	if a, b := p1.CA().Digest(), s.k.Peer("p2").CA().Digest(); a != b || a != s.k.Peer("p3").CA().Digest() {
		t.Error("there are two clusters")
	}
}

// An entry of join that is each host itself would make a cluster of each.
func TestFormJoinIsLoopback(t *testing.T) {
	t.Parallel()
	const far, near = "10.77.0.1:7480", "127.79.0.1:17480"
	for name, c := range map[string]struct {
		self string
		join []string
		text string // of the refusal; "": accepted
	}{
		"loopback":         {far, []string{"127.0.0.1:7480"}, "is each host itself"},
		"among others":     {far, []string{"p1:7480", "p2:7480", "127.9.9.9:7480"}, "127.9.9.9"},
		"loopback, v6":     {far, []string{"[::1]:7480"}, "is each host itself"},
		"mapped":           {far, []string{"[::ffff:127.0.0.1]:7480"}, "is each host itself"},
		"localhost":        {far, []string{"localhost:7480"}, "is each host itself"},
		"with a dot":       {far, []string{"LocalHost.:7480"}, "is each host itself"},
		"below localhost":  {"p1.example.org:7480", []string{"p1.localhost:7480"}, "is each host itself"},
		"Debian's":         {"[2001:db8::1]:7480", []string{"ip6-localhost:7480"}, "is each host itself"},
		"unspecified":      {far, []string{"0.0.0.0:7480"}, "names no host"},
		"unspecified, v6":  {near, []string{"[::]:7480"}, "names no host"},
		"no host":          {near, []string{":7480"}, "names no host"},
		"one host's peers": {near, []string{near, "127.79.0.2:17480", "localhost:7481"}, ""},
		"on [::1]":         {"[::1]:7480", []string{"[::1]:7480", "[::1]:7481"}, ""},
		"names":            {far, []string{"p1:7480", "localhost.example.org:7480", "notlocalhost:7480"}, ""},
		"addresses":        {far, []string{far, "[2001:db8::2]:7480"}, ""},
	} {
		form := cluster.Form{ClusterID: "c", Join: c.join, Expect: len(c.join), Key: (&keyFile{key: keyOf("k")}).read}
		err := cluster.CheckJoin(&form, c.self)
		if c.text == "" && err != nil || c.text != "" && (!errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.text)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := t.TempDir()
	form := cluster.Form{ClusterID: "c", Join: []string{"localhost:7480"}, Expect: 1, Key: (&keyFile{key: keyOf("k")}).read}
	_, err := cluster.Open(within(t, 20*time.Second), cluster.Config{
		DataDir: dir, ID: "p1", ClusterListen: "127.0.0.1:0", Form: &form,
		Advertised: &api.Member{ClusterAddress: far, ApiAddress: "10.77.0.1:7482"},
	})
	if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "is each host itself") {
		t.Errorf("a peer that others reach at %s forms by localhost: %v", far, err)
	}
}
