package flow

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

const (
	elsewhere = `{"fake_address":"elsewhere"}`
	strange   = "4c4c4544-0044-4710-8051-b4c04f4d3132" // UUID of a machine that no node stands for
)

func accept(machine string) *api.ChangeHardwareRequest {
	return &api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_AcceptMachine{AcceptMachine: machine}}
}

// readdress changes driver_info as `node set` does.
func (r *rig) readdress(info string) {
	r.Helper()
	r.c.Must(&api.Op{Op: &api.Op_NodePatch{NodePatch: &api.NodePatch{NodeId: nodeID, Fields: []string{"driver_info"}, Node: &api.Node{DriverInfo: []byte(info)}}}})
}

func (r *rig) powers(action api.PowerAction) func() {
	return func() { r.create(api.FlowKind_FLOW_POWER, action, api.Event_EVENT_NONE) }
}

// Nothing is changed at the BMC of another machine, whatever is asked for, and
// with driver_info put back all goes on.
func TestAnotherMachineIsLeftAlone(t *testing.T) {
	type ask struct {
		name  string
		begin func(r *rig) func()
	}
	verb := func(ev api.Event) func(*rig) func() { return func(r *rig) func() { return func() { r.begin(ev) } } }
	power := func(a api.PowerAction) func(*rig) func() { return func(r *rig) func() { return r.powers(a) } }
	change := func(req *api.ChangeHardwareRequest) func(*rig) func() {
		return func(r *rig) func() { return func() { r.changeHardware(req) } }
	}
	for state, asks := range map[api.State][]ask{
		api.State_MANAGEABLE: {
			{"off", power(api.PowerAction_POWER_ACTION_OFF)}, {"on", power(api.PowerAction_POWER_ACTION_ON)}, {"reboot", power(api.PowerAction_POWER_ACTION_REBOOT)},
			{"soft off", power(api.PowerAction_POWER_ACTION_SOFT_OFF)},
			{"boot device", change(fromPXE)}, {"boot mode", change(toBIOS)}, {"secure boot", change(secureOn)}, {"insert", change(insertISO)}, {"eject", change(ejectISO)},
			{"indicator", change(lightOn)}, {"clear events", change(clearLog)}, {"nmi", change(nmi)},
			{"inspect", verb(api.Event_EV_INSPECT)},
		},
		api.State_AVAILABLE: {{"deploy", verb(api.Event_EV_DEPLOY)}},
		api.State_ACTIVE:    {{"undeploy", verb(api.Event_EV_DELETE)}},
	} {
		t.Run(node.StateName(state), func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.start("p1")
				r.enrol("p1")
				r.does(api.Event_EV_MANAGE, api.State_MANAGEABLE)
				if state != api.State_MANAGEABLE {
					r.does(api.Event_EV_PROVIDE, api.State_AVAILABLE)
				}
				if state == api.State_ACTIVE {
					r.does(api.Event_EV_DEPLOY, api.State_ACTIVE)
				}
				other := r.driver.BMC("elsewhere")
				other.SetFacts(&api.BmcFacts{SystemUuid: strange})
				other.SetPower(api.PowerState_POWER_ON)
				other.Log(&api.BmcEvent{Id: "1", Text: "one"})
				was, before := r.node().GetBmc(), r.bmc.Changes()
				r.readdress(elsewhere)
				for _, ask := range asks {
					ask.begin(r)()
					r.idle(10 * time.Minute)
					e := r.flow().GetError()
					for _, says := range []string{"another machine", strange, was.GetSystemUuid(), "node set", "accept-machine", "Nothing was changed"} {
						if r.flow().GetStatus() != api.FlowStatus_FLOW_FAILED || !strings.Contains(e, says) {
							r.Errorf("%s: %q is not in %q", ask.name, says, e)
						}
					}
					if other.Changes() != 0 || r.bmc.Changes() != before {
						r.Fatalf("%s: %d changes at the other machine, %d at its own", ask.name, other.Changes(), r.bmc.Changes()-before)
					}
					if node.Verified(r.node()) || r.node().GetBmc().GetSystemUuid() != was.GetSystemUuid() {
						r.Errorf("%s: the record is %v", ask.name, r.node().GetBmc())
					}
				}
				r.readdress(`{}`)
				r.powers(api.PowerAction_POWER_ACTION_ON)()
				r.idle(time.Minute)
				r.powers(api.PowerAction_POWER_ACTION_OFF)()
				r.idle(time.Minute)
				if r.flow().GetStatus() != api.FlowStatus_FLOW_DONE || r.bmc.Power() != api.PowerState_POWER_OFF || !node.Verified(r.node()) {
					r.Errorf("with driver_info put back: %s", r.describe())
				}
			})
		})
	}
}

