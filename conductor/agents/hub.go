package agents

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/journal"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal"
)

// resendEvery is how often a command is sent again while its status is not
// known: a relay may have lost it.
const resendEvery = 3 * time.Second

// Hub knows the agents whose streams reach this peer as holder or owner.
type Hub struct {
	journal *journal.Journal
	peers   func() []string // agent addresses of all peers
	clock   clock.Clock
	logger  *slog.Logger

	mu       sync.Mutex
	sessions map[string]*session      // guarded by mu; by node
	waiting  map[string]chan struct{} // guarded by mu; closed at the next stream of a node
	secrets  map[string][]string      // guarded by mu; by node, of its last command that had some
}

// NewHub makes a Hub.
func NewHub(j *journal.Journal, peers func() []string, c clock.Clock, logger *slog.Logger) *Hub {
	return &Hub{journal: j, peers: peers, clock: c, logger: logger, sessions: map[string]*session{}, waiting: map[string]chan struct{}{}, secrets: map[string][]string{}}
}

// session is one stream of one agent.
type session struct {
	node, nonce string
	incarnation string // of the agent: its memory of commands
	out         chan *api.AgentDown
	done        chan struct{} // closed when the stream has ended
	replaced    chan struct{} // closed when a newer stream took its place

	mu       sync.Mutex
	listener map[string]chan *api.CommandStatus // guarded by mu; by cmdID
}

// Attach serves one stream until it ends, ctx ends or a newer stream of the
// same node replaces it. peer is the member at which the stream ends.
func (h *Hub) Attach(ctx context.Context, hello *api.AgentHello, peer string, up <-chan *api.AgentUp, send func(*api.AgentDown) error) error {
	s := &session{
		node: hello.GetNodeId(), nonce: hello.GetNonce(), incarnation: hello.GetIncarnation(),
		out: make(chan *api.AgentDown, 16), done: make(chan struct{}), replaced: make(chan struct{}), listener: map[string]chan *api.CommandStatus{},
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h.enter(s, peer)
	defer h.leave(s)
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel()
	sendErr := make(chan error, 1)
	sending.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case m := <-s.out:
				if err := send(m); err != nil {
					sendErr <- err
					return
				}
			}
		}
	})
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.replaced:
			return errs.New(errs.Conflict, "a newer stream of the same agent has come")
		case err := <-sendErr:
			return err
		case m, ok := <-up:
			if !ok {
				return nil
			}
			h.receive(s, m)
		}
	}
}

// enter makes s the node's session.
func (h *Hub) enter(s *session, peer string) {
	h.mu.Lock()
	if old := h.sessions[s.node]; old != nil {
		close(old.replaced)
	}
	h.sessions[s.node] = s
	if ch := h.waiting[s.node]; ch != nil {
		close(ch)
		delete(h.waiting, s.node)
	}
	// With mu held, so that facts and table change in the same order.
	h.journal.Update(s.node, func(f *api.LiveFacts) {
		f.AgentPeer, f.AgentContactMs = peer, h.clock.Now().UnixMilli()
	})
	h.mu.Unlock()
	h.journal.Reached(s.node, s.nonce, "agent")
}

// leave ends s. It is taken from the table first, so that nobody who hears of
// its end finds it there again.
func (h *Hub) leave(s *session) {
	h.mu.Lock()
	if h.sessions[s.node] == s {
		delete(h.sessions, s.node)
		h.journal.Update(s.node, func(f *api.LiveFacts) { f.AgentPeer = "" })
	}
	h.mu.Unlock()
	close(s.done)
}

func (h *Hub) receive(s *session, m *api.AgentUp) {
	now := h.clock.Now().UnixMilli()
	switch msg := m.GetMsg().(type) {
	case *api.AgentUp_Hello:
		for _, st := range msg.Hello.GetCommands() {
			s.deliver(st)
		}
	case *api.AgentUp_Status:
		st := msg.Status
		message := h.scrub(s.node, st.GetMessage())
		// Before it is delivered: who takes it adds the step, which stays for
		// the statuses of the same command that follow.
		h.journal.Update(s.node, func(f *api.LiveFacts) {
			f.AgentContactMs = now
			was := f.GetProgress()
			f.Progress = &api.Progress{
				CmdId: st.GetCmdId(), Percent: st.GetPercent(), DoneBytes: st.GetDoneBytes(),
				TotalBytes: st.GetTotalBytes(), Message: message, AtMs: now,
			}
			if was.GetCmdId() == st.GetCmdId() {
				f.Progress.Step = was.GetStep()
			}
		})
		s.deliver(st)
		return
	case *api.AgentUp_Log:
		h.journal.Append(&api.JournalEvent{
			NodeId: s.node, AtMs: msg.Log.GetAtMs(), Kind: journal.KindLog,
			Text: h.scrub(s.node, msg.Log.GetText()), CmdId: msg.Log.GetCmdId(), BootNonce: s.nonce,
		})
	}
	h.journal.Update(s.node, func(f *api.LiveFacts) { f.AgentContactMs = now })
}

