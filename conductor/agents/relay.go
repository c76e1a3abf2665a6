package agents

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/journal"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
)

// helloTimeout is how long a new stream may take to say who it is.
const helloTimeout = 10 * time.Second

// retryTarget is the pause before a target that could not be reached is tried again.
const retryTarget = 500 * time.Millisecond

// Converse implements api.AgentServer: an agent's stream ends here.
func (e *Endpoint) Converse(stream grpc.BidiStreamingServer[api.AgentUp, api.AgentDown]) error {
	ctx := stream.Context()
	id, err := pki.IdentityFromContext(ctx)
	if err != nil || id.Role != pki.RoleAgent {
		return errs.New(errs.Denied, "the conversation needs the certificate that enrolment gave")
	}
	up, stop := pump(stream.Recv)
	defer stop()
	hello, err := firstHello(ctx, up)
	if err != nil {
		return err
	}
	if hello.GetNodeId() != id.Name || hello.GetNonce() != id.Nonce {
		return errs.New(errs.Denied, "the hello is not of the node and boot that the certificate is for")
	}
	if !e.enrolled(hello) {
		// It may have enrolled at another peer a moment ago.
		if _, err := e.cfg.ReadIndex(ctx); err != nil {
			return err
		}
		if !e.enrolled(hello) {
			return errOver
		}
	}
	e.cfg.Journal.Append(&api.JournalEvent{NodeId: id.Name, Kind: journal.KindAgent, Stage: "agent", Text: "agent's stream opened", BootNonce: id.Nonce})
	err = e.relay(ctx, hello, up, stream.Send)
	e.cfg.Journal.Append(&api.JournalEvent{NodeId: id.Name, Kind: journal.KindAgent, Stage: "agent", Text: "agent's stream ended", BootNonce: id.Nonce})
	return err
}

// enrolled says whether the agent is the one that enrolled for the current boot
// of its node.
func (e *Endpoint) enrolled(hello *api.AgentHello) bool {
	return hello.GetNonce() != "" && e.cfg.Store.View().Node(hello.GetNodeId()).GetAgent().GetNonce() == hello.GetNonce()
}

// superseded says whether a later boot of the node has begun. A stream of the
// last boot may stay when none has: the machine is about to be switched off.
func (e *Endpoint) superseded(hello *api.AgentHello) bool {
	n := e.cfg.Store.View().Node(hello.GetNodeId())
	nonce := n.GetBoot().GetNonce()
	return n == nil || nonce != "" && nonce != hello.GetNonce()
}

var errOver = errs.New(errs.Denied, "the boot that this agent belongs to is over")

// relay carries one stream to whoever holds the node, for as long as it lives.
func (e *Endpoint) relay(ctx context.Context, hello *api.AgentHello, up <-chan *api.AgentUp, send func(*api.AgentDown) error) error {
	node := hello.GetNodeId()
	sig, stop := e.cfg.Watch.Subscribe(node)
	defer stop()
	guarded := func(m *api.AgentDown) error {
		if t, ok := tokenOf(m); ok && t < e.cfg.Store.View().Node(node).GetLastToken() {
			return errs.New(errs.Fenced, "token %d for node %s is no longer current", t, node)
		}
		return send(m)
	}
	for {
		if e.superseded(hello) {
			return errOver
		}
		target := e.target(node)
		if target == "" { // nobody owns it now: wait for a change
			select {
			case <-ctx.Done():
				return nil
			case _, ok := <-up:
				if !ok {
					return nil
				}
			case <-sig.C:
			}
			continue
		}
		tctx, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- e.connect(tctx, target, hello, up, guarded) }()
		moved := false
		var err error
		for !moved {
			select {
			case err = <-ended:
				moved = true
			case <-sig.C:
				if e.target(node) != target || e.superseded(hello) {
					cancel()
				}
			}
		}
		cancel()
		switch {
		case ctx.Err() != nil, errors.Is(err, errAgentGone):
			return nil
		case errors.Is(err, errs.Conflict): // replaced by a newer stream
			return err
		case e.target(node) == target: // the target failed: do not spin
			select {
			case <-ctx.Done():
				return nil
			case <-sig.C:
			case <-time.After(retryTarget):
			}
		}
	}
}

var errAgentGone = errors.New("the agent's stream has ended")

