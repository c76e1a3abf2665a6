package client

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client/clienttest"
	"github.com/ironring/ironring/internal/errs"
)

// advance is a script step that puts a flow at a step.
func advance(cursor uint32, s api.State) clienttest.Step {
	return func(n *api.Node, f *api.Flow) *api.Progress {
		n.State, f.Cursor, f.Started = s, cursor, true
		return nil
	}
}

func percent(p float64) clienttest.Step {
	return func(*api.Node, *api.Flow) *api.Progress { return &api.Progress{Step: "write_image", Percent: p} }
}

// end is a script step that ends a flow.
func end(s api.State, status api.FlowStatus, text string) clienttest.Step {
	return func(n *api.Node, f *api.Flow) *api.Progress {
		n.State, n.LastError, f.Status, f.Error = s, text, status, text
		return nil
	}
}

// deploying gives a cluster with one node whose deployment was asked for.
func deploying(t *testing.T, ids ...string) (*clienttest.Cluster, []testPeer, *Client, *api.FlowReply) {
	fake := clienttest.New()
	peers := startPeers(t, fake, ids...)
	c := newClient(t, peers)
	createNode(t, c, "n1")
	fake.Change("n1", func(n *api.Node, _ *api.Flow) { n.State = api.State_AVAILABLE })
	flow, err := c.Provision(testContext(t), &api.ProvisionRequest{Node: "n1", Verb: api.Event_EV_DEPLOY})
	if err != nil {
		t.Fatal(err)
	}
	return fake, peers, c, flow
}

func TestWaitForState(t *testing.T) {
	fake, _, c, flow := deploying(t, "p1")
	fake.Script("n1", advance(1, api.State_DEPLOY_WAIT), percent(10), percent(60), end(api.State_ACTIVE, api.FlowStatus_FLOW_DONE, ""))
	var seen []float64
	ev, err := c.Wait(testContext(t), "n1", Until{State: api.State_ACTIVE, After: flow.GetIndex()}, func(ev *api.NodeEvent) {
		if ev.GetNode() == nil || ev.GetFlow() == nil {
			t.Errorf("event without node or flow: %v", ev)
		}
		if ev.GetProgress() != nil {
			seen = append(seen, ev.GetProgress().GetPercent())
		}
	})
	if err != nil || ev.GetNode().GetState() != api.State_ACTIVE {
		t.Fatalf("%v, %v", ev, err)
	}
	if len(seen) != 2 || seen[1] != 60 {
		t.Errorf("progress %v", seen)
	}
}

func TestWaitFails(t *testing.T) {
	fake, _, c, flow := deploying(t, "p1")
	fake.Script("n1", end(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED, "image not found"))
	_, err := c.Wait(testContext(t), "n1", Until{State: api.State_ACTIVE, After: flow.GetIndex()}, nil)
	var failed *WorkFailed
	if !errors.As(err, &failed) || !errors.Is(err, WrongState) || failed.Flow.GetId() != flow.GetFlow().GetId() {
		t.Fatalf("got %v", err)
	}
	if err.Error() != "node n1 is in state deploy failed: image not found" {
		t.Errorf("got %q", err)
	}
}

func TestWaitForFlow(t *testing.T) {
	fake := clienttest.New()
	c := newClient(t, startPeers(t, fake, "p1"))
	createNode(t, c, "n1")
	flow, err := c.Power(testContext(t), &api.PowerRequest{Node: "n1", Action: api.PowerAction_POWER_ACTION_ON})
	if err != nil {
		t.Fatal(err)
	}
	until := Until{Flow: flow.GetFlow().GetId(), After: flow.GetIndex()}
	fake.Script("n1", end(api.State_ENROLL, api.FlowStatus_FLOW_DONE, ""))
	if _, err := c.Wait(testContext(t), "n1", until, nil); err != nil {
		t.Error(err)
	}
	fake.Change("n1", func(_ *api.Node, f *api.Flow) { f.Id, f.Status = "later", api.FlowStatus_FLOW_RUNNING })
	var failed *WorkFailed
	if _, err := c.Wait(testContext(t), "n1", until, nil); !errors.As(err, &failed) {
		t.Errorf("a flow that was followed by another: %v", err)
	}
}

