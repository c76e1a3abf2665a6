package cluster_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/cluster/clustertest"
	"github.com/ironring/ironring/internal/errs"
)

var formHosts atomic.Uint32

// site is some hosts with one and the same configuration file.
type site struct {
	t       *testing.T
	k       *clustertest.Kit
	form    cluster.Form
	address map[string]string
	keys    map[string]*keyFile // of hosts
}

// keyFile is a host's key_file.
type keyFile struct {
	mu  sync.Mutex
	key []byte // guarded by mu; nil: there is none
}

func (k *keyFile) put(key []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.key = key
}

func (k *keyFile) read() ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.key == nil {
		return nil, os.ErrNotExist
	}
	return k.key, nil
}

// keyOf is a shared key of one letter.
func keyOf(letter string) []byte { return bytes.Repeat([]byte(letter), 32) }

// newSite prepares hosts p1 to pN, of which the first listed are in join.
func newSite(t *testing.T, hosts, listed, expect int) *site {
	s := &site{t: t, k: clustertest.New(t, clustertest.Options{Verbose: os.Getenv("V") != ""}), address: map[string]string{}, keys: map[string]*keyFile{}}
	s.form = cluster.Form{ClusterID: "rack-1", Expect: expect}
	for i := 1; i <= hosts; i++ {
		id := fmt.Sprintf("p%d", i)
		s.k.Add(id)
		s.keys[id] = &keyFile{key: keyOf("k")}
		n := formHosts.Add(1)
		s.address[id] = fmt.Sprintf("127.79.%d.%d:17480", 1+os.Getpid()%250, n)
		s.k.Place(id, s.address[id])
		if i <= listed {
			s.form.Join = append(s.form.Join, s.address[id])
		}
	}
	return s
}

// formOf is what a host's file says.
func (s *site) formOf(id string) *cluster.Form {
	f := s.form
	f.Key = s.keys[id].read
	return &f
}

// start starts a host and returns what Open says, when it does.
func (s *site) start(id string) <-chan error {
	done := make(chan error, 1)
	p := s.k.Peer(id)
	go func() {
		done <- s.k.TryStart(p, func(c *cluster.Config) {
			c.Form, c.Settings = s.formOf(id), clustertest.Settings()
		})
	}()
	return done
}

// waiting returns when a host takes part.
func (s *site) waiting(id string) {
	s.k.Wait(id+" takes part", func() bool {
		_, err := os.Stat(filepath.Join(s.k.Peer(id).Dir, "formation.json"))
		return err == nil
	})
}

// one checks that all hosts are members of one cluster.
func (s *site) one(starts map[string]<-chan error) {
	s.t.Helper()
	for id, done := range starts {
		if err := <-done; err != nil {
			s.t.Fatalf("%s: %v", id, err)
		}
	}
	digest := ""
	for id := range starts {
		p := s.k.Peer(id)
		s.k.WaitReady(p)
		if p.ClusterID() != "rack-1" {
			s.t.Errorf("%s is in cluster %s", id, p.ClusterID())
		}
		if digest == "" {
			digest = p.CA().Digest()
		}
		if p.CA().Digest() != digest {
			s.t.Fatal("there are two clusters")
		}
	}
	s.k.WaitVoters(min(3, len(s.k.Peers())))
	s.k.WaitSame()
}

// One file on three hosts makes one cluster, in whatever order they start.
func TestFormInAnyOrder(t *testing.T) {
	t.Parallel()
	for _, order := range []string{"p1 p2 p3", "p3 p2 p1", "p2 p3 p1", "p3 p1 p2", "p1 p3 p2", "p2 p1 p3"} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 3, 3, 3)
			starts := map[string]<-chan error{}
			for id := range strings.FieldsSeq(order) {
				starts[id] = s.start(id)
				s.waiting(id)
			}
			s.one(starts)
		})
	}
}

