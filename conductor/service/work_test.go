package service_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/conductor/flow"
	"github.com/ironring/ironring/internal/configdrive"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
	"github.com/ironring/ironring/node"
)

const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func (f *fixture) provision(verb api.Event, args string) (*api.FlowReply, error) {
	return f.svc.Provision(f.ctx, &api.ProvisionRequest{Node: "n1", Verb: verb, Args: []byte(args)})
}

// finish plays a holder that ends the running flow.
func (f *fixture) finish(owner string, ev api.Event) {
	f.Helper()
	n := f.stored("n1")
	token := f.c.Store.View().Lock(n.GetId()).GetToken()
	if token == 0 {
		token = f.hold(owner)
	}
	fl := f.c.Store.View().Flow(n.GetId())
	f.c.Must(
		&api.Op{Op: &api.Op_FlowEnd{FlowEnd: &api.FlowEnd{NodeId: n.GetId(), Token: token, FlowId: fl.GetId(), Status: api.FlowStatus_FLOW_FAILED, Error: "because", Event: ev}}},
		&api.Op{Op: &api.Op_LockRelease{LockRelease: &api.LockRelease{NodeId: n.GetId(), Token: token}}},
	)
}

// hold gives the node to a peer and its lock too.
func (f *fixture) hold(peer string) uint64 {
	f.Helper()
	v := f.c.Store.View()
	n := f.stored("n1")
	lease := v.LiveLease(peer).GetId()
	if lease == "" {
		lease = "lease-" + peer
		f.c.Must(&api.Op{Op: &api.Op_LeaseRegister{LeaseRegister: &api.LeaseRegister{Lease: &api.Lease{Id: lease, Conductor: peer}}}})
	}
	if n.GetAssigned() != peer {
		f.c.Must(&api.Op{Op: &api.Op_Assign{Assign: &api.Assign{Term: f.c.Term(), Nodes: []*api.Assignment{{NodeId: n.GetId(), Conductor: peer, Epoch: n.GetAssignEpoch() + 1}}}}})
	}
	return f.c.Must(&api.Op{Op: &api.Op_LockAcquire{LockAcquire: &api.LockAcquire{NodeId: n.GetId(), LeaseId: lease}}}).GetOps()[0].GetToken()
}

// to brings the node to a state by verbs and ended flows.
func (f *fixture) to(state api.State) {
	f.Helper()
	f.create("n1")
	if state == api.State_ENROLL {
		return
	}
	if _, err := f.provision(api.Event_EV_MANAGE, ""); err != nil {
		f.Fatal(err)
	}
	f.finish("p1", api.Event_EV_DONE)
	if state == api.State_MANAGEABLE {
		return
	}
	if _, err := f.provision(api.Event_EV_PROVIDE, ""); err != nil {
		f.Fatal(err)
	}
	f.finish("p1", api.Event_EV_DONE)
	if f.stored("n1").GetState() != state {
		f.Fatalf("state is %v", f.stored("n1").GetState())
	}
}

func TestVerbs(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.to(api.State_ENROLL)
		_, err := f.provision(api.Event_EV_DEPLOY, "")
		wants(f.T, "deploy in enroll", err, errs.WrongState, "manage")
		_, err = f.provision(api.Event_EV_DONE, "")
		wants(f.T, "a report is no verb", err, errs.Invalid, "not a verb")
		_, err = f.provision(api.Event_EV_MANAGE, `{"x":1}`)
		wants(f.T, "arguments", err, errs.Invalid, "no arguments")
		rep, err := f.provision(api.Event_EV_MANAGE, "{}")
		if err != nil || rep.GetFlow().GetKind() != api.FlowKind_FLOW_VERIFY || rep.GetNode().GetState() != api.State_VERIFYING {
			f.Fatalf("%v, %v", rep, err)
		}
		if m := rep.GetFlow().GetMeta(); m.GetPrincipal() != "local:socket" || m.GetReason() != "manage" {
			f.Errorf("asked for by %v", m)
		}
		_, err = f.svc.Power(f.ctx, &api.PowerRequest{Node: "n1", Action: api.PowerAction_POWER_ACTION_ON})
		wants(f.T, "a second flow", err, errs.Locked, "verify is under way")
		_, err = f.provision(api.Event_EV_ABORT, "")
		wants(f.T, "abort of verify", err, errs.WrongState, "")
		f.finish("p1", api.Event_EV_DONE)
		_, err = f.provision(api.Event_EV_CLEAN, "")
		wants(f.T, "not built yet", err, errs.Unsupported, "clean")
		_, err = f.svc.Power(f.ctx, &api.PowerRequest{Node: "n1"})
		wants(f.T, "no action", err, errs.Invalid, "")
		if rep, err := f.svc.Power(f.ctx, &api.PowerRequest{Node: "n1", Action: api.PowerAction_POWER_ACTION_REBOOT}); err != nil || len(rep.GetFlow().GetSteps()) != 2 {
			f.Errorf("%v, %v", rep, err)
		}
	})
}

