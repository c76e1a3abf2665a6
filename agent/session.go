package agent

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// progressEvery bounds how often the progress of a command is sent.
const progressEvery = 250 * time.Millisecond

// talk keeps a stream to some peer until ctx ends, drain is closed, or the
// cluster refuses the machine. Commands run on work, never on a stream.
func (a *agent) talk(ctx, work context.Context) error {
	pause := pauses{min: a.cfg.RedialMin, max: a.cfg.RedialMax}
	for next := 0; ; next++ {
		if a.needCert() {
			if err := a.enrol(ctx); err != nil {
				return err
			}
			next = 0 // the peer that enrolled us
		}
		list := a.peerList()
		addr := list[next%len(list)]
		held, err := a.session(ctx, work, addr)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		select {
		case <-a.drain:
			return nil
		default:
		}
		if errors.Is(err, errs.Denied) {
			a.cert = nil // perhaps it is the certificate
		}
		if held {
			pause.reset()
		}
		a.log.Warn("the stream ended, another peer is tried", "peer", addr, "err", err)
		if err := pause.wait(ctx, a.drain); err != nil {
			return err
		}
	}
}

// session is one stream to one peer. held tells whether a holder spoke on it.
func (a *agent) session(ctx, work context.Context, addr string) (held bool, err error) {
	conn, err := a.connect(addr, a.cert)
	if err != nil {
		return false, errs.New(errs.Internal, "connect to %s: %w", addr, err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := api.NewAgentClient(conn).Converse(ctx)
	if err != nil {
		return false, fromStatus(err)
	}
	sent := map[string]mark{}
	hello := a.book.hello(a.cfg.Version, sent)
	if err := stream.Send(&api.AgentUp{Msg: &api.AgentUp_Hello{Hello: hello}}); err != nil {
		return false, streamError(stream, err)
	}
	a.log.Info("stream to the cluster is open", "peer", addr)

	replies := make(chan *api.AgentUp, 16)
	ended := make(chan error, 1)
	go func() {
		ended <- a.receive(ctx, work, stream, replies, &held)
	}()
	s := sender{a: a, stream: stream, sent: sent}
	s.told(hello.Commands)
	sendErr, recvErr := s.run(ctx, replies, ended)
	cancel()
	if recvErr == nil {
		recvErr = <-ended
	}
	// The server's word says more than "the stream is broken".
	if sendErr == nil || errors.Is(sendErr, io.EOF) {
		return held, recvErr
	}
	return held, sendErr
}

type converse = interface {
	Send(*api.AgentUp) error
	Recv() (*api.AgentDown, error)
	CloseSend() error
}

// streamError is the server's status where Send gave no more than EOF.
func streamError(stream converse, err error) error {
	if errors.Is(err, io.EOF) {
		if _, rerr := stream.Recv(); rerr != nil && !errors.Is(rerr, io.EOF) {
			return fromStatus(rerr)
		}
	}
	return fromStatus(err)
}

// receive obeys what comes down until the stream ends; the error is never nil.
func (a *agent) receive(ctx, work context.Context, stream converse, replies chan<- *api.AgentUp, held *bool) error {
	for {
		down, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errs.New(errs.Unreachable, "the peer ended the stream")
		}
		if err != nil {
			return fromStatus(err)
		}
		*held = true
		up := a.obey(work, down)
		if up == nil {
			continue
		}
		select {
		case replies <- up:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// obey carries out one message and returns what must be said at once, nil
// when nothing must.
func (a *agent) obey(work context.Context, down *api.AgentDown) *api.AgentUp {
	switch m := down.Msg.(type) {
	case *api.AgentDown_Hello:
		raised, err := a.book.see(m.Hello.Token)
		if err != nil {
			return refuse("", err)
		}
		a.learnPeers(m.Hello.Peers)
		if raised { // holders say hello again and again
			a.log.Info("a holder took over", "token", m.Hello.Token)
		}
	case *api.AgentDown_Command:
		c := m.Command
		if c.CmdId == "" {
			return refuse("", errs.New(errs.Invalid, "command without an id"))
		}
		if _, err := a.book.see(c.Token); err != nil {
			return refuse(c.CmdId, err)
		}
		if err := a.start(work, c); err != nil {
			return refuse(c.CmdId, err)
		}
	case *api.AgentDown_Cancel:
		if _, err := a.book.see(m.Cancel.Token); err != nil {
			return refuse(m.Cancel.CmdId, err)
		}
		if !a.book.cancel(m.Cancel.CmdId) {
			return statusUp(&api.CommandStatus{CmdId: m.Cancel.CmdId, State: api.CommandStatus_UNKNOWN})
		}
	case *api.AgentDown_Ping:
		return &api.AgentUp{Msg: &api.AgentUp_Pong{Pong: &api.AgentPong{Seq: m.Ping.Seq}}}
	}
	return nil // a message from a newer cluster
}

// refuse is an answer that is not remembered: the command's own status, if it
// has one, stays as it is.
func refuse(id string, err error) *api.AgentUp {
	return statusUp(&api.CommandStatus{
		CmdId: id, State: api.CommandStatus_REFUSED, Error: err.Error(), ErrorKind: errs.KindOf(err).String(),
	})
}

func statusUp(st *api.CommandStatus) *api.AgentUp {
	return &api.AgentUp{Msg: &api.AgentUp_Status{Status: st}}
}

// sender is the one goroutine that sends on a stream.
type sender struct {
	a      *agent
	stream converse
	sent   map[string]mark
}

func (s *sender) told(list []*api.CommandStatus) { s.a.book.told(list) }

// run sends until the stream breaks, ctx ends, or the agent drains. Exactly
// when it took the receiver's error from ended, recvErr is set.
func (s *sender) run(ctx context.Context, replies <-chan *api.AgentUp, ended <-chan error) (sendErr, recvErr error) {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err(), nil
		case err := <-ended:
			return nil, err
		case up := <-replies:
			err = s.stream.Send(up)
		case <-s.a.book.wake:
			err = s.statuses(false)
		case <-s.a.logs.wake:
			err = s.lines()
		case <-tick.C:
			err = s.statuses(true)
		case <-s.a.drain:
			return s.finish(ctx, ended)
		}
		if err != nil {
			return err, nil
		}
	}
}

func (s *sender) statuses(progress bool) error {
	list := s.a.book.changed(s.sent, progress)
	for _, st := range list {
		if err := s.stream.Send(statusUp(st)); err != nil {
			return err
		}
	}
	s.told(list)
	return nil
}

func (s *sender) lines() error {
	list := s.a.logs.take(64)
	for i, l := range list {
		if err := s.stream.Send(&api.AgentUp{Msg: &api.AgentUp_Log{Log: l}}); err != nil {
			s.a.logs.putBack(list[i:])
			return err
		}
	}
	return nil
}

// finish sends the rest and ends the stream from our side. The peer's end of
// the stream, which follows, means that it has read everything.
func (s *sender) finish(ctx context.Context, ended <-chan error) (sendErr, recvErr error) {
	if err := s.statuses(false); err != nil {
		return err, nil
	}
	if err := s.lines(); err != nil {
		return err, nil
	}
	if err := s.stream.CloseSend(); err != nil {
		return err, nil
	}
	t := time.NewTimer(2 * time.Second)
	defer t.Stop()
	select {
	case err := <-ended:
		return nil, err
	case <-t.C:
		return nil, nil
	case <-ctx.Done():
		return nil, nil
	}
}