// The same machine behind another address is gone on with, and known from then
// on; so it is when the conductor dies as it notes that.
func TestSameMachineAtAnotherAddress(t *testing.T) {
	for _, dies := range []string{"never", "before", "after"} {
		t.Run(dies, func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.start("p1")
				r.enrol("p1")
				r.start("p2")
				conductortest.Until(r, time.Minute, "lease of p2", func() bool { return r.c.Store.View().LiveLease("p2") != nil })
				r.does(api.Event_EV_MANAGE, api.State_MANAGEABLE)
				moved := r.driver.BMC("elsewhere")
				moved.SetFacts(&api.BmcFacts{SystemUuid: strings.ToUpper(r.node().GetBmc().GetSystemUuid())})
				moved.SetPower(api.PowerState_POWER_ON)
				r.readdress(elsewhere)
				r.c.Peer("p1").Decide(func(cmd *api.Command) conductortest.Fate {
					if w := cmd.GetOps()[0].GetNodeWrite(); w.GetNode().GetBmc() == nil || dies == "never" {
						return conductortest.Fate{}
					}
					return conductortest.Fate{Lose: dies == "after", Kill: true}
				})
				r.powers(api.PowerAction_POWER_ACTION_OFF)()
				r.idle(10 * time.Minute)
				r.wants(api.State_MANAGEABLE, api.FlowStatus_FLOW_DONE)
				if moved.Power() != api.PowerState_POWER_OFF || r.bmc.Changes() != 0 || !node.Verified(r.node()) {
					r.Errorf("power %v, %d changes at the old address, %v", moved.Power(), r.bmc.Changes(), r.node().GetBmc())
				}
				asked := moved.Calls()
				r.powers(api.PowerAction_POWER_ACTION_ON)()
				r.idle(10 * time.Minute)
				for _, c := range moved.Calls()[len(asked):] {
					if c.Verb == fake.Identify {
						r.Error("it was asked again who it is")
					}
				}
			})
		})
	}
}

// A node that was never managed gets a machine that nobody has, and no other.
func TestPowerBeforeManage(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.enrol("p1")
		r.does(api.Event_EV_MANAGE, api.State_MANAGEABLE)
		r.bmc.SetPower(api.PowerState_POWER_ON)
		const second = "00000000-0000-4000-8000-0000000000ee"
		asks := func(info string) *api.Flow {
			r.Helper()
			r.c.Must(&api.Op{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{Id: second, Name: "second", Driver: "fake", DriverInfo: []byte(info), Assigned: "p1"}}}})
			steps, err := node.Plan(api.FlowKind_FLOW_POWER, api.PowerAction_POWER_ACTION_OFF)
			if err != nil {
				r.Fatal(err)
			}
			r.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: second, Flow: &api.Flow{Id: uuid.NewString(), NodeId: second, Kind: api.FlowKind_FLOW_POWER, Steps: steps}}}})
			conductortest.Until(r, 5*time.Minute, "the end of the power action", func() bool {
				v := r.c.Store.View()
				return v.Flow(second).GetStatus() != api.FlowStatus_FLOW_RUNNING && v.Lock(second) == nil
			})
			return r.c.Store.View().Flow(second)
		}
		f := asks(`{"fake_address":"` + nodeID + `"}`)
		if f.GetStatus() != api.FlowStatus_FLOW_FAILED || !strings.Contains(f.GetError(), "already") || r.bmc.Changes() != 0 {
			r.Errorf("another node's machine: %v %q, %d changes", f.GetStatus(), f.GetError(), r.bmc.Changes())
		}
		// Also while that node is not sure itself.
		r.c.Must(&api.Op{Op: &api.Op_NodeDelete{NodeDelete: &api.NodeDelete{NodeId: second}}})
		r.readdress(elsewhere)
		if f = asks(`{"fake_address":"` + nodeID + `"}`); f.GetStatus() != api.FlowStatus_FLOW_FAILED || !strings.Contains(f.GetError(), "driver_info of "+nodeID+" has changed since") || r.bmc.Changes() != 0 {
			r.Errorf("the machine of a node with new driver_info: %v %q, %d changes", f.GetStatus(), f.GetError(), r.bmc.Changes())
		}
		r.c.Must(&api.Op{Op: &api.Op_NodeDelete{NodeDelete: &api.NodeDelete{NodeId: second}}})
		free := r.driver.BMC("free")
		free.SetFacts(&api.BmcFacts{SystemUuid: strange})
		free.SetPower(api.PowerState_POWER_ON)
		if f = asks(`{"fake_address":"free"}`); f.GetStatus() != api.FlowStatus_FLOW_DONE || free.Power() != api.PowerState_POWER_OFF {
			r.Errorf("a machine that nobody has: %v %q", f.GetStatus(), f.GetError())
		}
		if n := r.c.Store.View().Node(second); n.GetBmc().GetSystemUuid() != strange || n.GetState() != api.State_ENROLL {
			r.Errorf("nothing was recorded: %v", n)
		}
	})
}