// Verbs that only move the state need no flow.
func TestVerbWithoutFlow(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.to(api.State_AVAILABLE)
		_, err := f.provision(api.Event_EV_MANAGE, `{"x":1}`)
		wants(f.T, "arguments", err, errs.Invalid, "no arguments")
		rep, err := f.provision(api.Event_EV_MANAGE, "")
		if err != nil || rep.GetNode().GetState() != api.State_MANAGEABLE {
			f.Errorf("%v, %v", rep, err)
		}
	})
}

func TestDeployArguments(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.to(api.State_AVAILABLE)
		for name, test := range map[string]struct{ args, says string }{
			"none":             {``, "needs an image"},
			"no image":         {`{"checksum":"` + digest + `"}`, "needs an image"},
			"a file":           {`{"image":"file:///etc/passwd","checksum":"` + digest + `"}`, "http or https"},
			"no host":          {`{"image":"http:///a","checksum":"` + digest + `"}`, "http or https"},
			"its mask":         {`{"image":"http://u:hunter2@h/a","image_shown":"http://h/b","checksum":"` + digest + `"}`, "not taken from requests"},
			"no checksum":      {`{"image":"http://h/a"}`, "checksum"},
			"md5":              {`{"image":"http://h/a","checksum":"md5:d41d8cd98f00b204e9800998ecf8427e"}`, "checksum"},
			"short":            {`{"image":"http://h/a","checksum":"sha256:abcd"}`, "checksum"},
			"unknown key":      {`{"image":"http://h/a","checksum":"` + digest + `","imgae":1}`, "imgae"},
			"unknown compress": {`{"image":"http://h/a","checksum":"` + digest + `","compress":"rar"}`, "compress"},
			"unknown format":   {`{"image":"http://h/a","checksum":"` + digest + `","image_format":"vmdk"}`, "image_format"},
			"qcow2 in gzip":    {`{"image":"http://h/a","checksum":"` + digest + `","image_format":"qcow2","compress":"gzip"}`, "not inside gzip"},
			"drive over http":  {`{"image":"http://h/a","checksum":"` + digest + `","config_drive":"http://u:hunter2@h/d"}`, "config_drive_checksum"},
			"sum of no URL":    {`{"image":"http://h/a","checksum":"` + digest + `","config_drive":{"user_data":"hunter2"},"config_drive_checksum":"` + digest + `"}`, "behind a URL only"},
			"drive of nothing": {`{"image":"http://h/a","checksum":"` + digest + `","config_drive":"hunter2!"}`, "config_drive"},
			"drive key":        {`{"image":"http://h/a","checksum":"` + digest + `","config_drive":{"userdata":"hunter2"}}`, "userdata"},
			"drive too long":   {`{"image":"http://h/a","checksum":"` + digest + `","config_drive":{"user_data":"hunter2` + strings.Repeat("x", 41<<10) + `"}}`, "serve it over http"},
			"unknown hint":     {`{"image":"http://h/a","checksum":"` + digest + `","root_device":{"frob":1}}`, "frob"},
			"hints no object":  {`{"image":"http://h/a","checksum":"` + digest + `","root_device":"sda"}`, "root_device"},
			"no object":        {`[]`, "arguments of deploy"},
		} {
			_, err := f.provision(api.Event_EV_DEPLOY, test.args)
			wants(f.T, name, err, errs.Invalid, test.says)
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				f.Errorf("%s: a password in %v", name, err)
			}
		}
		if s := f.stored("n1").GetState(); s != api.State_AVAILABLE {
			f.Fatalf("a refused deploy moved the node to %v", s)
		}
		rep, err := f.provision(api.Event_EV_DEPLOY, `{"image":"http://h/a","checksum":"`+digest+`","root_device":{"serial":"S1"}}`)
		if err != nil || rep.GetNode().GetState() != api.State_DEPLOYING {
			f.Fatalf("%v, %v", rep, err)
		}
		id := f.stored("n1").GetId()
		doc, err := f.p.Keyring().OpenDoc(flow.AAD(id), f.c.Store.View().Flow(id).GetArgs())
		if err != nil || !strings.Contains(string(doc), `"serial":"S1"`) {
			f.Errorf("%s, %v", doc, err)
		}
	})
}