func TestWaitOnDeletedNodeAndNothing(t *testing.T) {
	_, _, c, flow := deploying(t, "p1")
	deleted := false
	_, err := c.Wait(testContext(t), "n1", Until{State: api.State_ACTIVE, After: flow.GetIndex()}, func(*api.NodeEvent) {
		if !deleted {
			deleted = true
			if _, err := c.DeleteNode(testContext(t), &api.DeleteNodeRequest{Node: "n1"}); err != nil {
				t.Error(err)
			}
		}
	})
	if !errors.Is(err, NotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Wait(testContext(t), "n1", Until{}, nil); !errors.Is(err, Invalid) {
		t.Errorf("got %v", err)
	}
}

// The peer that the watch is at dies in the middle: the wait goes on at the
// next and misses nothing.
func TestWaitSurvivesDeathOfPeer(t *testing.T) {
	fake, peers, c, flow := deploying(t, "p1", "p2")
	killed := false
	ev, err := c.Wait(testContext(t), "n1", Until{State: api.State_ACTIVE, After: flow.GetIndex()}, func(*api.NodeEvent) {
		if !killed {
			killed = true
			peers[0].kill()
			fake.Script("n1", advance(1, api.State_DEPLOY_WAIT), end(api.State_ACTIVE, api.FlowStatus_FLOW_DONE, ""))
		}
	})
	if err != nil || ev.GetNode().GetState() != api.State_ACTIVE {
		t.Fatalf("%v, %v", ev, err)
	}
	if c.Address() != peers[1].address {
		t.Errorf("ended at %s", c.Address())
	}
}

// A peer that lives but is cut off from the cluster sees no changes: the wait
// must not stay with it.
func TestWaitLeavesPeerThatIsCutOff(t *testing.T) {
	fake, peers, c, flow := deploying(t, "p1", "p2")
	peers[0].CutOff()
	fake.Script("n1", end(api.State_ACTIVE, api.FlowStatus_FLOW_DONE, ""))
	if _, err := c.Wait(testContext(t), "n1", Until{State: api.State_ACTIVE, After: flow.GetIndex()}, nil); err != nil {
		t.Fatal(err)
	}
	if c.Address() != peers[1].address {
		t.Errorf("ended at %s", c.Address())
	}
}

func TestWatchResumesFromIndex(t *testing.T) {
	fake, peers, c, _ := deploying(t, "p1", "p2")
	var indexes []uint64
	stop := errors.New("enough")
	err := c.Watch(testContext(t), "n1", 0, func(ev *api.NodeEvent) error {
		indexes = append(indexes, ev.GetIndex())
		switch len(indexes) {
		case 1:
			peers[0].kill()
			fake.Script("n1", advance(1, api.State_DEPLOY_WAIT))
		case 2:
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) {
		t.Fatalf("got %v", err)
	}
	if len(indexes) != 2 || indexes[1] <= indexes[0] {
		t.Errorf("indexes %v: the first state came again", indexes)
	}
}

func TestWatchGivesUpBeforeTheFirstEvent(t *testing.T) {
	peers := startPeers(t, clienttest.New(), "p1", "p2")
	c := newClient(t, peers)
	if err := c.Watch(testContext(t), "none", 0, nil); !errors.Is(err, NotFound) {
		t.Errorf("got %v", err)
	}
	peers[0].kill()
	peers[1].kill()
	if err := c.Watch(testContext(t), "n1", 0, nil); !errors.Is(err, Unreachable) || !strings.Contains(err.Error(), "none of 2 peers") {
		t.Errorf("got %v", err)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	_, peers, c, _ := deploying(t, "p1")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := c.Watch(ctx, "n1", 0, func(*api.NodeEvent) error {
		peers[0].Before(func(context.Context, string, any) error {
			cancel() // nobody answers any more, and then the caller goes away
			return errs.New(errs.NoQuorum, "stopping")
		})
		peers[0].kill()
		c.pause = func(context.Context, time.Duration) error { cancel(); return ctx.Err() }
		return nil
	})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, Timeout) {
		t.Errorf("got %v", err)
	}
}

func TestJournalFollowsWithoutRepeating(t *testing.T) {
	fake := clienttest.New()
	peers := startPeers(t, fake, "p1", "p2")
	c := newClient(t, peers)
	createNode(t, c, "n1")
	event := func(seq uint64) {
		fake.Log(&api.JournalEvent{Peer: "p9", Seq: seq, AtMs: int64(1000 + seq), Kind: "log", Text: "line"})
	}
	event(1)
	event(2)
	stop := errors.New("enough")
	var seqs []uint64
	err := c.Journal(testContext(t), &api.JournalRequest{Node: "n1", Follow: true}, func(ev *api.JournalEvent) error {
		seqs = append(seqs, ev.GetSeq())
		switch ev.GetSeq() {
		case 2:
			peers[0].kill()
			event(3)
		case 3:
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || len(seqs) != 3 {
		t.Errorf("events %v, %v", seqs, err)
	}
	seqs = nil
	if err := c.Journal(testContext(t), &api.JournalRequest{Node: "n1"}, func(ev *api.JournalEvent) error {
		seqs = append(seqs, ev.GetSeq())
		return nil
	}); err != nil || len(seqs) != 3 {
		t.Errorf("events %v, %v", seqs, err)
	}
}

func TestRecentIsBounded(t *testing.T) {
	r := newRecent(2)
	for i := range uint64(5) {
		if r.add(eventID{"p", i}) {
			t.Errorf("%d was not known", i)
		}
	}
	if !r.add(eventID{"p", 4}) || r.add(eventID{"p", 0}) || len(r.known) != 2 {
		t.Errorf("knows %v", r.known)
	}
}
