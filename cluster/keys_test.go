package cluster_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/cluster/clustertest"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
	"github.com/ironring/ironring/internal/seal"
)

// secretNode makes a node with a sealed password and returns its id.
func secretNode(t *testing.T, k *clustertest.Kit, at string) string {
	t.Helper()
	id := uuid.NewString()
	doc, err := k.Peer(at).Keyring().SealDoc("node/"+id+"/driver_info", []byte(`{"password":"hunter2"}`), func([]string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	extra, err := k.Peer(at).Keyring().SealDoc(seal.NodeAAD(id, "extra"), []byte(`{"pin":1234}`), func([]string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	k.MustPropose(at, &api.Op{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{Id: id, Name: "n-" + id[:8], Driver: "fake", DriverInfo: doc, Extra: extra}}}})
	port := uuid.NewString()
	more, err := k.Peer(at).Keyring().SealDoc(seal.PortAAD(port, "extra"), []byte(`{"switch_password":"hunter2"}`), func([]string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	k.MustPropose(at, &api.Op{Op: &api.Op_PortCreate{PortCreate: &api.PortCreate{Port: &api.Port{Id: port, NodeId: id, Address: "52:54:00:" + id[:2] + ":" + id[2:4] + ":" + id[4:6], Extra: more}}}})
	return id
}

// opens reads the password of secretNode at a peer.
func opens(p *clustertest.Peer, id string) error {
	doc, err := p.Keyring().OpenDoc("node/"+id+"/driver_info", p.Store().View().Node(id).GetDriverInfo())
	if err == nil && string(doc) != `{"password":"hunter2"}` {
		return errs.New(errs.Internal, "opened %q", doc)
	}
	if err != nil {
		return err
	}
	doc, err = p.Keyring().OpenDoc(seal.NodeAAD(id, "extra"), p.Store().View().Node(id).GetExtra())
	if err == nil && string(doc) != `{"pin":1234}` {
		return errs.New(errs.Internal, "opened %q", doc)
	}
	for _, port := range p.Store().View().PortsOf(id) {
		if doc, err = p.Keyring().OpenDoc(seal.PortAAD(port.GetId(), "extra"), port.GetExtra()); err == nil && string(doc) != `{"switch_password":"hunter2"}` {
			return errs.New(errs.Internal, "opened %q", doc)
		}
	}
	return err
}

// waitKeys waits until the peers have keys of a generation and nothing is
// sealed with older ones.
func waitKeys(k *clustertest.Kit, generation uint64, ids ...string) {
	k.Wait("the new keys are everywhere", func() bool {
		for _, id := range ids {
			p := k.Peer(id)
			rec := p.Store().View().Keys()
			if rec.GetGeneration() != generation || len(rec.GetDataKeys()) != 1 ||
				p.Keyring().Generation() != generation || len(p.Keyring().IDs()) != 1 {
				return false
			}
		}
		return true
	})
}

// errorCounter counts what was logged at Error.
type errorCounter struct {
	slog.Handler
	lines *atomic.Int64
	text  *atomic.Value
}

func (h errorCounter) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }
func (h errorCounter) WithAttrs([]slog.Attr) slog.Handler           { return h }
func (h errorCounter) Handle(_ context.Context, r slog.Record) error {
	h.lines.Add(1)
	h.text.Store(r.Message)
	return nil
}

// A removal changes the data key and the gossip key for those who stay; what
// was sealed is sealed anew; the keys are never in the log in clear; and the
// one that was removed is told, once, and stays out.
func TestRemovalRotatesKeys(t *testing.T) {
	t.Parallel()
	var lines atomic.Int64
	var text atomic.Value
	k := clustertest.Start(t, 3, clustertest.Options{Configure: func(id string, cfg *cluster.Config) {
		if id == "p3" {
			cfg.Logger = slog.New(errorCounter{slog.DiscardHandler, &lines, &text})
		}
	}})
	node := secretNode(t, k, "p3")
	p3 := k.Peer("p3")
	read := func(p *clustertest.Peer, name string) []byte {
		raw, err := os.ReadFile(filepath.Join(p.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	oldGossip := read(p3, "gossip.key")
	oldRing, err := seal.Parse(read(p3, "keyring"))
	if err != nil {
		t.Fatal(err)
	}
	k.Kill("p3")
	leader := k.WaitLeader()
	k.Wait("gossip sees the death", func() bool { return !leader.Alive("p3") })
	if err := leader.Remove(within(t, 20*time.Second), "p3"); err != nil {
		t.Fatal(err)
	}
	waitKeys(k, 2, "p1", "p2")
	for _, id := range []string{"p1", "p2"} {
		p := k.Peer(id)
		if err := opens(p, node); err != nil {
			t.Errorf("%s cannot open the secret: %v", id, err)
		}
		if _, err := oldRing.OpenDoc("node/"+node+"/driver_info", p.Store().View().Node(node).GetDriverInfo()); err == nil {
			t.Error("the removed peer's keys open the secret")
		}
		gossip, ring := read(p, "gossip.key"), read(p, "keyring")
		if bytes.Equal(gossip, oldGossip) {
			t.Errorf("%s still has the old gossip key", id)
		}
		log := read(p, "raft/raft.db")
		for _, key := range [][]byte{gossip, []byte(base64.StdEncoding.EncodeToString(gossip)), ring[:len(ring)-2]} {
			if bytes.Contains(log, key) {
				t.Errorf("a key of %s is in its log in clear", id)
			}
		}
	}
	// The removed peer hears it from the others, says so once and ends.
	back := k.Restart("p3")
	var removed *cluster.RemovedError
	if err := back.Err(); !errors.As(err, &removed) || !errors.Is(err, errs.WrongState) || removed.Cluster != leader.ClusterID() {
		t.Fatalf("the removed peer ended with %v", err)
	}
	if n := lines.Load(); n != 1 || !strings.Contains(text.Load().(string), "was removed from cluster "+leader.ClusterID()) {
		t.Errorf("it logged %d errors, last %q", n, text.Load())
	}
	k.Quit("p3")
	if err := k.TryStart(back, nil); !errors.As(err, &removed) {
		t.Errorf("it starts again: %v", err)
	}
	// The others gossip with the new key, a new member gets it too, and a
	// restart finds it on disk.
	k.Join("p4", k.Token("p1"))
	k.Wait("gossip works", func() bool {
		return k.Peer("p1").Alive("p2") && k.Peer("p4").Alive("p2") && k.Peer("p2").Alive("p4")
	})
	if err := opens(k.Peer("p4"), node); err != nil {
		t.Errorf("a new member cannot open the secret: %v", err)
	}
	k.Quit("p2")
	k.WaitReady(k.Restart("p2"))
	if err := opens(k.Peer("p2"), node); err != nil || k.Peer("p2").Keyring().Generation() != 2 {
		t.Errorf("after a restart: %v", err)
	}
}

// A member that was down gets the new keys when it comes back, also at an
// address that nobody knows and with a gossip key that nobody takes.
func TestKeysReachAMemberThatWasDown(t *testing.T) {
	t.Parallel()
	k := clustertest.Start(t, 3, clustertest.Options{})
	node := secretNode(t, k, "p1")
	k.Quit("p3")
	k.WaitLeader()
	for range 2 { // more than one generation behind
		want := k.Peer("p1").Store().View().Keys().GetGeneration() + 1
		k.MustPropose("p1", &api.Op{Op: &api.Op_KeysRequest{KeysRequest: &api.KeysRequest{Reason: "test"}}})
		waitKeys(k, want, "p1", "p2")
	}
	p3 := k.Peer("p3")
	moved := fmt.Sprintf("127.78.%d.9:0", 1+os.Getpid()%250)
	err := k.TryStart(p3, func(c *cluster.Config) { c.ClusterListen, c.GossipListen = moved, moved })
	if err != nil {
		t.Fatal(err)
	}
	k.WaitReady(p3)
	waitKeys(k, 3, "p3")
	if err := opens(p3, node); err != nil {
		t.Error(err)
	}
	k.Wait("gossip takes it back", func() bool { return k.Peer("p1").Alive("p3") && p3.Alive("p1") })
}

// The leader dies right after new keys were asked for: the next one makes
// them, once.
func TestRotationSurvivesTheLeader(t *testing.T) {
	t.Parallel()
	k := clustertest.Start(t, 3, clustertest.Options{})
	node := secretNode(t, k, "p1")
	leader := k.WaitLeader()
	k.MustPropose(leader.ID, &api.Op{Op: &api.Op_KeysRequest{KeysRequest: &api.KeysRequest{Reason: "test"}}})
	k.Kill(leader.ID)
	var others []string
	for _, p := range k.Peers() {
		others = append(others, p.ID)
	}
	k.WaitLeader()
	waitKeys(k, 2, others...)
	k.WaitReady(k.Restart(leader.ID))
	waitKeys(k, 2, "p1", "p2", "p3")
	if err := opens(k.Peer(leader.ID), node); err != nil {
		t.Error(err)
	}
}

// What a removed peer has is worth nothing to peers: neither its own
// certificate, nor one that it makes for a member's name with its copy of the
// CA's key, nor its old place under an id that somebody else has now.
func TestRemovedPeerIsShutOut(t *testing.T) {
	t.Parallel()
	k := clustertest.Start(t, 3, clustertest.Options{})
	p1, p3 := k.Peer("p1"), k.Peer("p3")
	dial := func(h *pki.Holder, id string) error {
		address, _ := p1.Addresses()
		cfg := h.PeerTLS(id, "h2")
		conn, err := tls.Dial("tcp", address, cfg)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, err = conn.Read(make([]byte, 1)) // HTTP/2 settings, or the alert
		return err
	}
	if err := dial(p3.TLS(), "p1"); err != nil {
		t.Fatalf("a member is refused: %v", err)
	}
	open, err := p3.PeerConn("p1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.NewClusterClient(open).PeerInfo(within(t, 5*time.Second), &api.PeerInfoRequest{}); err != nil {
		t.Fatal(err)
	}
	k.MustPropose("p1", &api.Op{Op: &api.Op_MemberRemove{MemberRemove: &api.MemberRemove{Id: "p3"}}})
	if _, err := api.NewClusterClient(open).PeerInfo(within(t, 5*time.Second), &api.PeerInfoRequest{}); err == nil {
		t.Error("an open connection still works")
	}
	if err := dial(p3.TLS(), "p1"); err == nil {
		t.Error("the certificate of a removed peer is taken")
	}
	ca := p3.CA()
	csr, key, err := pki.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(csr, pki.Identity{Role: pki.RolePeer, Name: "p2"}, 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	forged, err := pki.NewHolder(ca.CertDER(), cert, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := dial(forged, "p1"); err == nil {
		t.Error("a forged certificate of a member's name is taken")
	}
	leaf, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	if err := p1.AdmitTLS(tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}); !errors.Is(err, errs.Denied) {
		t.Errorf("other listeners take it: %v", err)
	}
	// p3 is told, and another machine takes its id.
	var removed *cluster.RemovedError
	if err := p3.Err(); !errors.As(err, &removed) {
		t.Errorf("p3 ended with %v", err)
	}
	k.Quit("p3")
	old := p3.TLS()
	if err := os.RemoveAll(p3.Dir); err != nil {
		t.Fatal(err)
	}
	token := k.Token("p1")
	if err := k.TryStart(p3, func(c *cluster.Config) { c.JoinToken = token }); err != nil {
		t.Fatal(err)
	}
	k.WaitReady(p3)
	if err := dial(p3.TLS(), "p1"); err != nil {
		t.Errorf("the new p3 is refused: %v", err)
	}
	if err := dial(old, "p1"); err == nil {
		t.Error("the old p3 passes for the new one")
	}
}