// A config drive is sealed as a whole, whatever its form, and the flow opens it.
func TestConfigDriveIsSealed(t *testing.T) {
	for _, drive := range []string{
		`{"user_data":"#cloud-config\npassword: hunter2\n","meta_data":{"n":1}}`, `"{\"user_data\":\"hunter2\"}"`, `"https://u:hunter2@h/drive?t=hunter2"`,
		`"http://u:hunter2@h/drive?t=hunter2","config_drive_checksum":"` + digest + `"`,
		`{"user_data":"hunter2` + strings.Repeat("x", 39<<10) + `"}`,
	} {
		bubble(t, func(f *fixture) {
			f.to(api.State_AVAILABLE)
			rep, err := f.provision(api.Event_EV_DEPLOY, `{"image":"http://h/a","checksum":"`+digest+`","image_format":"qcow2","config_drive":`+drive+`}`)
			if err != nil {
				f.Fatal(err)
			}
			if s := rep.String(); strings.Contains(s, "hunter2") {
				f.Errorf("a secret in the answer")
			}
			id := f.stored("n1").GetId()
			args := f.c.Store.View().Flow(id).GetArgs()
			if strings.Contains(string(args), "hunter2") {
				f.Error("a secret in the record")
			}
			doc, err := f.p.Keyring().OpenDoc(flow.AAD(id), args)
			if err != nil {
				f.Fatal(err)
			}
			var a flow.DeployArgs
			if err := json.Unmarshal(doc, &a); err != nil || a.ImageFormat != "qcow2" {
				f.Errorf("%+v %v", a, err)
			}
			d, err := configdrive.Parse(a.ConfigDrive)
			if err != nil || d == nil || !strings.Contains(d.Text(), "hunter2") {
				f.Errorf("the flow reads another drive: %v", err)
			}
		})
	}
}

// Work that could only end in a time-out is refused.
func TestNoPortToBootFrom(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.to(api.State_MANAGEABLE)
		if _, err := f.svc.DeletePort(f.ctx, &api.DeletePortRequest{Port: mac}); err != nil {
			f.Fatal(err)
		}
		_, err := f.provision(api.Event_EV_INSPECT, "")
		wants(f.T, "inspect", err, errs.Invalid, "no port to boot from")
	})
}

func TestAbortIsAsked(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.to(api.State_MANAGEABLE)
		if _, err := f.provision(api.Event_EV_INSPECT, ""); err != nil {
			f.Fatal(err)
		}
		id := f.stored("n1").GetId()
		token := f.hold("p1")
		fl := f.c.Store.View().Flow(id)
		f.c.Must(&api.Op{Op: &api.Op_StepStart{StepStart: &api.StepStart{NodeId: id, Token: token, FlowId: fl.GetId(), Attempt: 1, CmdId: "c", Event: api.Event_EV_WAIT}}})
		rep, err := f.provision(api.Event_EV_ABORT, "")
		if err != nil || rep.GetFlow().GetRequest() != api.Event_EV_ABORT {
			f.Errorf("%v, %v", rep, err)
		}
	})
}

