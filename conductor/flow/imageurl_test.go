package flow

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/conductortest"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal"
	"github.com/ironring/ironring/node"
)

func TestSecretsOfImageURL(t *testing.T) {
	for _, c := range []struct {
		url, shown string
		secrets    []string
	}{
		{"http://images/a.raw", "http://images/a.raw", nil},
		{"https://u:hunter2@images:8443/a%20b.raw", "https://******@images:8443/a%20b.raw", []string{"hunter2", "u:hunter2"}},
		{"http://images/a.raw?sig=abc%2Fdef&x=1", "http://images/a.raw?******", []string{"abc%2Fdef", "abc/def", "sig=abc%2Fdef&x=1"}},
		{"http://images/a.raw?", "http://images/a.raw", nil},
	} {
		if got := seal.MaskURL(c.url); got != c.shown {
			t.Errorf("%s is shown as %s", c.url, got)
		}
		have := secretsOf(c.url)
		for _, s := range c.secrets {
			found := false
			for _, h := range have {
				found = found || h == s
			}
			if !found {
				t.Errorf("%s: %q is not among %q", c.url, s, have)
			}
		}
		err := scrub(errs.New(errs.Unreachable, "get %s: refused", c.url), have)
		for _, s := range c.secrets {
			if strings.Contains(err.Error(), s) {
				t.Errorf("the error says %q", err)
			}
		}
		if !errors.Is(err, errs.Unreachable) || errs.KindOf(err) != errs.Unreachable {
			t.Errorf("it is no longer what it was: %v", err)
		}
	}
}

func TestImageNameHasNoSecrets(t *testing.T) {
	for raw, want := range map[string]string{
		"http://h/a/debian.raw?sig=s3cr3t": "debian.raw", "http://u:hunter2@h": "h", "http://u:hunter2@h?sig=s3cr3t": "h", "https://u:p@w@h/a@1.raw": "a@1.raw", "http://h/a@1.raw": "a@1.raw", "": ".",
	} {
		if got := imageName(raw); got != want {
			t.Errorf("%s: %q, want %q", raw, got, want)
		}
	}
}

// Whatever the agent says of an image whose URL has secrets, they reach no
// record, no journal and no progress.
func TestImageSecretsStayHidden(t *testing.T) {
	const token = "s3cr3t-signature"
	const url = "http://user:hunter2pw@images/a.raw?sig=" + token
	leaks := func(c *api.AgentCommand) *api.CommandStatus {
		if c.GetName() != agentproto.CmdWriteImage {
			return nil
		}
		return &api.CommandStatus{State: api.CommandStatus_FAILED, ErrorKind: errs.Internal.String(), Error: "get " + url + ": 403", Message: "asking " + url}
	}
	inBubble(t, func(c *conductortest.MachineConfig) { c.Script = leaks }, func(r *rig) {
		s := r.start("p1")
		r.ready("p1")
		steps, err := node.Plan(api.FlowKind_FLOW_DEPLOY, api.PowerAction_POWER_ACTION_NONE)
		if err != nil {
			r.Fatal(err)
		}
		args, err := json.Marshal(DeployArgs{Image: url, Checksum: checksum})
		if err != nil {
			r.Fatal(err)
		}
		sealed, err := s.peer.Keyring().SealDoc(AAD(nodeID), args, func(path []string) bool { return path[0] == "image" })
		if err != nil {
			r.Fatal(err)
		}
		r.c.Must(&api.Op{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: nodeID, Event: api.Event_EV_DEPLOY, Flow: &api.Flow{
			Id: "f", NodeId: nodeID, Kind: api.FlowKind_FLOW_DEPLOY, Steps: steps, Args: sealed,
		}}}})
		r.idle(10 * time.Minute)
		r.wants(api.State_DEPLOY_FAILED, api.FlowStatus_FLOW_FAILED)
		var sent agentproto.WriteImageArgs
		if w := r.machine.Begun(agentproto.CmdWriteImage); len(w) != 1 || json.Unmarshal(w[0].GetArgs(), &sent) != nil || sent.URLs[0] != url {
			r.Errorf("the agent was asked for %v", w)
		}
		told := r.past() + r.node().String() + r.flow().String() + s.journal.Facts(nodeID).String()
		evs, err := s.journal.Read(r.Context(), nodeID)
		if err != nil {
			r.Error(err)
		}
		for _, ev := range evs {
			told += ev.GetText() + "\n"
		}
		for _, secret := range []string{token, "hunter2pw"} {
			if strings.Contains(told, secret) {
				r.Errorf("%s is in what is kept", secret)
			}
		}
		if !strings.Contains(r.node().GetLastError(), "http://******@images/a.raw?******: 403") {
			r.Errorf("the error says too little: %q", r.node().GetLastError())
		}
	})
}
