package service_test

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/conductor/journal"
	"github.com/ironring/ironring/conductor/service"
	"github.com/ironring/ironring/conductor/watch"
)

// journalOf is a peer that has seen one event, and one more each time it is
// asked for what follows.
type journalOf struct {
	api.UnimplementedConductorServer
	node string

	mu  sync.Mutex
	seq uint64 // guarded by mu
}

func (j *journalOf) LocalJournal(req *api.JournalRequest, stream grpc.ServerStreamingServer[api.JournalEvent]) error {
	j.mu.Lock()
	if req.GetFollow() {
		j.seq++
	}
	last := j.seq
	j.mu.Unlock()
	for seq := range last {
		if err := stream.Send(&api.JournalEvent{NodeId: j.node, Peer: "p2", Seq: seq + 1, AtMs: int64(seq + 1), Text: "x"}); err != nil {
			return err
		}
	}
	return nil // the stream ends: it must be asked again, and sends all again
}

// A follower hears of a peer that was not there when it began, and again after
// that peer's stream has ended, of each event once.
func TestFollowPicksUpPeers(t *testing.T) {
	c := conductortest.New(t, "p1", "p2")
	c.Peer("p2").Kill() // not alive
	n := &api.Node{Id: "00000000-0000-4000-8000-000000000001", Name: "n1", Driver: "fake", DriverInfo: []byte("{}")}
	c.Must(&api.Op{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: n}}})
	listener := bufconn.Listen(1 << 16)
	srv := grpc.NewServer()
	api.RegisterConductorServer(srv, &journalOf{node: n.GetId(), seq: 1})
	var all sync.WaitGroup
	all.Go(func() { _ = srv.Serve(listener) })
	conn, err := grpc.NewClient("passthrough:///p2", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(conductortest.OverSocket(context.Background()), time.Minute)
	t.Cleanup(func() { cancel(); conn.Close(); srv.Stop(); all.Wait() })
	c.Peer("p1").Conn = func(string) (*grpc.ClientConn, error) { return conn, nil }
	log := slog.New(slog.DiscardHandler)
	j, err := journal.New(journal.Config{Dir: t.TempDir(), Peer: "p1", Clock: c.Clock, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	all.Go(func() { _ = j.Run(ctx) })
	svc := service.New(service.Config{Cluster: c.Peer("p1"), Journal: j, Watch: watch.New(c.Store, 0), Clock: c.Clock, Logger: log})
	s := stream[api.JournalEvent]{ctx: ctx, out: make(chan *api.JournalEvent)}
	ended := make(chan error, 1)
	go func() { ended <- svc.Journal(&api.JournalRequest{Node: "n1", Follow: true}, s) }()
	select {
	case ev := <-s.out:
		t.Errorf("an event of a dead peer: %v", ev)
	case <-time.After(100 * time.Millisecond):
	}
	c.Peer("p2").Revive()
	for want := uint64(1); want <= 3; want++ {
		select {
		case ev := <-s.out:
			if ev.GetPeer() != "p2" || ev.GetSeq() != want {
				t.Errorf("event %d of %s, want %d", ev.GetSeq(), ev.GetPeer(), want)
			}
		case <-ctx.Done():
			t.Fatal("the peer was not picked up")
		}
	}
	cancel()
	<-ended
}