// connect joins the stream to one target until either side ends.
func (e *Endpoint) connect(ctx context.Context, target string, hello *api.AgentHello, up <-chan *api.AgentUp, send func(*api.AgentDown) error) error {
	if target == e.cfg.Self {
		err := e.cfg.Hub.Attach(ctx, hello, e.cfg.Self, up, send)
		if err == nil {
			return errAgentGone
		}
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := e.cfg.PeerConn(target)
	if err != nil {
		return err
	}
	rs, err := api.NewConductorClient(conn).RelayAgent(ctx)
	if err != nil {
		return err
	}
	// The receiver must have ended before send may be used by the next target.
	ended := make(chan error, 1)
	go func() { ended <- passDown(rs, send) }()
	// A broken stream tells Send nothing: its status comes to Recv.
	for _, m := range []*api.AgentUp{
		{Msg: &api.AgentUp_RelayFor{RelayFor: hello.GetNodeId()}},
		{Msg: &api.AgentUp_Hello{Hello: hello}},
	} {
		if rs.Send(m) != nil {
			return <-ended
		}
	}
	for {
		select {
		case <-ctx.Done():
			<-ended
			return ctx.Err()
		case err := <-ended:
			return err
		case m, ok := <-up:
			if !ok {
				cancel()
				<-ended
				return errAgentGone
			}
			if rs.Send(m) != nil {
				return <-ended
			}
		}
	}
}

// passDown passes on what a holder says until either side ends; the error is
// never nil.
func passDown(rs api.Conductor_RelayAgentClient, send func(*api.AgentDown) error) error {
	for {
		m, err := rs.Recv()
		if err == nil {
			err = send(m)
		}
		if err != nil {
			return err
		}
	}
}

// RelayAgent takes an agent's stream that ends at another peer. It is part of
// api.ConductorServer.
func (e *Endpoint) RelayAgent(stream grpc.BidiStreamingServer[api.AgentUp, api.AgentDown]) error {
	ctx := stream.Context()
	id, err := pki.IdentityFromContext(ctx)
	if err != nil || id.Role != pki.RolePeer {
		return errs.New(errs.Denied, "only peers relay agents")
	}
	up, stop := pump(stream.Recv)
	defer stop()
	first, err := next(ctx, up)
	if err != nil {
		return err
	}
	hello, err := firstHello(ctx, up)
	if err != nil {
		return err
	}
	if first.GetRelayFor() == "" || first.GetRelayFor() != hello.GetNodeId() {
		return errs.New(errs.Invalid, "a relayed stream begins with the node's id and the agent's hello")
	}
	if e.target(hello.GetNodeId()) == "" {
		return errs.New(errs.NotOwner, "nobody owns node %s", hello.GetNodeId())
	}
	if e.superseded(hello) {
		return errOver
	}
	return e.cfg.Hub.Attach(ctx, hello, id.Name, up, stream.Send)
}

// target is who should hear the agent: the lock's holder, else the owner.
func (e *Endpoint) target(node string) string {
	v := e.cfg.Store.View()
	if l := v.Lock(node); l != nil {
		return l.GetConductor()
	}
	return v.Node(node).GetAssigned()
}

func tokenOf(m *api.AgentDown) (uint64, bool) {
	switch d := m.GetMsg().(type) {
	case *api.AgentDown_Hello:
		return d.Hello.GetToken(), true
	case *api.AgentDown_Command:
		return d.Command.GetToken(), true
	case *api.AgentDown_Cancel:
		return d.Cancel.GetToken(), true
	}
	return 0, false
}

// pump turns a stream's Recv into a channel that is closed when the stream
// ends. After stop nobody reads the channel; the goroutine ends with the
// stream, whose context gRPC ends when the handler returns.
func pump(recv func() (*api.AgentUp, error)) (up <-chan *api.AgentUp, stop func()) {
	ch := make(chan *api.AgentUp)
	done := make(chan struct{})
	var once sync.Once
	go func() {
		defer close(ch)
		for {
			m, err := recv()
			if err != nil {
				return
			}
			select {
			case ch <- m:
			case <-done:
				return
			}
		}
	}()
	return ch, func() { once.Do(func() { close(done) }) }
}

func next(ctx context.Context, up <-chan *api.AgentUp) (*api.AgentUp, error) {
	t := time.NewTimer(helloTimeout)
	defer t.Stop()
	select {
	case m, ok := <-up:
		if !ok {
			return nil, io.ErrUnexpectedEOF
		}
		return m, nil
	case <-t.C:
		return nil, errs.New(errs.Timeout, "the stream did not say whose it is")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func firstHello(ctx context.Context, up <-chan *api.AgentUp) (*api.AgentHello, error) {
	m, err := next(ctx, up)
	if err != nil {
		return nil, err
	}
	if m.GetHello() == nil {
		return nil, errs.New(errs.Invalid, "the first message must be a hello")
	}
	return m.GetHello(), nil
}
