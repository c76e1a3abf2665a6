package service_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
)

func (f *fixture) explain() *api.ExplainReply {
	f.Helper()
	rep, err := f.svc.Explain(f.ctx, &api.ExplainRequest{Node: "n1"})
	if err != nil {
		f.Fatal(err)
	}
	return rep
}

func (f *fixture) says(what, text, want string) {
	f.Helper()
	if !strings.Contains(text, want) {
		f.Errorf("%s is %q, want %q", what, text, want)
	}
}

// In the seconds after the death of a holder: it is still said to hold the
// node, and for how long at most.
func TestExplainSilentHolder(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.to(api.State_MANAGEABLE)
		if _, err := f.provision(api.Event_EV_INSPECT, ""); err != nil {
			f.Fatal(err)
		}
		f.hold("p2")
		conductortest.Pass(2 * time.Second)
		f.says("waits for", f.explain().GetWaitsFor(), "the holder p2, which does not answer; its lease runs out in about")
		left := f.explain().GetWaitsFor()
		conductortest.Pass(9 * time.Second)
		if now := f.explain().GetWaitsFor(); now == left {
			f.Errorf("time does not go by: %q", now)
		}
		conductortest.Pass(9 * time.Second)
		f.says("waits for", f.explain().GetWaitsFor(), "its lease is about to end")
	})
}

// A takeover that waits for its turn says so, and what a refusing image server
// does to the agent is told.
func TestExplainWaits(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.to(api.State_MANAGEABLE)
		if _, err := f.provision(api.Event_EV_INSPECT, ""); err != nil {
			f.Fatal(err)
		}
		id := f.stored("n1").GetId()
		token := f.hold("p1")
		f.c.Must(&api.Op{Op: &api.Op_LockRelease{LockRelease: &api.LockRelease{NodeId: id, Token: token}}})
		f.j.Update(id, func(l *api.LiveFacts) { l.Waits = "its turn: 8 takeovers on BMC subnet 10.1.2.0/24" })
		f.says("waits for", f.explain().GetWaitsFor(), "its turn: 8 takeovers on BMC subnet 10.1.2.0/24")
		f.j.Update(id, func(l *api.LiveFacts) { l.Waits = "" })

		fl := f.c.Store.View().Flow(id)
		steps := fl.GetSteps()
		token = f.hold("p1")
		for i, s := range steps {
			start := &api.StepStart{NodeId: id, Token: token, FlowId: fl.GetId(), Cursor: uint32(i), Attempt: uint32(i + 1), CmdId: "c"}
			f.c.Must(&api.Op{Op: &api.Op_StepStart{StepStart: start}})
			if s.GetName() == "inventory" {
				break
			}
			f.c.Must(&api.Op{Op: &api.Op_StepDone{StepDone: &api.StepDone{NodeId: id, Token: token, FlowId: fl.GetId(), Cursor: uint32(i), Attempt: uint32(i + 1)}}})
		}
		const refused = "image server 192.0.2.1:80: connection refused; trying again"
		f.j.Update(id, func(l *api.LiveFacts) { l.Progress = &api.Progress{CmdId: "c", Message: refused} })
		f.says("waits for", f.explain().GetWaitsFor(), "the agent: "+refused)
		f.j.Update(id, func(l *api.LiveFacts) { l.Progress.Percent = 40 })
		f.says("waits for", f.explain().GetWaitsFor(), "the agent: 40 % "+refused)
	})
}

// Who does not reach the BMC is said, and that nothing moves where nobody does.
func TestExplainReach(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.to(api.State_MANAGEABLE)
		if err := f.update("n1", map[string]string{"driver_info/fake_address": `"10.1.2.3"`}); err != nil {
			f.Fatal(err)
		}
		reach := func(member string, reachable bool) {
			f.c.Must(&api.Op{Op: &api.Op_ReachSet{ReachSet: &api.ReachSet{Member: member, Subnet: "10.1.2.0/24", Reachable: reachable}}})
		}
		reach("p1", false)
		f.says("notes", strings.Join(f.explain().GetNotes(), "\n"), "BMC subnet 10.1.2.0/24 is known to be reached by no peer (p1 since ")
		reach("p2", true)
		f.says("notes", strings.Join(f.explain().GetNotes(), "\n"), "; it is by p2")
	})
}

// What was seen of the deployed system, and how often the machine was switched
// on for it.
func TestExplainEvidence(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.to(api.State_MANAGEABLE)
		id, token := f.stored("n1").GetId(), f.hold("p1")
		set := func(e *api.Evidence) {
			f.c.Must(&api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: id, Token: token, Fields: []string{"evidence"}, Node: &api.Node{Evidence: e}}}})
		}
		for want, e := range map[string]*api.Evidence{
			`boot entry "uefi Boot0001", read back at 2023-11-14T22:13:20Z`: {Policy: "none", BootEntry: "uefi Boot0001", BootEntryMs: 1_700_000_000_000},
			"nothing yet, phone_home is waited for":                         {Policy: "phone_home", BootEntry: "bios", BootEntryMs: 1},
			"port:22 from 10.0.0.7 at 2023-11-14T22:13:20Z":                 {Policy: "port:22", BootEntry: "bios", Seen: "port:22", SeenMs: 1_700_000_000_000, Source: "10.0.0.7"},
		} {
			set(e)
			f.says("notes", strings.Join(f.explain().GetNotes(), "\n"), "evidence of the deployed system: "+want)
		}
	})
}
