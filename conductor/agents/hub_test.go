package agents_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/agents"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/conductor/journal"
	"github.com/ironring/ironring/internal/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	node  = "00000000-0000-4000-8000-000000000001"
	nonce = "0123456789abcdef0123456789abcdef"
)

func newJournal(t *testing.T) *journal.Journal {
	t.Helper()
	j, err := journal.New(journal.Config{Dir: t.TempDir(), Peer: "p1", Clock: conductortest.NewClock(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func newHub(t *testing.T) (*agents.Hub, *journal.Journal) {
	j := newJournal(t)
	return agents.NewHub(j, func() []string { return []string{"p1:1"} }, conductortest.NewClock(), slog.New(slog.DiscardHandler)), j
}

// agent is one stream of an agent to a hub.
type agent struct {
	up     chan *api.AgentUp
	down   chan *api.AgentDown
	ended  chan error
	cancel context.CancelFunc
}

func attach(t *testing.T, h *agents.Hub, nonce string) *agent {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	a := &agent{up: make(chan *api.AgentUp), down: make(chan *api.AgentDown, 100), ended: make(chan error, 1), cancel: cancel}
	go func() {
		a.ended <- h.Attach(ctx, &api.AgentHello{NodeId: node, Nonce: nonce}, "p2", a.up, func(m *api.AgentDown) error {
			a.down <- m
			return nil
		})
	}()
	synctest.Wait()
	return a
}

func (a *agent) status(st *api.CommandStatus) {
	a.up <- &api.AgentUp{Msg: &api.AgentUp_Status{Status: st}}
}

// commands drains what came down and gives the commands in it; each must come
// behind a hello with the same token.
func (a *agent) commands(t *testing.T) (out []*api.AgentCommand) {
	t.Helper()
	synctest.Wait()
	var token uint64
	for {
		select {
		case m := <-a.down:
			if h := m.GetHello(); h != nil {
				token = h.GetToken()
			}
			if c := m.GetCommand(); c != nil {
				if c.GetToken() != token {
					t.Errorf("command under token %d after a hello with %d", c.GetToken(), token)
				}
				out = append(out, c)
			}
		default:
			return out
		}
	}
}

type answer struct {
	result []byte
	err    error
}

func run(ctx context.Context, h *agents.Hub, change func(*agents.Call)) chan answer {
	c := agents.Call{Node: node, Nonce: nonce, Token: 5, CmdID: "c1", Name: "inventory", Args: []byte("{}")}
	if change != nil {
		change(&c)
	}
	out := make(chan answer, 1)
	go func() {
		result, err := h.Run(ctx, c)
		out <- answer{result, err}
	}()
	return out
}

func done(id string) *api.CommandStatus {
	return &api.CommandStatus{CmdId: id, State: api.CommandStatus_DONE, Result: []byte(`{"ok":true}`)}
}

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, j := newHub(t)
		var heard []float64
		got := run(t.Context(), h, func(c *agents.Call) {
			c.OnStatus = func(st *api.CommandStatus) {
				heard = append(heard, st.GetPercent())
				j.Update(node, func(f *api.LiveFacts) { f.Progress.Step = "deploy.write_image" })
			}
		})
		synctest.Wait() // waits for the agent
		a := attach(t, h, nonce)
		defer a.cancel()
		if cmds := a.commands(t); len(cmds) != 1 || cmds[0].GetCmdId() != "c1" {
			t.Fatalf("the agent got %v", cmds)
		}
		a.status(&api.CommandStatus{CmdId: "another", State: api.CommandStatus_DONE})
		a.status(&api.CommandStatus{CmdId: "c1", Percent: 40})
		synctest.Wait()
		if p := j.Facts(node).GetProgress(); p.GetPercent() != 40 || j.Facts(node).GetAgentPeer() != "p2" {
			t.Errorf("facts %v", j.Facts(node))
		}
		a.status(done("c1"))
		if r := <-got; r.err != nil || string(r.result) != `{"ok":true}` {
			t.Errorf("%s, %v", r.result, r.err)
		}
		if p := j.Facts(node).GetProgress(); p.GetStep() != "deploy.write_image" {
			t.Errorf("the last progress does not say of which step: %v", p)
		}
		if len(heard) != 1 || heard[0] != 40 {
			t.Errorf("heard %v", heard)
		}
	})
}

// The command goes on over lost streams, under the same cmdID.
func TestRunSurvivesStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(t)
		got := run(t.Context(), h, nil)
		for range 3 {
			a := attach(t, h, nonce)
			if cmds := a.commands(t); len(cmds) != 1 || cmds[0].GetCmdId() != "c1" {
				t.Fatalf("the agent got %v", cmds)
			}
			close(a.up) // the stream ends
			if err := <-a.ended; err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		a := attach(t, h, nonce)
		defer a.cancel()
		a.status(done("c1"))
		if r := <-got; r.err != nil {
			t.Error(r.err)
		}
	})
}