// A node that was never managed gets no machine that another has, also where the
// BMC is at another address and tells no UUID.
func TestPowerOfAnothersMachine(t *testing.T) {
	for name, facts := range map[string]*api.BmcFacts{
		"serial number": {Serial: "S4EVNX0R", BmcMacs: []string{"52:54:00:00:00:01"}},
		"MAC":           {BmcMacs: []string{"52:54:00:00:00:01"}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.start("p1")
				r.enrol("p1")
				r.bmc.SetFacts(proto.CloneOf(facts))
				r.does(api.Event_EV_MANAGE, api.State_MANAGEABLE)
				const second = "00000000-0000-4000-8000-0000000000ee"
				alias := r.driver.BMC("alias")
				alias.SetFacts(proto.CloneOf(facts))
				alias.SetPower(api.PowerState_POWER_ON)
				r.c.Must(&api.Op{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{Id: second, Name: "second", Driver: "fake", DriverInfo: []byte(`{"fake_address":"alias"}`), Assigned: "p1"}}}})
				for _, kind := range []api.FlowKind{api.FlowKind_FLOW_POWER, api.FlowKind_FLOW_VERIFY} {
					action, event := api.PowerAction_POWER_ACTION_OFF, api.Event_EVENT_NONE
					if kind == api.FlowKind_FLOW_VERIFY {
						action, event = api.PowerAction_POWER_ACTION_NONE, api.Event_EV_MANAGE
					}
					steps, err := node.Plan(kind, action)
					if err != nil {
						r.Fatal(err)
					}
					r.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: second, Event: event, Flow: &api.Flow{Id: uuid.NewString(), NodeId: second, Kind: kind, Steps: steps}}}})
					conductortest.Until(r, 5*time.Minute, "the end", func() bool {
						v := r.c.Store.View()
						return v.Flow(second).GetStatus() != api.FlowStatus_FLOW_RUNNING && v.Lock(second) == nil
					})
					v := r.c.Store.View()
					if f := v.Flow(second); f.GetStatus() != api.FlowStatus_FLOW_FAILED || !strings.Contains(f.GetError(), "already") || !strings.Contains(f.GetError(), nodeID) {
						r.Errorf("%v: %v %q", kind, f.GetStatus(), f.GetError())
					}
					if alias.Changes() != 0 || v.Node(second).GetBmc() != nil {
						r.Errorf("%v: %d changes at the machine of %s, power is %v", kind, alias.Changes(), nodeID, alias.Power())
					}
				}
			})
		})
	}
}

// A BMC that told who it is and tells nothing now may be another one, at the
// same address too: nothing is changed there until a person says that it is the
// node's. Nobody is locked out.
func TestToldLessThanBefore(t *testing.T) {
	for _, state := range []api.State{api.State_MANAGEABLE, api.State_ENROLL} {
		t.Run(node.StateName(state), func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.start("p1")
				r.enrol("p1")
				r.bmc.SetFacts(&api.BmcFacts{SystemUuid: strange, Serial: "S-17"})
				if state == api.State_MANAGEABLE {
					r.does(api.Event_EV_MANAGE, state)
				} else {
					r.powers(api.PowerAction_POWER_ACTION_ON)()
					r.idle(time.Minute)
				}
				r.bmc.SetPower(api.PowerState_POWER_ON)
				r.bmc.SetFacts(&api.BmcFacts{})
				before := r.bmc.Changes()
				r.readdress(`{"fake_password":"new"}`)
				r.powers(api.PowerAction_POWER_ACTION_OFF)()
				r.idle(time.Minute)
				way := "accept-machine " + nodeID + " --is 'fake " + nodeID + "'"
				if state == api.State_ENROLL {
					way = "node manage " + nodeID
				}
				if f := r.flow(); f.GetStatus() != api.FlowStatus_FLOW_FAILED || !strings.Contains(f.GetError(), way) || !strings.Contains(f.GetError(), "tells nothing") {
					r.Errorf("%v %q", f.GetStatus(), f.GetError())
				}
				if r.bmc.Changes() != before || node.Verified(r.node()) || r.node().GetBmc().GetSystemUuid() != strange {
					r.Fatalf("%d changes, on record is %v", r.bmc.Changes()-before, r.node().GetBmc())
				}
				if state == api.State_ENROLL {
					r.does(api.Event_EV_MANAGE, api.State_MANAGEABLE)
				} else {
					r.changeHardware(accept("fake " + nodeID))
					r.idle(time.Minute)
				}
				r.powers(api.PowerAction_POWER_ACTION_OFF)()
				r.idle(time.Minute)
				r.wants(api.State_MANAGEABLE, api.FlowStatus_FLOW_DONE)
				if r.bmc.Power() != api.PowerState_POWER_OFF || !node.Verified(r.node()) {
					r.Errorf("power %v, %v", r.bmc.Power(), r.node().GetBmc())
				}
			})
		})
	}
}