// Hosts are killed while they form, again and again; with a host missing
// nobody founds; a fourth host with the same file joins; hosts restart as
// members with the file as it is.
func TestFormThroughCrashes(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4, 3, 3)
	crash := func(ids ...string) {
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		for _, id := range ids {
			wg.Go(func() {
				c, err := cluster.Open(ctx, cluster.Config{
					DataDir: s.k.Peer(id).Dir, ID: id, ClusterListen: s.address[id], Form: s.formOf(id), Settings: clustertest.Settings(),
					Advertised: &api.Member{ApiAddress: "127.0.0.1:1"},
				})
				if err == nil {
					c.Close()
				}
			})
		}
		for _, id := range ids {
			s.waiting(id)
		}
		cancel()
		wg.Wait()
	}
	crash("p1", "p2")
	crash("p2", "p3")
	for range 3 {
		crash("p1", "p2", "p3") // it may found, or be about to
	}
	founders := 0
	for _, id := range []string{"p1", "p2", "p3"} {
		if _, err := os.Stat(filepath.Join(s.k.Peer(id).Dir, "identity.json")); err == nil {
			founders++
		}
	}
	if founders > 1 {
		t.Fatalf("%d peers have founded", founders)
	}
	starts := map[string]<-chan error{}
	for _, id := range []string{"p1", "p2", "p3", "p4"} {
		starts[id] = s.start(id)
	}
	s.one(starts)
	s.k.Quit("p2")
	if err := <-s.start("p2"); err != nil {
		t.Fatal(err)
	}
	s.k.WaitReady(s.k.Peer("p2"))
}

// Fewer than expected found nothing, and neither do two halves; one alone that
// expects nobody else does, and grows.
func TestFormNeedsAllThatAreExpected(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4, 4, 3)
	s.k.Partition("p3", "p4")
	starts := map[string]<-chan error{}
	for _, id := range []string{"p1", "p2", "p3", "p4"} {
		starts[id] = s.start(id)
		s.waiting(id)
	}
	// Each has greeted the others many times by the time that another site,
	// started later, has formed.
	other := newSite(t, 3, 1, 1)
	other.one(map[string]<-chan error{"p1": other.start("p1")})
	other.one(map[string]<-chan error{"p2": other.start("p2"), "p3": other.start("p3")})
	for id, done := range starts {
		select {
		case err := <-done:
			t.Fatalf("%s went on without the others: %v", id, err)
		default:
		}
	}
	s.k.Heal()
	s.one(starts)
}

func TestFormRefusals(t *testing.T) {
	t.Parallel()
	join := []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}
	key := (&keyFile{key: keyOf("k")}).read
	for name, c := range map[string]struct {
		form cluster.Form
		init bool
		text string
	}{
		"no cluster id": {cluster.Form{Join: join, Expect: 3, Key: key}, false, "cluster_id"},
		"an address":    {cluster.Form{ClusterID: "10.0.0.1", Join: join, Expect: 3, Key: key}, false, "cluster_id"},
		"short key":     {cluster.Form{ClusterID: "c", Join: join, Expect: 3, Key: (&keyFile{key: keyOf("k")[:31]}).read}, false, "openssl rand"},
		"no key":        {cluster.Form{ClusterID: "c", Join: join, Expect: 3, Key: (&keyFile{}).read}, false, "read the shared key"},
		"too many":      {cluster.Form{ClusterID: "c", Join: join, Expect: 4, Key: key}, false, "expect is 4"},
		"none":          {cluster.Form{ClusterID: "c", Join: join, Key: key}, false, "expect is 0"},
		"half":          {cluster.Form{ClusterID: "c", Join: join[:2], Expect: 1, Key: key}, false, "two clusters"},
		"twice":         {cluster.Form{ClusterID: "c", Join: append(join[:2:2], join[0]), Expect: 3, Key: key}, false, "listed twice"},
		"no port":       {cluster.Form{ClusterID: "c", Join: []string{"p1"}, Expect: 1, Key: key}, false, "host:port"},
		"init":          {cluster.Form{ClusterID: "c", Join: join, Expect: 3, Key: key}, true, "without --init"},
	} {
		_, err := cluster.Open(context.Background(), cluster.Config{DataDir: t.TempDir(), Form: &c.form, Init: c.init})
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Without the key nobody forms, joins, or learns anything; nor with a
// certificate that comes from somewhere else.
func TestFormNeedsTheKey(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, 1, 1)
	s.one(map[string]<-chan error{"p1": s.start("p1")})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s.keys["p2"].put(keyOf("x"))
	go func() {
		_, err := cluster.Open(ctx, cluster.Config{DataDir: s.k.Peer("p2").Dir, ID: "p2", ClusterListen: s.address["p2"], Form: s.formOf("p2")})
		done <- err
	}()
	s.waiting("p2")
	conn, err := tls.Dial("tcp", s.address["p1"], &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"ironring-form"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("a member answers %d bytes to who does not have the key", n)
	}
	select {
	case err := <-done:
		t.Errorf("a peer with another key got: %v", err)
	default:
		cancel()
		if err := <-done; !errors.Is(err, errs.NoQuorum) {
			t.Errorf("stopped while it formed: %v", err)
		}
	}
	cancel()
	if n := len(s.k.Peer("p1").Store().View().Members()); n != 1 {
		t.Errorf("there are %d members", n)
	}
}