// Explain says in a sentence why a node is where it is.
func TestExplain(t *testing.T) {
	ask := func(f *fixture) *api.ExplainReply {
		f.Helper()
		rep, err := f.svc.Explain(f.ctx, &api.ExplainRequest{Node: "n1"})
		if err != nil {
			f.Fatal(err)
		}
		return rep
	}
	says := func(f *fixture, what, text, want string) {
		f.Helper()
		if !strings.Contains(text, want) {
			f.Errorf("%s is %q, want %q", what, text, want)
		}
	}
	bubble(t, func(f *fixture) {
		f.create("n1")
		r := ask(f)
		says(f, "summary", r.GetSummary(), "enroll: nothing is being done")
		says(f, "waits for", r.GetWaitsFor(), "a conductor")
		says(f, "advice", r.GetAdvice(), "start a peer")
		id := r.GetNode().GetId()

		// Accepted, and nobody alive to take it.
		if _, err := f.provision(api.Event_EV_MANAGE, ""); err != nil {
			f.Fatal(err)
		}
		f.c.Must(&api.Op{Op: &api.Op_Assign{Assign: &api.Assign{Term: f.c.Term(), Nodes: []*api.Assignment{{NodeId: id, Conductor: "p2", Epoch: 1}}}}})
		says(f, "waits for", ask(f).GetWaitsFor(), "a new owner: p2 has no live lease")
		token := f.hold("p1")
		r = ask(f)
		says(f, "summary", r.GetSummary(), "verifying: step 1 of 1 (management.identify)")
		says(f, "waits for", r.GetWaitsFor(), "the step to be started")
		if r.GetLock().GetToken() != token || r.GetLease().GetConductor() != "p1" || r.GetLiveFrom() != "p1" {
			f.Errorf("lock %v, lease %v, live from %q", r.GetLock(), r.GetLease(), r.GetLiveFrom())
		}
		fl := f.c.Store.View().Flow(id)
		f.c.Must(&api.Op{Op: &api.Op_StepStart{StepStart: &api.StepStart{NodeId: id, Token: token, FlowId: fl.GetId(), Attempt: 1, CmdId: "c", DeadlineMs: 90_000}}})
		f.j.Update(id, func(l *api.LiveFacts) { l.BmcError = "read power: no answer" })
		r = ask(f)
		says(f, "waits for", r.GetWaitsFor(), "the BMC: read power: no answer")
		if r.GetDeadlineInMs() != 90_000 {
			f.Errorf("deadline in %d ms", r.GetDeadlineInMs())
		}
		f.c.Must(&api.Op{Op: &api.Op_LockRelease{LockRelease: &api.LockRelease{NodeId: id, Token: token}}})
		says(f, "waits for", ask(f).GetWaitsFor(), "its owner p1 to take the lock")

		// Failed: why, and what may be done.
		f.finish("p1", api.Event_EV_FAIL)
		r = ask(f)
		says(f, "summary", r.GetSummary(), "enroll: because")
		says(f, "advice", r.GetAdvice(), "manage")

		// A peer that is cut off says so.
		f.p.Cut(true)
		says(f, "notes", strings.Join(ask(f).GetNotes(), "\n"), "no contact with a leader")
		f.p.Cut(false)
		if err := f.update("n1", map[string]string{"maintenance": `true`, "maintenance_reason": `"fan"`}); err != nil {
			f.Fatal(err)
		}
		says(f, "notes", strings.Join(ask(f).GetNotes(), "\n"), "in maintenance: fan")
	})
}

// A parked BMC is in the advice although the record that leaves is masked.
func TestExplainParked(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.to(api.State_MANAGEABLE)
		f.park("n1", 2)
		r, err := f.svc.Explain(f.ctx, &api.ExplainRequest{Node: "n1"})
		if err != nil || !strings.Contains(r.GetAdvice(), "refused our credentials 2 times") {
			f.Errorf("advice %q, %v", r.GetAdvice(), err)
		}
		f.c.Must(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{NodeId: r.GetNode().GetId(), Fields: []string{"driver_info"}, Node: &api.Node{DriverInfo: []byte("{}")}}}})
		if r, err := f.svc.Explain(f.ctx, &api.ExplainRequest{Node: "n1"}); err != nil || strings.Contains(r.GetAdvice(), "refused") {
			f.Errorf("advice %q, %v", r.GetAdvice(), err)
		}
	})
}