// A BMC that tells less of the same machine gives up none of its claims, whether
// it is asked after a change or by manage.
func TestPoorerFactsKeepTheClaim(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.enrol("p1")
		r.bmc.SetFacts(&api.BmcFacts{SystemUuid: strange, Serial: "S-17", BmcMacs: []string{"52:54:00:00:00:01"}})
		r.powers(api.PowerAction_POWER_ACTION_ON)()
		r.idle(time.Minute)
		for what, do := range map[string]func(){
			"power":  r.powers(api.PowerAction_POWER_ACTION_OFF),
			"manage": func() { r.does(api.Event_EV_MANAGE, api.State_MANAGEABLE) },
		} {
			r.bmc.SetFacts(&api.BmcFacts{Serial: "s-17", Firmware: what})
			r.readdress(`{"fake_password":"` + what + `"}`)
			do()
			r.idle(time.Minute)
			b := r.node().GetBmc()
			if !node.Verified(r.node()) || b.GetSystemUuid() != strange || len(b.GetBmcMacs()) != 1 || b.GetFirmware() != what {
				r.Errorf("after %s: %v, %s", what, b, r.describe())
			}
		}
	})
}

// A person who names the machine that is there now gives it to the node; who
// names another one is told what is there. Nothing is changed either way.
func TestAcceptMachine(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.enrol("p1")
		r.does(api.Event_EV_MANAGE, api.State_MANAGEABLE)
		r.does(api.Event_EV_INSPECT, api.State_MANAGEABLE)
		nonce := r.node().GetBoot().GetNonce()
		other := r.driver.BMC("elsewhere")
		other.SetFacts(&api.BmcFacts{SystemUuid: strange, Serial: "S-17"})
		other.SetPower(api.PowerState_POWER_ON)
		before := r.bmc.Changes()
		r.readdress(elsewhere)
		r.changeHardware(accept(r.node().GetBmc().GetSystemUuid()))
		r.idle(time.Minute)
		r.wants(api.State_MANAGEABLE, api.FlowStatus_FLOW_FAILED)
		if e := r.flow().GetError(); !strings.Contains(e, strange) || node.Verified(r.node()) {
			r.Errorf("the wrong name: %q, %v", e, r.node().GetBmc())
		}
		for _, name := range []string{strings.ToUpper(strange), "s-17"} {
			r.readdress(elsewhere + " ")
			r.changeHardware(accept(name))
			r.idle(time.Minute)
			r.wants(api.State_MANAGEABLE, api.FlowStatus_FLOW_DONE)
			if !node.Verified(r.node()) || r.node().GetBmc().GetSystemUuid() != strange {
				r.Errorf("%s: %v", name, r.node().GetBmc())
			}
		}
		if r.node().GetBoot().GetNonce() == nonce {
			r.Error("the agent of the machine that was there before could be gone on with")
		}
		if other.Changes() != 0 || r.bmc.Changes() != before {
			r.Errorf("%d and %d changes", other.Changes(), r.bmc.Changes()-before)
		}
		r.powers(api.PowerAction_POWER_ACTION_OFF)()
		r.idle(time.Minute)
		if other.Power() != api.PowerState_POWER_OFF {
			r.Errorf("power %v: %s", other.Power(), r.describe())
		}
	})
}