// scrub takes the secrets of a node's command out of a text of its agent.
func (h *Hub) scrub(node, text string) string {
	h.mu.Lock()
	secrets := h.secrets[node]
	h.mu.Unlock()
	for _, s := range secrets {
		text = strings.ReplaceAll(text, s, seal.Mask)
	}
	return text
}

// deliver hands a status to whoever waits for it; a status nobody takes in
// time is replaced by the next, the last one always stays.
func (s *session) deliver(st *api.CommandStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := s.listener[st.GetCmdId()]
	if ch == nil {
		return
	}
	for {
		select {
		case ch <- st:
			return
		default:
		}
		select {
		case <-ch:
		default:
		}
	}
}

func (s *session) listen(cmdID string) (<-chan *api.CommandStatus, func()) {
	ch := make(chan *api.CommandStatus, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listener[cmdID] = ch
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.listener[cmdID] == ch {
			delete(s.listener, cmdID)
		}
	}
}

// push queues messages; false when the session or ctx has ended.
func (s *session) push(ctx context.Context, msgs ...*api.AgentDown) bool {
	for _, m := range msgs {
		select {
		case s.out <- m:
		case <-s.done:
			return false
		case <-s.replaced:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// Wait blocks until the agent of the given boot has a stream here.
func (h *Hub) Wait(ctx context.Context, node, nonce string) error {
	_, err := h.wait(ctx, node, nonce)
	return err
}

func (h *Hub) wait(ctx context.Context, node, nonce string) (*session, error) {
	for {
		h.mu.Lock()
		s := h.sessions[node]
		if s != nil && s.nonce == nonce {
			h.mu.Unlock()
			return s, nil
		}
		ch := h.waiting[node]
		if ch == nil {
			ch = make(chan struct{})
			h.waiting[node] = ch
		}
		h.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-ch:
		}
	}
}

// Call is one command to an agent.
type Call struct {
	Node, Nonce string
	Token       uint64
	CmdID, Name string
	// Incarnation is that of the agent that was first asked for the command.
	// Another one has no memory of it: ErrReborn. "": not known.
	Incarnation string
	Args        []byte
	// Secrets are texts that what the agent says of its work must not show.
	Secrets []string
	// Check is asked before each message: the deadline check of the gate.
	Check func() error
	// OnStatus hears of each RUNNING status.
	OnStatus func(*api.CommandStatus)
}

// Run has the agent carry out a command and gives its result. It survives the
// loss of streams: when the agent comes back, to this or another peer, the
// command is sent again under the same cmdID, which starts nothing twice. It
// ends when the command has ended, ctx has ended or the check fails.
func (h *Hub) Run(ctx context.Context, c Call) ([]byte, error) {
	if len(c.Secrets) > 0 {
		h.mu.Lock()
		h.secrets[c.Node] = c.Secrets
		h.mu.Unlock()
	}
	for {
		s, err := h.wait(ctx, c.Node, c.Nonce)
		if err != nil {
			return nil, err
		}
		if c.Incarnation != "" && s.incarnation != c.Incarnation {
			return nil, errs.About(errs.Conflict, c.Node, "%w (%s, was %s)", ErrReborn, s.incarnation, c.Incarnation)
		}
		result, again, err := h.runOn(ctx, s, c)
		if !again {
			return result, err
		}
	}
}

// runOn runs a command on one stream; again is true when the stream was lost.
func (h *Hub) runOn(ctx context.Context, s *session, c Call) (result []byte, again bool, err error) {
	statuses, stop := s.listen(c.CmdID)
	defer stop()
	// ask is false when the stream was lost.
	ask := func() (bool, error) {
		if c.Check != nil {
			if err := c.Check(); err != nil {
				return false, err
			}
		}
		ok := s.push(ctx,
			&api.AgentDown{Msg: &api.AgentDown_Hello{Hello: &api.HolderHello{Token: c.Token, Peers: h.peers()}}},
			&api.AgentDown{Msg: &api.AgentDown_Command{Command: &api.AgentCommand{Token: c.Token, CmdId: c.CmdID, Name: c.Name, Args: c.Args}}})
		return ok, context.Cause(ctx)
	}
	if ok, err := ask(); err != nil || !ok {
		return nil, err == nil, err
	}
	resend := time.NewTicker(resendEvery)
	defer resend.Stop()
	heard := false
	for {
		select {
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		case <-s.done:
			return nil, true, nil
		case <-s.replaced: // its sender may still hang in a dead connection
			return nil, true, nil
		case <-resend.C:
			if !heard {
				if ok, err := ask(); err != nil || !ok {
					return nil, err == nil, err
				}
			}
			heard = false
		case st := <-statuses:
			heard = true
			switch st.GetState() {
			case api.CommandStatus_DONE:
				return st.GetResult(), false, nil
			case api.CommandStatus_FAILED, api.CommandStatus_CANCELLED:
				return nil, false, errs.About(errs.ParseKind(st.GetErrorKind()), c.Node, "%w: %s: %s", ErrFailed, c.Name, orText(st.GetError(), "it says no more"))
			case api.CommandStatus_REFUSED:
				return nil, false, c.refused(st)
			case api.CommandStatus_RUNNING:
				if c.OnStatus != nil {
					c.OnStatus(proto.CloneOf(st))
				}
			}
		}
	}
}

// ErrReborn is in the error of a command whose agent has lost its memory since
// it was first asked: nobody knows what it had done.
var ErrReborn = errors.New("the agent began anew and has forgotten its commands")

// Incarnation is that of the agent that has a stream here, "" without one.
func (h *Hub) Incarnation(node, nonce string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.sessions[node]; s != nil && s.nonce == nonce {
		return s.incarnation
	}
	return ""
}

// ErrFailed is in the error of a command that the agent has begun and that
// failed. The agent remembers it by its cmdID: to ask again gives the same.
var ErrFailed = errors.New("agent")

// refused is the error of a command that the agent did not begin: because of
// its token, or because it cannot now.
func (c Call) refused(st *api.CommandStatus) error {
	kind := errs.ParseKind(st.GetErrorKind())
	if st.GetErrorKind() == "" || kind == errs.Fenced {
		return errs.About(errs.Fenced, c.Node, "agent refused token %d: %s", c.Token, st.GetError())
	}
	return errs.About(kind, c.Node, "agent refused %s: %s", c.Name, orText(st.GetError(), "it says no more"))
}

// Cancel has the agent stop a command and returns once it runs no more, with
// what the agent said of it: it may have been done or have failed before, or
// the agent never knew it. errs.Unreachable means that the agent has
// no stream here, errs.Timeout that it did not answer while ctx lasted.
func (h *Hub) Cancel(ctx context.Context, node, nonce string, token uint64, cmdID string) (api.CommandStatus_State, error) {
	h.mu.Lock()
	s := h.sessions[node]
	h.mu.Unlock()
	if s == nil || s.nonce != nonce {
		return api.CommandStatus_UNKNOWN, errs.About(errs.Unreachable, node, "the agent has no stream")
	}
	statuses, stop := s.listen(cmdID)
	defer stop()
	if !s.push(ctx,
		&api.AgentDown{Msg: &api.AgentDown_Hello{Hello: &api.HolderHello{Token: token, Peers: h.peers()}}},
		&api.AgentDown{Msg: &api.AgentDown_Cancel{Cancel: &api.CancelCommand{Token: token, CmdId: cmdID}}}) {
		return api.CommandStatus_UNKNOWN, errs.About(errs.Unreachable, node, "the agent's stream has ended")
	}
	for {
		select {
		case <-ctx.Done():
			return api.CommandStatus_UNKNOWN, errs.About(errs.Timeout, node, "the agent did not say that it stopped")
		case <-s.done:
			return api.CommandStatus_UNKNOWN, errs.About(errs.Unreachable, node, "the agent's stream has ended")
		case <-s.replaced:
			return api.CommandStatus_UNKNOWN, errs.About(errs.Unreachable, node, "the agent's stream was replaced")
		case st := <-statuses:
			switch st.GetState() {
			case api.CommandStatus_RUNNING:
			case api.CommandStatus_REFUSED:
				return api.CommandStatus_UNKNOWN, errs.About(errs.Fenced, node, "the agent refused token %d", token)
			default:
				return st.GetState(), nil
			}
		}
	}
}

func orText(s, or string) string {
	if s == "" {
		return or
	}
	return s
}