// Live facts of a holder that cannot be asked are those of this peer, and the
// answer says that they are.
func TestExplainWithoutHolder(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.to(api.State_MANAGEABLE)
		f.hold("p2")
		f.j.Update(f.stored("n1").GetId(), func(l *api.LiveFacts) { l.BootStage = "kernel" })
		r, err := f.svc.Explain(f.ctx, &api.ExplainRequest{Node: "n1"})
		if err != nil || r.GetLiveFrom() != "" || r.GetLive().GetBootStage() != "kernel" {
			f.Errorf("%v, %v", r, err)
		}
		if notes := strings.Join(r.GetNotes(), "; "); !strings.Contains(notes, "holder p2 does not answer") {
			f.Errorf("notes %q", notes)
		}
	})
}

func TestWatchNode(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.to(api.State_MANAGEABLE)
		id := f.stored("n1").GetId()
		ctx, cancel := context.WithCancel(f.ctx)
		defer cancel()
		s := stream[api.NodeEvent]{ctx: ctx, out: make(chan *api.NodeEvent)}
		ended := make(chan error, 1)
		go func() { ended <- f.svc.WatchNode(&api.WatchNodeRequest{Node: "n1"}, s) }()
		next := func() *api.NodeEvent {
			f.Helper()
			select {
			case ev := <-s.out:
				return ev
			case <-time.After(time.Minute):
				f.Fatal("no event")
				return nil
			}
		}
		first := next()
		if first.GetNode().GetId() != id || strings.Contains(string(first.GetNode().GetDriverInfo()), "sealed") {
			f.Errorf("first event %v", first)
		}
		token := f.hold("p1")
		if ev := next(); ev.GetLock().GetToken() != token {
			f.Errorf("the lock was not told: %v", ev)
		}
		f.c.Must(&api.Op{Op: &api.Op_LockRelease{LockRelease: &api.LockRelease{NodeId: id, Token: token}}})
		if ev := next(); ev.GetLock() != nil {
			f.Errorf("the release was not told: %v", ev)
		}
		if _, err := f.svc.Power(f.ctx, &api.PowerRequest{Node: "n1", Action: api.PowerAction_POWER_ACTION_ON}); err != nil {
			f.Fatal(err)
		}
		if ev := next(); ev.GetFlow().GetKind() != api.FlowKind_FLOW_POWER {
			f.Errorf("the flow was not told: %v", ev)
		}
		token = f.hold("p1")
		next()
		fl := f.c.Store.View().Flow(id)
		f.c.Must(&api.Op{Op: &api.Op_StepStart{StepStart: &api.StepStart{NodeId: id, Token: token, FlowId: fl.GetId(), Attempt: 1, CmdId: "c1"}}})
		last := next()
		// Progress of this step, and of no other.
		f.j.Update(id, func(l *api.LiveFacts) { l.Progress = &api.Progress{CmdId: "old", Percent: 99} })
		conductortest.Pass(2 * time.Second)
		f.j.Update(id, func(l *api.LiveFacts) { l.Progress = &api.Progress{CmdId: "c1", Percent: 10} })
		if ev := next(); ev.GetProgress().GetPercent() != 10 || ev.GetNode() != nil {
			f.Errorf("progress %v", ev)
		}
		cancel()
		if err := <-ended; err != nil {
			f.Error(err)
		}
		// Resume: nothing that was seen comes again.
		ctx2, cancel2 := context.WithCancel(f.ctx)
		s2 := stream[api.NodeEvent]{ctx: ctx2, out: make(chan *api.NodeEvent, 10)}
		go func() { ended <- f.svc.WatchNode(&api.WatchNodeRequest{Node: "n1", AfterIndex: last.GetIndex()}, s2) }()
		f.finish("p1", api.Event_EVENT_NONE)
		if ev := <-s2.out; ev.GetProgress() == nil && ev.GetFlow().GetStatus() != api.FlowStatus_FLOW_FAILED {
			f.Errorf("resumed with %v", ev)
		}
		if _, err := f.svc.DeleteNode(f.ctx, &api.DeleteNodeRequest{Node: "n1"}); err != nil {
			f.Fatal(err)
		}
		if err := <-ended; err != nil {
			f.Error(err)
		}
		var deleted bool
		for len(s2.out) > 0 {
			deleted = (<-s2.out).GetDeleted()
		}
		if !deleted {
			f.Error("the end of the node was not told")
		}
		cancel2()
	})
}