// Nobody waits for a silent BMC longer than a person would, and the reason is
// told.
func TestAcceptMachineOfASilentBMC(t *testing.T) {
	for name, fault := range map[string]fake.Fault{
		"silent":          {Kind: fake.Die},
		"cannot be found": {Kind: fake.Fail, Err: errs.New(errs.Unreachable, "connection refused")},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.start("p1")
				r.enrol("p1")
				r.does(api.Event_EV_MANAGE, api.State_MANAGEABLE)
				r.readdress(elsewhere)
				other := r.driver.BMC("elsewhere")
				other.Inject(fault)
				r.changeHardware(accept(strange))
				r.idle(10 * time.Minute)
				r.wants(api.State_MANAGEABLE, api.FlowStatus_FLOW_FAILED)
				if n := len(other.Calls()); n > verifyTries {
					r.Errorf("it was asked %d times", n)
				}
				if took := r.flow().GetEndedMs() - r.flow().GetCreatedMs(); took > 60_000 {
					r.Errorf("the node was held for %d ms", took)
				}
				if e := r.flow().GetError(); fault.Err != nil && !strings.Contains(e, "connection refused") {
					r.Errorf("error %q", e)
				}
			})
		})
	}
}

// When the time of a step is over in the middle of a call, the last real error
// is told.
func TestLateStepTellsWhy(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.enrol("p1")
		r.does(api.Event_EV_MANAGE, api.State_MANAGEABLE)
		r.bmc.Inject(fake.Fault{Kind: fake.Fail, Err: errs.New(errs.Unreachable, "connection refused"), Times: 3}, fake.Fault{Kind: fake.Die})
		r.powers(api.PowerAction_POWER_ACTION_ON)()
		r.idle(20 * time.Minute)
		r.wants(api.State_MANAGEABLE, api.FlowStatus_FLOW_FAILED)
		if e := r.flow().GetError(); !strings.Contains(e, "not done in") || !strings.Contains(e, "last:") {
			r.Errorf("error %q", e)
		}
	})
}

// A BMC says what it likes: nothing of it is told as part of a command that a
// shell would read as anything but a word.
func FuzzWord(f *testing.F) {
	for _, s := range []string{"S-17", "x'; touch /tmp/owned; '", "`id`", "$(id)", "a\nb", "c 623", "é", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got := word(name)
		if strings.HasPrefix(got, "NAME ") {
			return
		}
		inner, ok := strings.CutPrefix(got, "'")
		inner, end := strings.CutSuffix(inner, "'")
		if !ok || !end || inner != name || strings.ContainsAny(inner, "'`$\\\"!\n") {
			t.Errorf("%q is told as %s", name, got)
		}
	})
}

// What neither reading names proves nothing, unless the site has said so.
func TestSameAsBefore(t *testing.T) {
	for name, c := range map[string]struct {
		was, is *api.BmcFacts
		props   string
		says    string
	}{
		"the same":              {&api.BmcFacts{SystemUuid: strange}, &api.BmcFacts{SystemUuid: strange}, `{}`, ""},
		"another":               {&api.BmcFacts{Serial: "S-17"}, &api.BmcFacts{Serial: "S-18"}, `{"identity_check":"mac-only"}`, "belongs to another machine"},
		"only the password":     {&api.BmcFacts{BmcKey: "b 623"}, &api.BmcFacts{BmcKey: "b 623"}, `{}`, ""},
		"less than before":      {&api.BmcFacts{BmcKey: "b 623", SystemUuid: strange}, &api.BmcFacts{BmcKey: "b 623"}, `{}`, "--is 'b 623'"},
		"less than before, MAC": {&api.BmcFacts{BmcKey: "b 623", SystemUuid: strange}, &api.BmcFacts{BmcKey: "b 623", BmcMacs: []string{"52:54:00:00:00:01"}}, `{}`, "--is 'b 623'"},
		"nothing told":          {&api.BmcFacts{BmcKey: "b 623"}, &api.BmcFacts{BmcKey: "c 623"}, `{}`, "--is 'c 623'"},
		"a command as a name":   {&api.BmcFacts{Serial: "S-17"}, &api.BmcFacts{Serial: "x'; touch /tmp/owned; '"}, `{}`, "--is NAME"},
		"nothing told, allowed": {&api.BmcFacts{BmcKey: "b 623"}, &api.BmcFacts{BmcKey: "c 623"}, `{"identity_check":"mac-only"}`, ""},
	} {
		n := &api.Node{Id: "n1", Name: "n1", State: api.State_ACTIVE, Bmc: c.was, Properties: []byte(c.props)}
		err := sameAsBefore(n, c.is)
		if (err == nil) != (c.says == "") || err != nil && (!strings.Contains(err.Error(), c.says) || errs.KindOf(err) != errs.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	n := &api.Node{Id: "n1", State: api.State_ENROLL, Bmc: &api.BmcFacts{Serial: "S-17"}}
	if err := sameAsBefore(n, &api.BmcFacts{Serial: "S-18"}); err == nil || !strings.Contains(err.Error(), "node manage n1") {
		t.Errorf("in enroll: %v", err)
	}
}
