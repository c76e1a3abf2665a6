package flow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

func TestParseEvidence(t *testing.T) {
	for text, want := range map[string]string{
		"": "none", "none": "none", "phone_home": "phone_home", "port:22": "port:22",
		"port:192.0.2.7:22": "port:192.0.2.7:22", "port:[2001:db8::7]:22": "port:[2001:db8::7]:22",
		"console:login:": "console:login:", `console:^web1 (login|ready):\s*$`: `console:^web1 (login|ready):\s*$`,
	} {
		p, err := ParseEvidence(text)
		if err != nil || p.String() != want {
			t.Errorf("%q: %s, %v", text, p, err)
		}
		if again, err := ParseEvidence(p.String()); err != nil || again != p {
			t.Errorf("%q does not round-trip: %v, %v", text, again, err)
		}
	}
	for _, text := range []string{"port:", "port:0", "port:65536", "port:host:22", "port:192.0.2.7", "ping", "phone home",
		"console", "console:", "console:(", "console:a*", "console:a|", "console:(a{100}){100}", "console:a\nb", "console:\xff", "console:" + strings.Repeat("a", 201)} {
		if _, err := ParseEvidence(text); !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// deployWith begins a deploy as the service does.
func (r *rig) deployWith(a DeployArgs) {
	r.Helper()
	a.Image, a.Checksum = "http://images/a.raw", checksum
	steps, err := node.Plan(api.FlowKind_FLOW_DEPLOY, api.PowerAction_POWER_ACTION_NONE)
	if err != nil {
		r.Fatal(err)
	}
	f := &api.Flow{Id: "deploy-with", NodeId: nodeID, Kind: api.FlowKind_FLOW_DEPLOY, Steps: steps}
	if err := AddEvidence(f, &a, r.node()); err != nil {
		r.Fatal(err)
	}
	if f.Args, err = json.Marshal(a); err != nil {
		r.Fatal(err)
	}
	r.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: nodeID, Event: api.Event_EV_DEPLOY, Flow: f}}})
}

func (r *rig) phoneHome(token string) error {
	_, err := r.c.Apply(&api.Op{Op: &api.Op_PhoneHome{PhoneHome: &api.PhoneHome{NodeId: nodeID, Digest: node.PhoneHomeDigest(token), Source: "10.0.0.7"}}})
	return err
}

// Without a policy the boot entry that was read back is the evidence.
func TestEvidenceBootEntry(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		r.deployWith(DeployArgs{})
		r.idle(time.Hour)
		r.checkDeploy(0)
		e := r.node().GetEvidence()
		if e.GetPolicy() != "none" || e.GetBootEntry() != "uefi Boot0001" || e.GetBootEntryMs() == 0 || e.GetSeen() != "" || e.GetFlowId() != r.flow().GetId() {
			r.Errorf("evidence %v", e)
		}
	})
}

const homeToken = "t0ken-of-one-node"

// A node is active only after its system has called, also when the conductor
// is killed while it waits. What calls while the ramdisk runs is not it.
func TestEvidencePhoneHome(t *testing.T) {
	for _, killed := range []bool{false, true} {
		inBubble(t, nil, func(r *rig) {
			r.start("p1")
			r.ready("p1")
			r.start("p2")
			r.deployWith(DeployArgs{Evidence: "phone_home", PhoneHomeToken: homeToken})
			r.waitStep("write_image")
			if err := r.phoneHome(homeToken); !errors.Is(err, errs.Busy) {
				r.Errorf("a call while the image is written: %v", err)
			}
			r.waitStep("evidence")
			if err := r.phoneHome("rubbish-rubbish-rubbish"); !errors.Is(err, errs.Denied) {
				r.Errorf("a wrong token: %v", err)
			}
			conductortest.Pass(5 * time.Minute)
			if r.state() != api.State_DEPLOY_WAIT {
				r.Errorf("state %v before the call", r.state())
			}
			if killed {
				r.c.Peer("p1").Kill()
			}
			if err := r.phoneHome(homeToken); err != nil {
				r.Error(err)
			}
			r.idle(10 * time.Minute)
			r.checkDeploy(0)
			if e := r.node().GetEvidence(); e.GetSeen() != "phone_home" || e.GetSource() != "10.0.0.7" || e.GetSeenMs() == 0 || e.GetBootEntry() == "" {
				r.Errorf("evidence %v", e)
			}
		})
	}
}

