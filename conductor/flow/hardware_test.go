package flow

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/drivers/fake"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

var (
	insertISO = &api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_InsertMedia{InsertMedia: &api.MediaChange{Image: "http://h/a.iso"}}}
	insertTwo = &api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_InsertMedia{InsertMedia: &api.MediaChange{Image: "http://h/b.iso"}}}
	ejectISO  = &api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_EjectMedia{}}
	lightOn   = &api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_Indicator{Indicator: api.Indicator_INDICATOR_BLINKING}}
	toBIOS    = &api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_BootMode{BootMode: api.BootMode_BOOT_MODE_BIOS}}
	secureOn  = &api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_SecureBoot{SecureBoot: true}}
	fromPXE   = &api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_BootDevice{BootDevice: &api.BootDeviceChange{Device: api.BootDevice_BOOT_DEVICE_PXE}}}
	clearLog  = &api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_ClearEvents{ClearEvents: true}}
	nmi       = &api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_Nmi{Nmi: true}}
)

// changeHardware asks for a change as the service does.
func (r *rig) changeHardware(req *api.ChangeHardwareRequest) {
	r.Helper()
	step, err := node.HardwareStep(req)
	if err != nil {
		r.Fatal(err)
	}
	r.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: nodeID, Flow: &api.Flow{
		Id: uuid.NewString(), NodeId: nodeID, Kind: api.FlowKind_FLOW_HARDWARE, Steps: []*api.Step{step},
	}}}})
}

// count is how often the BMC was asked for something.
func (r *rig) count(v fake.Verb) (n int) {
	for _, c := range r.bmc.Calls() {
		if c.Verb == v {
			n++
		}
	}
	return n
}

// Every change is carried out once, under a token, and read back; the state of
// the node stays.
func TestHardwareChanges(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.enrol("p1")
		r.bmc.Log(&api.BmcEvent{Id: "1", Text: "one"})
		r.bmc.Log(&api.BmcEvent{Id: "2", Text: "two"})
		for _, c := range []struct {
			req  *api.ChangeHardwareRequest
			verb fake.Verb
			n    int
		}{
			{insertISO, fake.InsertMedia, 1}, {insertISO, fake.InsertMedia, 1}, {insertTwo, fake.InsertMedia, 2}, {ejectISO, fake.EjectMedia, 2},
			{lightOn, fake.SetIndicator, 1}, {toBIOS, fake.SetBootMode, 1}, {secureOn, fake.SetSecureBoot, 1}, {fromPXE, fake.SetBootDevice, 1},
			{clearLog, fake.ClearEvents, 1}, {nmi, fake.SendNMI, 1}, {nmi, fake.SendNMI, 2},
		} {
			r.changeHardware(c.req)
			r.idle(time.Minute)
			r.wants(api.State_ENROLL, api.FlowStatus_FLOW_DONE)
			if n := r.count(c.verb); n != c.n {
				r.Errorf("%s: asked for %d times, want %d", c.verb, n, c.n)
			}
		}
		if r.bmc.NMIs() != 2 || r.bmc.Image() != "" || r.c.Store.View().Intent(nodeID) != nil {
			r.Errorf("%d NMIs, image %q, intent %v", r.bmc.NMIs(), r.bmc.Image(), r.c.Store.View().Intent(nodeID))
		}
		for _, c := range r.bmc.Calls() {
			if !c.Effective.IsZero() && c.Token == 0 {
				r.Errorf("%s without a token", c.Verb)
			}
		}
	})
}

// What a BMC accepts and does not do fails the flow, and says so.
func TestHardwareWithoutEffect(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.enrol("p1")
		r.bmc.Inject(fake.Fault{Kind: fake.Lie, Verb: fake.SetIndicator})
		r.changeHardware(lightOn)
		r.idle(10 * time.Minute)
		r.wants(api.State_ENROLL, api.FlowStatus_FLOW_FAILED)
		if e := r.flow().GetError(); !strings.Contains(e, "not seen") {
			r.Errorf("the error is %q", e)
		}
		r.bmc.Heal()
		// Done the second time, it is fine.
		r.bmc.Inject(fake.Fault{Kind: fake.Lie, Verb: fake.SetIndicator, Times: 1})
		r.changeHardware(lightOn)
		r.idle(10 * time.Minute)
		r.wants(api.State_ENROLL, api.FlowStatus_FLOW_DONE)
		// A BMC that cannot do it.
		r.bmc.Inject(fake.Fault{Kind: fake.Fail, Verb: fake.SetSecureBoot, Err: errs.New(errs.Unsupported, "no such thing")})
		r.changeHardware(secureOn)
		r.idle(time.Minute)
		r.wants(api.State_ENROLL, api.FlowStatus_FLOW_FAILED)
	})
}