// A newer stream takes the place of one that still seems to live, also while
// the older one's sender hangs in a dead connection.
func TestReplacedStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(t)
		stuck := make(chan struct{})
		hung := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			hung <- h.Attach(ctx, &api.AgentHello{NodeId: node, Nonce: nonce}, "p1", make(chan *api.AgentUp), func(*api.AgentDown) error {
				<-stuck
				return errors.New("broken")
			})
		}()
		synctest.Wait()
		got := run(t.Context(), h, nil)
		synctest.Wait()
		a := attach(t, h, nonce)
		defer a.cancel()
		if cmds := a.commands(t); len(cmds) != 1 {
			t.Fatalf("the command did not move to the new stream: %v", cmds)
		}
		a.status(done("c1"))
		if r := <-got; r.err != nil {
			t.Error(r.err)
		}
		close(stuck)
		if err := <-hung; !errors.Is(err, errs.Conflict) {
			t.Errorf("the old stream ended with %v", err)
		}
		// The end of the old one does not take the new one away.
		if err := h.Wait(t.Context(), node, nonce); err != nil {
			t.Error(err)
		}
	})
}

// A command without a status is sent again: a relay may have lost it.
func TestResend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(t)
		got := run(t.Context(), h, nil)
		a := attach(t, h, nonce)
		defer a.cancel()
		conductortest.Pass(10 * time.Second)
		if n := len(a.commands(t)); n != 4 {
			t.Errorf("sent %d times in 10 s", n)
		}
		for range 10 {
			a.status(&api.CommandStatus{CmdId: "c1"})
			conductortest.Pass(time.Second)
		}
		if n := len(a.commands(t)); n > 1 {
			t.Errorf("sent %d times although its status came", n)
		}
		a.status(done("c1"))
		<-got
	})
}

func TestRunFails(t *testing.T) {
	for _, test := range []struct {
		name   string
		status *api.CommandStatus
		kind   errs.Kind
		failed bool // by the command itself
	}{
		{"failed", &api.CommandStatus{State: api.CommandStatus_FAILED, Error: "404", ErrorKind: "not_found"}, errs.NotFound, true},
		{"image server away", &api.CommandStatus{State: api.CommandStatus_FAILED, ErrorKind: "unreachable"}, errs.Unreachable, true},
		{"cancelled", &api.CommandStatus{State: api.CommandStatus_CANCELLED}, errs.Internal, true},
		{"old token", &api.CommandStatus{State: api.CommandStatus_REFUSED, ErrorKind: "fenced"}, errs.Fenced, false},
		{"old token, old agent", &api.CommandStatus{State: api.CommandStatus_REFUSED}, errs.Fenced, false},
		{"ending", &api.CommandStatus{State: api.CommandStatus_REFUSED, ErrorKind: "busy"}, errs.Busy, false},
		{"cannot note it", &api.CommandStatus{State: api.CommandStatus_REFUSED, ErrorKind: "internal"}, errs.Internal, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, _ := newHub(t)
				got := run(t.Context(), h, nil)
				a := attach(t, h, nonce)
				defer a.cancel()
				test.status.CmdId = "c1"
				a.status(test.status)
				r := <-got
				if errs.KindOf(r.err) != test.kind || errors.Is(r.err, agents.ErrFailed) != test.failed || r.result != nil {
					t.Errorf("%v: %v", errs.KindOf(r.err), r.err)
				}
			})
		})
	}
}

// No message goes out once the holder's grant is over.
func TestCheckBeforeEachMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(t)
		var mu sync.Mutex
		var over error
		got := run(t.Context(), h, func(c *agents.Call) {
			c.Check = func() error { mu.Lock(); defer mu.Unlock(); return over }
		})
		a := attach(t, h, nonce)
		defer a.cancel()
		if len(a.commands(t)) != 1 {
			t.Fatal("not sent")
		}
		mu.Lock()
		over = errs.New(errs.Fenced, "gate closed")
		mu.Unlock()
		if r := <-got; !errors.Is(r.err, errs.Fenced) {
			t.Errorf("%v", r.err)
		}
		if n := len(a.commands(t)); n != 0 {
			t.Errorf("%d messages after the grant's end", n)
		}
	})
}

