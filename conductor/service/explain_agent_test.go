package service_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/internal/errs"
)

// begun plays a holder that has begun the step of the running flow.
func (f *fixture) begun(step string) {
	f.Helper()
	id := f.stored("n1").GetId()
	token := f.hold("p1")
	fl := f.c.Store.View().Flow(id)
	meta := func(op *api.Op) {
		_, err := f.c.Peer("p1").Propose(f.ctx, &api.Command{Meta: &api.Meta{Principal: "test", Reason: "test", WallMs: f.c.Clock.Now().UnixMilli()}, Ops: []*api.Op{op}})
		if err != nil {
			f.Fatal(err)
		}
	}
	for i, s := range fl.GetSteps() {
		start := &api.StepStart{NodeId: id, Token: token, FlowId: fl.GetId(), Cursor: uint32(i), Attempt: uint32(i + 1), CmdId: "c"}
		done := &api.StepDone{NodeId: id, Token: token, FlowId: fl.GetId(), Cursor: uint32(i), Attempt: uint32(i + 1)}
		if s.GetWaits() {
			start.Event, done.Event = api.Event_EV_WAIT, api.Event_EV_RESUME
		}
		meta(&api.Op{Op: &api.Op_StepStart{StepStart: start}})
		if s.GetName() == step {
			return
		}
		meta(&api.Op{Op: &api.Op_StepDone{StepDone: done}})
	}
	f.Fatalf("no step %s", step)
}

// An agent that says nothing is told from one that works, and the deadline is
// that of its silence.
func TestExplainSilentAgent(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.to(api.State_MANAGEABLE)
		if _, err := f.provision(api.Event_EV_PROVIDE, ""); err != nil {
			f.Fatal(err)
		}
		f.begun("check_identity")
		f.says("notes", strings.Join(f.explain().GetNotes(), "\n"), "abort is possible while the node waits (clean wait), it is cleaning now")
		id := f.stored("n1").GetId()
		fl := f.c.Store.View().Flow(id)
		token, at, attempt := f.c.Store.View().Lock(id).GetToken(), fl.GetCursor(), fl.GetAttempt()
		f.c.Must(
			&api.Op{Op: &api.Op_StepDone{StepDone: &api.StepDone{NodeId: id, Token: token, FlowId: fl.GetId(), Cursor: at, Attempt: attempt}}},
			&api.Op{Op: &api.Op_StepStart{StepStart: &api.StepStart{NodeId: id, Token: token, FlowId: fl.GetId(), Cursor: at + 1, Attempt: attempt + 1, CmdId: "c", Event: api.Event_EV_WAIT}}},
		)
		now := f.c.Clock.Now().UnixMilli()
		f.j.Update(id, func(l *api.LiveFacts) {
			l.AgentContactMs, l.Progress = now, &api.Progress{CmdId: "c", Percent: 12, Message: "wiping", AtMs: now}
		})
		if got := f.explain().GetWaitsFor(); got != "the agent: 12 % wiping" {
			f.Errorf("waits for %q", got)
		}
		// erase_metadata may take 30 minutes, but may be silent for 585 s only.
		if d := f.explain().GetDeadlineInMs(); d > 585_000 || d < 560_000 {
			f.Errorf("the deadline is in %d ms", d)
		}
		conductortest.Pass(36 * time.Second)
		if got := f.explain().GetWaitsFor(); got != "the agent: not heard of for 36 s (its step fails after 585 s of silence); its last word: 12 % wiping" {
			f.Errorf("waits for %q", got)
		}
		if _, err := f.provision(api.Event_EV_ABORT, ""); err != nil {
			f.Fatal(err)
		}
		f.says("notes", strings.Join(f.explain().GetNotes(), "\n"), "abort was asked for")
	})
}

// A verb beside a power action is refused as busy, undeploy too.
func TestUndeployBesidePower(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.to(api.State_AVAILABLE)
		if _, err := f.provision(api.Event_EV_DEPLOY, `{"image":"http://images/a.raw","checksum":"`+digest+`"}`); err != nil {
			f.Fatal(err)
		}
		_, err := f.provision(api.Event_EV_ABORT, "")
		wants(f.T, "abort while it works", err, errs.WrongState, "abort is possible while the node waits (wait call-back), it is deploying now: try again in a moment")
		f.finish("p1", api.Event_EV_DONE)
		if _, err := f.svc.Power(f.ctx, &api.PowerRequest{Node: "n1", Action: api.PowerAction_POWER_ACTION_REBOOT}); err != nil {
			f.Fatal(err)
		}
		for _, verb := range []api.Event{api.Event_EV_DELETE, api.Event_EV_REBUILD} {
			args := ""
			if verb == api.Event_EV_REBUILD {
				args = `{"image":"http://images/a.raw","checksum":"` + digest + `"}`
			}
			_, err := f.provision(verb, args)
			wants(f.T, "beside a reboot", err, errs.Locked, "power is under way")
		}
		if fl := f.c.Store.View().Flow(f.stored("n1").GetId()); fl.GetRequest() != api.Event_EVENT_NONE {
			f.Errorf("the power action was asked to end: %v", fl.GetRequest())
		}
	})
}