// What is not seen in time fails the deploy, and the text says what to do. A
// call that comes too late changes nothing.
func TestEvidenceNotSeen(t *testing.T) {
	for policy, says := range map[string]string{
		"phone_home":        "the deployed system did not phone home; the image is on the disk",
		"port:192.0.2.7:22": "nothing answered on port:192.0.2.7:22; the image is on the disk",
	} {
		inBubble(t, nil, func(r *rig) {
			s := r.start("p1")
			s.engine.cfg.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }
			r.ready("p1")
			a := DeployArgs{Evidence: policy, EvidenceTimeout: 600}
			if policy == "phone_home" {
				a.PhoneHomeToken = homeToken
			}
			r.deployWith(a)
			r.waitStep("evidence")
			begin := time.Now()
			r.idle(time.Hour)
			r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
			if text := r.node().GetLastError(); !strings.Contains(text, says) || !strings.Contains(text, "not done in 10m0s") {
				r.Errorf("%q", text)
			}
			if took := time.Since(begin); took < 590*time.Second || took > 620*time.Second {
				r.Errorf("it took %v", took)
			}
			if a.PhoneHomeToken != "" {
				if err := r.phoneHome(homeToken); !errors.Is(err, errs.WrongState) {
					r.Errorf("too late: %v", err)
				}
			}
		})
	}
}

// The owner tries the port at the addresses that the node's MAC has.
func TestEvidencePort(t *testing.T) {
	inBubble(t, nil, func(r *rig) {
		s := r.start("p1")
		r.ready("p1")
		r.c.Must(&api.Op{Op: &api.Op_NetworkSet{NetworkSet: &api.NetworkSet{Network: &api.Network{Name: "n", Cidr: "10.0.0.0/24", RangeStart: "10.0.0.10", RangeEnd: "10.0.0.20"}}}})
		ip := r.c.Must(&api.Op{Op: &api.Op_AddressAllocate{AddressAllocate: &api.AddressAllocate{Network: "n", Mac: nodeMAC}}}).GetOps()[0].GetAddress()
		var mu sync.Mutex
		tries, from := 0, []net.Conn{}
		s.engine.cfg.Dial = func(_ context.Context, _, address string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			if tries++; tries < 10 || address != net.JoinHostPort(ip, "22") {
				return nil, errors.New("refused")
			}
			ours, theirs := net.Pipe()
			from = append(from, theirs)
			return ours, nil
		}
		r.deployWith(DeployArgs{Evidence: "port:22"})
		r.idle(time.Hour)
		r.checkDeploy(0)
		if e := r.node().GetEvidence(); e.GetSeen() != "port:22" || e.GetSource() != ip || len(e.GetPhoneHomeDigest()) != 0 {
			r.Errorf("evidence %v", e)
		}
		for _, c := range from {
			c.Close()
		}
	})
}

// The system learns where to call from the meta data of its config drive; the
// record has the token's digest only.
func TestPhoneHomeURLs(t *testing.T) {
	var told string
	inBubble(t, func(c *conductortest.MachineConfig) {
		c.Script = func(cmd *api.AgentCommand) *api.CommandStatus {
			if cmd.GetName() == agentproto.CmdConfigDrive {
				told = string(cmd.GetArgs())
			}
			return nil
		}
	}, func(r *rig) {
		r.start("p1")
		r.ready("p1")
		m := r.c.Store.View().Member("p1")
		m = proto.CloneOf(m)
		m.BootAddress = "10.0.0.1:7484"
		r.c.Must(&api.Op{Op: &api.Op_MemberSet{MemberSet: &api.MemberSet{Member: m}}})
		r.deployWith(DeployArgs{Evidence: "phone_home", PhoneHomeToken: homeToken, ConfigDrive: []byte(`"{\"user_data\":\"x\"}"`)})
		r.waitStep("evidence")
		if !strings.Contains(told, "http://10.0.0.1:7484/phone-home/"+homeToken) {
			r.Errorf("the drive has %s", told)
		}
		if e := r.node().GetEvidence(); !bytes.Equal(e.GetPhoneHomeDigest(), node.PhoneHomeDigest(homeToken)) || strings.Contains(e.String(), homeToken) {
			r.Errorf("%v", e)
		}
		if err := r.phoneHome(homeToken); err != nil {
			r.Error(err)
		}
		r.idle(10 * time.Minute)
		r.checkDeploy(0)
	})
}
