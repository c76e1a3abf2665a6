package lab

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/sim/bmc"
)

// TestBMCThroughAnyPeer: whichever peer is asked, one and the same asks the BMC,
// by one session.
func TestBMCThroughAnyPeer(t *testing.T) {
	t.Parallel()
	f := startFixtureOf(t, 3, 0)
	n := f.enrolled(t)
	f.does(t, n, api.Event_EV_MANAGE, nil, api.State_MANAGEABLE)
	before := n.bmc.Stats()
	askers := map[string]bool{}
	for _, p := range f.peers {
		out, code := f.runAt(p, "", "node", "bmc", "sensors", n.name, "-o", "json")
		var reply struct {
			From    string            `json:"from"`
			Sensors []json.RawMessage `json:"sensors"`
		}
		if code != 0 || json.Unmarshal([]byte(out), &reply) != nil || len(reply.Sensors) == 0 {
			t.Fatalf("sensors through %s: exit code %d:\n%s", p.id, code, out)
		}
		askers[reply.From] = true
		if out, code := f.runAt(p, "", "node", "bmc", "indicator", n.name, "on", "--wait"); code != 0 {
			t.Errorf("indicator through %s: exit code %d:\n%s", p.id, code, out)
		}
	}
	reply, err := f.client.GetNode(within(t), &api.GetNodeRequest{Node: n.name})
	if err != nil {
		t.Fatal(err)
	}
	if owner := reply.GetNode().GetAssigned(); owner == "" || len(askers) != 1 || !askers[owner] {
		t.Errorf("asked by %v, the node's owner is %q", askers, owner)
	}
	// One to read with, one for each change; the changes' are closed.
	if after := n.bmc.Stats(); after.Logins-before.Logins > 1+len(f.peers) || after.Sessions > 1 || after.Refused != 0 {
		t.Errorf("sessions before and after: %+v, %+v", before, after)
	}
}

// testWrongPassword: the BMC is asked twice at most, then left alone until the
// credentials change, and Ironring says so.
func testWrongPassword(t *testing.T, f *fixture) {
	n := f.enrolled(t)
	const wrong = "not-the-password"
	f.set(t, n, map[string]string{"driver_info/redfish_password": `"` + wrong + `"`})
	f.fails(t, n, api.Event_EV_MANAGE, nil, api.State_MANAGEABLE, api.State_ENROLL, "refuses the credentials")
	ex, err := f.client.Explain(within(t), &api.ExplainRequest{Node: n.name})
	if err != nil {
		t.Fatal(err)
	}
	if want := "left alone until they change"; !strings.Contains(ex.GetAdvice(), want) {
		t.Errorf("%q is not in the advice %q", want, ex.GetAdvice())
	}
	logins := n.bmc.Stats().Refused
	if logins < 1 || logins > 2 {
		t.Errorf("%d logins were refused, not one or two", logins)
	}
	// Who tries again does not lock the account.
	f.fails(t, n, api.Event_EV_MANAGE, nil, api.State_MANAGEABLE, api.State_ENROLL, "is left alone until they change", "ironring node set "+n.name)
	if got := n.bmc.Stats(); got.Refused != logins || got.Logins != 0 {
		t.Errorf("after %d refused logins: %+v", logins, got)
	}
	f.says(t, 0, []string{"refused our credentials 2 times and is left alone until they change", "ironring node set " + n.name}, "node", "explain", n.name)
	f.says(t, 0, []string{n.name, "BMC refuses the credentials"}, "node", "list")
	for _, args := range [][]string{{"node", "show", n.name}, {"node", "explain", n.name}, {"node", "history", n.name}, {"node", "show", n.name, "-o", "json"}} {
		if out, _ := f.ironring(args...); strings.Contains(out, wrong) {
			t.Errorf("ironring %s shows the password", strings.Join(args, " "))
		}
	}
	out, code := f.run("password\n", "node", "set", n.name, "--driver-info", "redfish_password=-")
	if code != 0 {
		t.Fatalf("node set: exit code %d:\n%s", code, out)
	}
	f.does(t, n, api.Event_EV_MANAGE, nil, api.State_MANAGEABLE)
	if out, _ := f.ironring("node", "explain", n.name); strings.Contains(out, "left alone") {
		t.Errorf("explain still says that the BMC is left alone:\n%s", out)
	}
}

// testBadBMCs: a BMC that is not there, silent, or answers rubbish. The node is
// back in enroll with the reason, and can be managed once the BMC is well.
func testBadBMCs(t *testing.T, f *fixture) {
	for _, c := range []struct {
		name  string
		fault bmc.Fault
		why   string
	}{
		{"silent", bmc.Fault{Kind: bmc.Silent}, "did not answer"},
		{"silent below TLS", bmc.Fault{Kind: bmc.SilentTLS}, "did not answer"},
		{"rubbish", bmc.Fault{Kind: bmc.Rubbish}, "not Redfish"},
		{"hangs up", bmc.Fault{Kind: bmc.Drop}, "connection to the BMC was lost"},
		{"no such system", bmc.Fault{Kind: bmc.Status, Status: 404, Path: "/Systems/"}, "404 Not Found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := f.enrolled(t)
			n.bmc.Inject(c.fault)
			f.fails(t, n, api.Event_EV_MANAGE, nil, api.State_MANAGEABLE, api.State_ENROLL, "management.identify", c.why)
			n.bmc.Heal()
			f.does(t, n, api.Event_EV_MANAGE, nil, api.State_MANAGEABLE)
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		n := f.enrolled(t)
		nobody := closedPort(t)
		f.set(t, n, map[string]string{"driver_info/redfish_address": `"https://` + nobody + `"`})
		f.fails(t, n, api.Event_EV_MANAGE, nil, api.State_MANAGEABLE, api.State_ENROLL, "cannot be reached", "connection refused")
		right, err := json.Marshal(n.bmc.URL())
		if err != nil {
			t.Fatal(err)
		}
		f.set(t, n, map[string]string{"driver_info/redfish_address": string(right)})
		f.does(t, n, api.Event_EV_MANAGE, nil, api.State_MANAGEABLE)
	})
	t.Run("another certificate", func(t *testing.T) {
		t.Parallel()
		n := f.enrolled(t)
		other, err := bmc.NewCertificate("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		pem, err := json.Marshal(other.PEM)
		if err != nil {
			t.Fatal(err)
		}
		f.set(t, n, map[string]string{"driver_info/redfish_verify_ca": string(pem)})
		f.fails(t, n, api.Event_EV_MANAGE, nil, api.State_MANAGEABLE, api.State_ENROLL, "certificate is not trusted", "nothing was sent")
		if got := n.bmc.Stats(); got.Refused+got.Logins+got.Basic != 0 {
			t.Errorf("something was sent: %+v", got)
		}
	})
}