func TestJournal(t *testing.T) {
	bubble(t, func(f *fixture) {
		id := f.create("n1").GetId()
		f.j.Append(&api.JournalEvent{NodeId: id, Kind: "dhcp", Text: "one", AtMs: 10})
		f.j.Store(&api.JournalEvent{NodeId: id, Peer: "p2", Seq: 1, Kind: "http", Text: "two", AtMs: 20})
		read := func(req *api.JournalRequest) string {
			f.Helper()
			s := stream[api.JournalEvent]{ctx: f.ctx, out: make(chan *api.JournalEvent, 10)}
			if err := f.svc.Journal(req, s); err != nil {
				f.Fatal(err)
			}
			close(s.out)
			out := ""
			for ev := range s.out {
				out += ev.GetText() + " "
			}
			return out
		}
		if got := read(&api.JournalRequest{Node: "n1"}); got != "one two " {
			f.Errorf("%q", got)
		}
		if got := read(&api.JournalRequest{Node: "n1", Kinds: []string{"http"}, Local: true}); got != "two " {
			f.Errorf("%q", got)
		}
		if got := read(&api.JournalRequest{Node: "n1", SinceMs: 15}); got != "two " {
			f.Errorf("%q", got)
		}
		// Copies of another peer come in by AppendJournal; followers see them once.
		ctx, cancel := context.WithCancel(f.ctx)
		s := stream[api.JournalEvent]{ctx: ctx, out: make(chan *api.JournalEvent, 10)}
		ended := make(chan error, 1)
		go func() { ended <- f.svc.Journal(&api.JournalRequest{Node: "n1", Follow: true, Local: true}, s) }()
		conductortest.Pass(time.Second)
		peer := f.c.As(f.Context(), f, pki.Identity{Role: pki.RolePeer, Name: "p2"})
		ev := &api.JournalEvent{NodeId: id, Peer: "p2", Seq: 2, Kind: "http", Text: "three", AtMs: 30}
		if _, err := f.svc.AppendJournal(peer, &api.AppendJournalRequest{Events: []*api.JournalEvent{ev, ev}}); err != nil {
			f.Fatal(err)
		}
		conductortest.Pass(time.Second)
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			f.Error(err)
		}
		close(s.out)
		got := ""
		for ev := range s.out {
			got += ev.GetText() + " "
		}
		if got != "one two three " {
			f.Errorf("followed %q", got)
		}
	})
}

// park records refused logins with the node's present credentials.
func (f *fixture) park(ref string, failures uint32) {
	f.Helper()
	n := f.stored(ref)
	h := sha256.New()
	h.Write([]byte(n.GetDriver() + "\x00"))
	h.Write(n.GetDriverInfo())
	f.c.Must(&api.Op{Op: &api.Op_NodeObserve{NodeObserve: &api.NodeObserve{
		NodeId: n.GetId(), AssignEpoch: n.GetAssignEpoch(), Fields: []string{"bmc_park"},
		Node: &api.Node{BmcPark: &api.BmcPark{Failures: failures, CredentialsDigest: h.Sum(nil)}},
	}}})
}

// An image URL with a user or a query is sealed whole, and shown without them.
func TestDeploySecretImage(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.to(api.State_AVAILABLE)
		const url = "https://u:hunter2@h/a.raw?sig=s3cr3t"
		rep, err := f.provision(api.Event_EV_DEPLOY, `{"image":"`+url+`","checksum":"`+digest+`"}`)
		if err != nil {
			f.Fatal(err)
		}
		id := f.stored("n1").GetId()
		stored := f.c.Store.View().Flow(id).String()
		shown := rep.String() + f.explain().String()
		for _, text := range []string{stored, shown} {
			if strings.Contains(text, "hunter2") || strings.Contains(text, "s3cr3t") {
				f.Errorf("a secret is in %s", text)
			}
		}
		if !strings.Contains(string(rep.GetFlow().GetArgs()), `"image_shown":"https://******@h/a.raw?******"`) {
			f.Errorf("shown: %s", rep.GetFlow().GetArgs())
		}
		doc, err := f.p.Keyring().OpenDoc(flow.AAD(id), f.c.Store.View().Flow(id).GetArgs())
		if err != nil || !strings.Contains(string(doc), url) {
			f.Errorf("%s, %v", doc, err)
		}
	})
}