// An NMI whose outcome is not known is not sent again, by nobody.
func TestNMIIsSentOnce(t *testing.T) {
	for name, test := range map[string]struct {
		fault fake.Fault
		kill  bool
		want  api.FlowStatus
		nmis  int
	}{
		"unknown, not done": {fake.Fault{Kind: fake.Fail, Verb: fake.SendNMI, Err: errs.New(errs.Timeout, "cut")}, false, api.FlowStatus_FLOW_FAILED, 0},
		"unknown, done":     {fake.Fault{Kind: fake.FailAfter, Verb: fake.SendNMI, Err: errs.New(errs.Timeout, "cut")}, false, api.FlowStatus_FLOW_FAILED, 1},
		"not reached":       {fake.Fault{Kind: fake.Fail, Verb: fake.SendNMI, Times: 1, Err: errs.New(errs.Unreachable, "no route")}, false, api.FlowStatus_FLOW_DONE, 1},
		"holder dies":       {fake.Fault{Kind: fake.Slow, Verb: fake.SendNMI, Delay: 30 * time.Second}, true, api.FlowStatus_FLOW_FAILED, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(r *rig) {
				r.start("p1")
				r.enrol("p1")
				r.start("p2")
				conductortest.Until(r, time.Minute, "lease of p2", func() bool { return r.c.Store.View().LiveLease("p2") != nil })
				r.bmc.Inject(test.fault)
				r.changeHardware(nmi)
				if test.kill {
					conductortest.Until(r, time.Minute, "intent", func() bool { return r.c.Store.View().Intent(nodeID) != nil })
					conductortest.Pass(time.Second)
					r.c.Peer("p1").Kill()
				}
				r.idle(10 * time.Minute)
				r.wants(api.State_ENROLL, test.want)
				if n := r.bmc.NMIs(); n > 1 || !test.kill && n != test.nmis {
					r.Errorf("%d NMIs", n)
				}
				if in := r.c.Store.View().Intent(nodeID); in != nil {
					r.Errorf("the intent is open: %v", in)
				}
			})
		})
	}
}

// manage refuses a BMC or a machine that another node has, and never changes
// the power.
func TestManageRefusesWhatAnotherHas(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.enrol("p1")
		r.bmc.SetPower(api.PowerState_POWER_ON)
		r.begin(api.Event_EV_MANAGE)
		r.idle(time.Minute)
		r.wants(api.State_MANAGEABLE, api.FlowStatus_FLOW_DONE)
		if r.bmc.Changes() != 0 || r.bmc.Power() != api.PowerState_POWER_ON || r.node().GetBmc().GetBmcKey() == "" {
			r.Errorf("%d changes, power %v, %v", r.bmc.Changes(), r.bmc.Power(), r.node().GetBmc())
		}
		const twin = "00000000-0000-4000-8000-0000000000ff"
		for name, info := range map[string]string{"BMC": `{"fake_address":"` + nodeID + `"}`, "machine": `{"fake_address":"other"}`} {
			other := r.driver.BMC("other")
			other.SetFacts(&api.BmcFacts{SystemUuid: r.node().GetBmc().GetSystemUuid()})
			r.c.Must(&api.Op{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{Id: twin, Name: "twin", Driver: "fake", DriverInfo: []byte(info), Assigned: "p1"}}}})
			steps, err := node.Plan(api.FlowKind_FLOW_VERIFY, api.PowerAction_POWER_ACTION_NONE)
			if err != nil {
				r.Fatal(err)
			}
			r.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: twin, Event: api.Event_EV_MANAGE, Flow: &api.Flow{
				Id: uuid.NewString(), NodeId: twin, Kind: api.FlowKind_FLOW_VERIFY, Steps: steps,
			}}}})
			conductortest.Until(r, 5*time.Minute, "the end of manage of the twin", func() bool {
				v := r.c.Store.View()
				return v.Flow(twin).GetStatus() != api.FlowStatus_FLOW_RUNNING && v.Lock(twin) == nil
			})
			n := r.c.Store.View().Node(twin)
			if n.GetState() != api.State_ENROLL || !strings.Contains(n.GetLastError(), "already") || n.GetBmc() != nil {
				r.Errorf("%s: the twin is %v with error %q and BMC %v", name, n.GetState(), n.GetLastError(), n.GetBmc())
			}
			if r.bmc.Changes() != 0 || other.Changes() != 0 {
				r.Errorf("%s: something was changed", name)
			}
			r.c.Must(&api.Op{Op: &api.Op_NodeDelete{NodeDelete: &api.NodeDelete{NodeId: twin}}})
		}
	})
}
