package cluster

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
)

// alone opens a cluster of one peer; the test runs it.
func alone(t *testing.T, change func(*Config)) *Cluster {
	t.Helper()
	cfg := Config{
		DataDir: t.TempDir(), ID: "p1", Init: true, CommitStall: 500 * time.Millisecond,
		Raft: RaftTimeouts{Heartbeat: 100 * time.Millisecond}, PromoteAfter: time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	c, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// running runs a cluster and gives what Run returned.
func running(t *testing.T, c *Cluster) (stop context.CancelFunc, result <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(cancel)
	ready, stopWait := context.WithTimeout(ctx, 20*time.Second)
	defer stopWait()
	if err := c.WaitReady(ready); err != nil {
		t.Fatal(err)
	}
	return cancel, done
}

// hangingLog is a disk that stops answering.
type hangingLog struct {
	logStore
	hang atomic.Bool
	free chan struct{}
}

func (l *hangingLog) StoreLogs(logs []*raft.Log) error {
	if l.hang.Load() {
		<-l.free
	}
	return l.logStore.StoreLogs(logs)
}

func TestHangingDiskEndsTheLeader(t *testing.T) {
	t.Parallel()
	told := make(chan error, 1)
	c := alone(t, func(c *Config) { c.OnFatal = func(err error) { told <- err } })
	disk := &hangingLog{logStore: c.storage.log, free: make(chan struct{})}
	c.storage.log = disk
	_, result := running(t, c)
	disk.hang.Store(true)
	select {
	case err := <-told:
		if !strings.Contains(err.Error(), "disk") {
			t.Errorf("fatal: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a leader that commits nothing goes on")
	}
	select { // the disk still hangs
	case err := <-result:
		if err == nil {
			t.Error("Run ended without an error")
		}
	case <-time.After(10 * time.Second):
		t.Error("Run waits for the disk")
	}
	close(disk.free)
	<-c.ended // before the directory is removed
}

func TestUnknownEntryEndsThePeer(t *testing.T) {
	t.Parallel()
	told := make(chan error, 1)
	c := alone(t, func(c *Config) { c.OnFatal = func(err error) { told <- err } })
	_, result := running(t, c)
	// An operation number of the future.
	op := protowire.AppendTag(nil, 900, protowire.BytesType)
	op = protowire.AppendBytes(op, nil)
	cmd := protowire.AppendTag(nil, 2, protowire.BytesType)
	cmd = protowire.AppendBytes(cmd, op)
	if _, err := c.submit(context.Background(), command{raw: cmd}); err == nil {
		t.Error("an entry that nobody understands was applied")
	}
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Fatal("the peer goes on")
	}
	if err := <-result; err == nil || !strings.Contains(err.Error(), "apply entry") {
		t.Errorf("Run ended with %v", err)
	}
}

// Nobody but peers of this cluster gets through the handshake.
func TestClusterListenerAdmitsPeersOnly(t *testing.T) {
	t.Parallel()
	c := alone(t, nil)
	stop, result := running(t, c)
	address, _ := c.Addresses()
	foreign, err := pki.Create(c.ClusterID(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, who := range map[string]struct {
		ca *pki.CA
		id pki.Identity
		ok bool
	}{
		"itself":             {c.CA(), pki.Identity{Role: pki.RolePeer, Name: "p1"}, true},
		"another key":        {c.CA(), pki.Identity{Role: pki.RolePeer, Name: "p1"}, false},
		"no member":          {c.CA(), pki.Identity{Role: pki.RolePeer, Name: "p9"}, false},
		"client":             {c.CA(), pki.Identity{Role: pki.RoleClient, Name: "p1"}, false},
		"agent":              {c.CA(), pki.Identity{Role: pki.RoleAgent, Name: "p1", Nonce: "n"}, false},
		"peer of another CA": {foreign, pki.Identity{Role: pki.RolePeer, Name: "p1"}, false},
	} {
		csr, key, err := pki.NewRequest()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := who.ca.Issue(csr, who.id, 0, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		h, err := pki.NewHolder(who.ca.CertDER(), cert, key)
		if err != nil {
			t.Fatal(err)
		}
		if name == "itself" {
			h = c.TLS()
		}
		s := &streams{holder: h, dial: c.cfg.Dial, admit: func(pki.Identity, []byte) error { return nil }, conns: map[*peerConn]struct{}{}}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		conn, err := s.dialPeer(ctx, "p1", address, protoRaft)
		if err == nil {
			// In TLS 1.3 a refusal comes after the client's handshake; a server
			// that admits us waits for us to speak.
			conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			_, err = conn.Read(make([]byte, 1))
			var timeout interface{ Timeout() bool }
			if errors.As(err, &timeout) && timeout.Timeout() {
				err = nil
			}
			conn.Close()
		}
		cancel()
		if (err == nil) != who.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	stop()
	if err := <-result; err != nil {
		t.Error(err)
	}
	if _, err := c.Propose(context.Background(), &api.Command{Meta: &api.Meta{Reason: "test"}}); !errors.Is(err, errs.NoQuorum) {
		t.Errorf("propose after the end: %v", err)
	}
}

func TestManyReadersShareARound(t *testing.T) {
	c := alone(t, nil)
	stop, result := running(t, c)
	v := newVerifier(c.raft.Load())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	answers := make([]chan error, 200) // that wait before the first round
	for i := range answers {
		answers[i] = make(chan error, 1)
		v.queue <- answers[i]
	}
	var wg sync.WaitGroup
	wg.Go(func() { v.run(ctx) })
	for _, a := range answers {
		if err := <-a; err != nil {
			t.Error(err)
		}
	}
	if n := v.count.Load(); n != 1 {
		t.Errorf("200 readers took %d rounds", n)
	}
	cancel()
	wg.Wait()
	if _, err := c.ReadIndex(context.Background()); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestPackEntry(t *testing.T) {
	a := &api.Command{Meta: &api.Meta{Principal: "a"}, Ops: []*api.Op{{Op: &api.Op_Tick{Tick: &api.Tick{Ms: 1}}}}}
	b := &api.Command{Ops: []*api.Op{
		{Op: &api.Op_Tick{Tick: &api.Tick{}}},
		{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{Id: "n"}}}},
	}}
	rawA, _ := proto.Marshal(a)
	rawB, _ := proto.Marshal(b)
	var e api.Entry
	if err := proto.Unmarshal(packEntry([][]byte{rawA, rawB}), &e); err != nil {
		t.Fatal(err)
	}
	if len(e.GetCommands()) != 2 || !proto.Equal(e.GetCommands()[0], a) || !proto.Equal(e.GetCommands()[1], b) {
		t.Errorf("packed %v", &e)
	}
}

// Owners are written into marshalled commands: exactly those of new nodes,
// whatever else the command has, and over what its sender claimed.
func TestWithOwners(t *testing.T) {
	create := func(id, owner string) *api.Op {
		return &api.Op{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{Id: id, Name: "n" + id, Driver: "fake", Assigned: owner, ConductorGroup: "g"}}}}
	}
	port := &api.Op{Op: &api.Op_PortCreate{PortCreate: &api.PortCreate{Port: &api.Port{Id: "p", NodeId: "1", Address: "52:54:00:00:00:01"}}}}
	cmd := &api.Command{Meta: &api.Meta{Principal: "a", Source: "b", Reason: "c", WallMs: 1}, Ops: []*api.Op{create("1", ""), port, create("2", "liar"), create("3", "liar")}}
	raw, err := proto.Marshal(cmd)
	if err != nil {
		t.Fatal(err)
	}
	if nodes := newNodes(cmd); len(nodes) != 3 || nodes[1].ID != "2" || nodes[0].Group != "g" || nodes[0].Driver != "fake" {
		t.Errorf("new nodes %v", nodes)
	}
	owners := []string{"p1", strings.Repeat("o", 64), ""}
	placed := withOwners(raw, owners)
	if len(placed) > len(raw)+ownerRoom {
		t.Errorf("%d bytes became %d", len(raw), len(placed))
	}
	e, err := fsm.Decode(packEntry([][]byte{placed}))
	if err != nil {
		t.Fatal(err)
	}
	want := proto.CloneOf(cmd)
	for i, op := range []int{0, 2, 3} {
		want.Ops[op].GetNodeCreate().Node.Assigned = owners[i]
	}
	if !proto.Equal(e.GetCommands()[0], want) {
		t.Errorf("%v\nshould be\n%v", e.GetCommands()[0], want)
	}
	if again := withOwners(raw, nil); !bytes.Equal(again, raw) {
		t.Error("a command without new nodes was changed")
	}
	if got := withOwners([]byte("rubbish"), owners); string(got) != "rubbish" {
		t.Errorf("rubbish became %q", got)
	}
}

func TestCollectRespectsBounds(t *testing.T) {
	c := newCommitter(nil, nil, nil)
	p := func(size int) *proposal {
		return &proposal{command: command{raw: make([]byte, size)}, done: make(chan outcome, 1)}
	}
	for range 600 {
		c.queue <- p(10)
	}
	batch, next := c.collect(<-c.queue)
	if len(batch) != maxPacked || next != nil {
		t.Errorf("%d small commands, next %v", len(batch), next)
	}
	c = newCommitter(nil, nil, nil)
	for range 4 {
		c.queue <- p(200 << 10)
	}
	batch, next = c.collect(<-c.queue)
	if len(batch) != 2 || next == nil {
		t.Errorf("%d large commands, next %v", len(batch), next)
	}
	gone := p(10)
	gone.state.Store(dropped)
	if batch, _ = newCommitter(nil, nil, nil).collect(gone); len(batch) != 0 {
		t.Error("a dropped proposal was taken")
	}
}

func FuzzParseToken(f *testing.F) {
	good, err := joinToken{ID: "a", Secret: make([]byte, 32), CADigest: strings.Repeat("0", 64), ClusterID: "c", Addresses: []string{"x:1"}}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add("ir1.")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := parseToken(s)
		if err != nil {
			if !errors.Is(err, errs.Invalid) {
				t.Errorf("kind %v", errs.KindOf(err))
			}
			return
		}
		again, err := tok.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseToken(again); err != nil {
			t.Error(err)
		}
	})
}

// later is a clock whose wall time is ahead.
type later struct {
	clock.System
	by time.Duration
}

func (l later) Now() time.Time { return time.Now().Add(l.by) }

func TestCertificateIsRenewedAtHalfOfItsLife(t *testing.T) {
	c := alone(t, nil)
	first := c.TLS().Leaf().SerialNumber
	dir := c.cfg.DataDir
	c.Close()
	for _, s := range []struct {
		days    int
		renewed bool
	}{{100, false}, {200, true}} {
		c, err := Open(context.Background(), Config{DataDir: dir, Clock: later{by: time.Duration(s.days) * 24 * time.Hour}})
		if err != nil {
			t.Fatal(err)
		}
		if is := c.TLS().Leaf().SerialNumber.Cmp(first) != 0; is != s.renewed {
			t.Errorf("after %d days: renewed %v", s.days, is)
		}
		c.Close()
	}
}