// The policy of evidence is checked with the request, frozen with it, and its
// token is a secret.
func TestDeployEvidence(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.to(api.State_AVAILABLE)
		base := `{"image":"http://h/a","checksum":"` + digest + `",`
		for args, want := range map[string]struct {
			kind errs.Kind
			says string
		}{
			`"evidence":"console:(login"}`:                                 {errs.Invalid, "console:REGEXP: error parsing"},
			`"evidence":"ping"}`:                                           {errs.Invalid, "phone_home, port:PORT"},
			`"evidence":"port:99999"}`:                                     {errs.Invalid, "no port"},
			`"evidence":"port:22","evidence_timeout":99999999}`:            {errs.Invalid, "evidence_timeout"},
			`"evidence_timeout":-1}`:                                       {errs.Invalid, "evidence_timeout"},
			`"phone_home_token":"0123456789abcdef"}`:                       {errs.Invalid, "of use with evidence phone_home only"},
			`"evidence":"phone_home","phone_home_token":"short or /bad/"}`: {errs.Invalid, "phone_home_token"},
			`"evidence":"phone_home"}`:                                     {errs.Invalid, "could not know the token"},
		} {
			_, err := f.provision(api.Event_EV_DEPLOY, base+args)
			wants(f.T, args, err, want.kind, want.says)
		}
		if err := f.update("n1", map[string]string{"instance_info/evidence": `"port:22"`}); err != nil {
			f.Fatal(err)
		}
		const token = "my-own-t0ken-of-the-image"
		rep, err := f.provision(api.Event_EV_DEPLOY, base+`"evidence":"phone_home","phone_home_token":"`+token+`","evidence_timeout":60}`)
		if err != nil {
			f.Fatal(err)
		}
		steps := rep.GetFlow().GetSteps()
		if last := steps[len(steps)-1]; last.GetName() != "evidence" || last.GetHoldLimitMs() < 60_000 || last.GetHoldLimitMs() > 90_000 {
			f.Errorf("last step %v", last)
		}
		if text := rep.String() + f.c.Store.View().Flow(f.stored("n1").GetId()).String(); strings.Contains(text, token) {
			f.Errorf("the token is in %s", text)
		}
		f.hold("p1")
		n := f.stored("n1")
		fl := f.c.Store.View().Flow(n.GetId())
		if !bytes.Equal(fl.GetPhoneHomeDigest(), node.PhoneHomeDigest(token)) || len(rep.GetFlow().GetPhoneHomeDigest()) != 0 {
			f.Errorf("stored %x, shown %x", fl.GetPhoneHomeDigest(), rep.GetFlow().GetPhoneHomeDigest())
		}
		f.c.Must(&api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: n.GetId(), Token: n.GetLastToken(), Fields: []string{"evidence"}, Node: &api.Node{
			Evidence: &api.Evidence{Policy: "phone_home", PhoneHomeDigest: fl.GetPhoneHomeDigest()},
		}}}})
		if e := f.explain().GetNode().GetEvidence(); e.GetPolicy() != "phone_home" || len(e.GetPhoneHomeDigest()) != 0 {
			f.Errorf("shown %v", e)
		}
	})
}

// Where the request brings no phone-home token, one is made that the sealed
// arguments alone hold; each deploy has another.
func TestPhoneHomeTokenIsMade(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.to(api.State_AVAILABLE)
		rep, err := f.provision(api.Event_EV_DEPLOY, `{"image":"http://h/a","checksum":"`+digest+`","evidence":"phone_home","config_drive":{"user_data":"x"}}`)
		if err != nil {
			f.Fatal(err)
		}
		id := f.stored("n1").GetId()
		fl := f.c.Store.View().Flow(id)
		doc, err := f.p.Keyring().OpenDoc(flow.AAD(id), fl.GetArgs())
		if err != nil {
			f.Fatal(err)
		}
		var a flow.DeployArgs
		if err := json.Unmarshal(doc, &a); err != nil || len(a.PhoneHomeToken) < 20 || !bytes.Equal(fl.GetPhoneHomeDigest(), node.PhoneHomeDigest(a.PhoneHomeToken)) {
			f.Errorf("%+v, %v", a, err)
		}
		if strings.Contains(rep.String()+fl.String(), a.PhoneHomeToken) {
			f.Error("the token is in the record or the answer")
		}
	})
}