// The end of the context is always an error, wherever it is noticed.
func TestRunEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(t)
		why := errors.New("why")
		for _, connected := range []bool{false, true} {
			ctx, cancel := context.WithCancelCause(t.Context())
			got := run(ctx, h, nil)
			if connected {
				a := attach(t, h, nonce)
				defer a.cancel()
			}
			synctest.Wait()
			cancel(why)
			if r := <-got; !errors.Is(r.err, why) {
				t.Errorf("connected %v: %v", connected, r.err)
			}
		}
		// With a full queue to an agent that does not read.
		block := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- h.Attach(ctx, &api.AgentHello{NodeId: node, Nonce: nonce}, "p1", make(chan *api.AgentUp), func(*api.AgentDown) error { <-block; return nil })
		}()
		synctest.Wait()
		rctx, rcancel := context.WithCancelCause(t.Context())
		got := run(rctx, h, nil)
		conductortest.Pass(time.Minute) // resends until the queue is full
		rcancel(why)
		if r := <-got; !errors.Is(r.err, why) {
			t.Errorf("%v", r.err)
		}
		close(block)
		cancel()
		<-ended
	})
}

// An agent of another boot is not the one that is waited for.
func TestWaitForBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(t)
		old := attach(t, h, "ffffffffffffffffffffffffffffffff")
		defer old.cancel()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := h.Wait(ctx, node, nonce); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		a := attach(t, h, nonce)
		defer a.cancel()
		if err := h.Wait(t.Context(), node, nonce); err != nil {
			t.Error(err)
		}
	})
}

func TestLogsReachJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, j := newHub(t)
		events, stop := j.Follow(node)
		defer stop()
		a := attach(t, h, nonce)
		defer a.cancel()
		a.up <- &api.AgentUp{Msg: &api.AgentUp_Log{Log: &api.AgentLog{Text: "hello", CmdId: "c1", AtMs: 5}}}
		if ev := <-events; ev.GetText() != "hello" || ev.GetBootNonce() != nonce || ev.GetKind() != journal.KindLog {
			t.Errorf("%v", ev)
		}
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := newHub(t)
		if _, err := h.Cancel(t.Context(), node, nonce, 5, "c1"); !errors.Is(err, errs.Unreachable) {
			t.Errorf("with no agent there: %v", err)
		}
		a := attach(t, h, nonce)
		defer a.cancel()
		for _, c := range []struct {
			state api.CommandStatus_State
			want  errs.Kind
		}{
			{api.CommandStatus_CANCELLED, -1},
			{api.CommandStatus_DONE, -1},
			{api.CommandStatus_UNKNOWN, -1},
			{api.CommandStatus_REFUSED, errs.Fenced},
		} {
			ended := make(chan error, 1)
			go func() {
				state, err := h.Cancel(t.Context(), node, nonce, 5, "c1")
				if err == nil && state != c.state {
					t.Errorf("%v is told as %v", c.state, state)
				}
				ended <- err
			}()
			if m := <-a.down; m.GetHello().GetToken() != 5 {
				t.Errorf("first %v, not a hello", m)
			}
			if m := <-a.down; m.GetCancel().GetCmdId() != "c1" || m.GetCancel().GetToken() != 5 {
				t.Errorf("%v", m)
			}
			a.up <- &api.AgentUp{Msg: &api.AgentUp_Status{Status: &api.CommandStatus{CmdId: "c1", State: api.CommandStatus_RUNNING}}}
			a.up <- &api.AgentUp{Msg: &api.AgentUp_Status{Status: &api.CommandStatus{CmdId: "c1", State: c.state}}}
			if err := <-ended; c.want < 0 && err != nil || c.want >= 0 && !errors.Is(err, c.want) {
				t.Errorf("%v: %v", c.state, err)
			}
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		go func() { <-a.down; <-a.down }()
		if _, err := h.Cancel(ctx, node, nonce, 5, "c1"); !errors.Is(err, errs.Timeout) {
			t.Errorf("with a silent agent: %v", err)
		}
	})
}
