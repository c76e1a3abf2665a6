package lab

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/google/uuid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	nodes "github.com/ironring/ironring/node"
)

// testVerbs: a verb that the state does not allow says which it allows, and
// changes nothing.
func testVerbs(t *testing.T, f *fixture) {
	n := f.enrolled(t)
	for verb, why := range map[api.Event]string{
		api.Event_EV_DEPLOY: `deploy is not possible in state "enroll"; possible verbs: manage`,
		api.Event_EV_DELETE: `undeploy is not possible in state "enroll"; possible verbs: manage`,
		api.Event_EV_ABORT:  `abort is not possible in state "enroll"; possible verbs: manage`,
	} {
		_, err := f.client.Provision(within(t), provision(t, n, verb, nil))
		refused(t, err, client.WrongState, why)
	}
	f.says(t, 6, []string{`provide is not possible in state "enroll"; possible verbs: manage`}, "node", "provide", n.name, "--yes")
	f.does(t, n, api.Event_EV_MANAGE, nil, api.State_MANAGEABLE)
	f.says(t, 6, []string{`deploy is not possible in state "manageable"; possible verbs: `, "provide", "inspect"},
		"node", "deploy", n.name, "--image", f.images.url(n.name), "--checksum", f.images.checksum)
	if got := f.state(t, n); got != api.State_MANAGEABLE {
		t.Errorf("the node is in state %q", nodes.StateName(got))
	}
	// What the verb needs is looked at before anything happens.
	for args, why := range map[string]string{
		`{}`:                     "deploy needs an image",
		`{"image":"ftp://x/y"}`:  "http or https URL",
		`{"image":"http://x/y"}`: "sha256:HEX or sha512:HEX",
		`{"image":"http://x/y","checksum":"sha256:00"}`:                                      "sha256:HEX or sha512:HEX",
		`{"image":"http://x/y","image_shown":"z","checksum":"` + f.images.checksum + `"}`:    "not taken from requests",
		`{"image":"http://x/y","checksum":"` + f.images.checksum + `","compress":"rar"}`:     "gzip, zstd or nothing",
		`{"image":"http://x/y","checksum":"` + f.images.checksum + `","imgae":"http://x/z"}`: "imgae",
	} {
		if f.state(t, n) == api.State_MANAGEABLE {
			f.does(t, n, api.Event_EV_PROVIDE, nil, api.State_AVAILABLE)
		}
		_, err := f.client.Provision(within(t), &api.ProvisionRequest{Node: n.name, Verb: api.Event_EV_DEPLOY, Args: []byte(args)})
		refused(t, err, client.Invalid, why)
	}
	if got := f.state(t, n); got != api.State_AVAILABLE {
		t.Errorf("the node is in state %q", nodes.StateName(got))
	}
}

// testRecords: what is taken already, unknown or missing is refused by name,
// and of a request that is refused nothing remains.
func testRecords(t *testing.T, f *fixture) {
	n := f.enrolled(t)
	first, err := f.client.GetNode(within(t), &api.GetNodeRequest{Node: n.name})
	if err != nil {
		t.Fatal(err)
	}
	info, err := json.Marshal(n.bmc.Info())
	if err != nil {
		t.Fatal(err)
	}
	other := func(change func(*api.CreateNodeRequest)) *api.CreateNodeRequest {
		req := &api.CreateNodeRequest{
			Node:  &api.Node{Name: "another-" + n.name, Driver: "redfish", DriverInfo: info},
			Ports: []*api.Port{{Address: "52:54:00:1c:00:01", PxeEnabled: true}},
		}
		change(req)
		return req
	}
	for _, c := range []struct {
		name string
		req  *api.CreateNodeRequest
		kind client.Kind
		why  []string
	}{
		{"name", other(func(r *api.CreateNodeRequest) { r.Node.Name = n.name }), client.Exists, []string{n.name, first.GetNode().GetId()}},
		{"uuid", other(func(r *api.CreateNodeRequest) { r.Node.Id = first.GetNode().GetId() }), client.Exists, []string{first.GetNode().GetId()}},
		{"MAC", other(func(r *api.CreateNodeRequest) { r.Ports[0].Address = n.port }), client.Exists, []string{n.port, first.GetNode().GetId()}},
		{"MAC in other letters", other(func(r *api.CreateNodeRequest) { r.Ports[0].Address = string(bytes.ToUpper([]byte(n.port))) }), client.Exists, []string{n.port}},
		{"driver", other(func(r *api.CreateNodeRequest) { r.Node.Driver = "ilo" }), client.Invalid, []string{`"ilo"`, "redfish"}},
		{"no driver", other(func(r *api.CreateNodeRequest) { r.Node.Driver = "" }), client.Invalid, []string{"needs a driver"}},
		{"driver_info", other(func(r *api.CreateNodeRequest) { r.Node.DriverInfo = nil }), client.Invalid, []string{"driver_info lacks redfish_address"}},
		{"driver_info that is no object", other(func(r *api.CreateNodeRequest) { r.Node.DriverInfo = []byte(`[1]`) }), client.Invalid, []string{"driver_info"}},
		{"key of driver_info", other(func(r *api.CreateNodeRequest) {
			r.Node.DriverInfo = []byte(`{"redfish_address":"https://127.0.0.1:1","redfish_username":"u","redfish_password":"p","redfish_verify_ca":"perhaps"}`)
		}), client.Invalid, []string{"redfish_verify_ca"}},
		{"MAC that is none", other(func(r *api.CreateNodeRequest) { r.Ports[0].Address = "52:54:00" }), client.Invalid, []string{"52:54:00"}},
		{"name that is none", other(func(r *api.CreateNodeRequest) { r.Node.Name = "a name" }), client.Invalid, []string{"name"}},
		{"uuid that is none", other(func(r *api.CreateNodeRequest) { r.Node.Id = "7" }), client.Invalid, []string{"id"}},
	} {
		_, err := f.client.CreateNode(within(t), c.req)
		t.Logf("%s: %v", c.name, err)
		if err == nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		refused(t, err, c.kind, c.why...)
		if _, err := f.client.GetNode(within(t), &api.GetNodeRequest{Node: "another-" + n.name}); client.KindOf(err) != client.NotFound {
			t.Errorf("%s: a node remains: %v", c.name, err)
		}
	}
	// Nothing of all that stands in the way of the right request.
	if _, err := f.client.CreateNode(within(t), other(func(r *api.CreateNodeRequest) { r.Node.Id = uuid.NewString() })); err != nil {
		t.Error(err)
	}
	_, err = f.client.CreatePort(within(t), &api.CreatePortRequest{Node: "another-" + n.name, Port: &api.Port{Address: n.port}})
	refused(t, err, client.Exists, n.port)
	_, err = f.client.UpdateNode(within(t), &api.UpdateNodeRequest{Node: "another-" + n.name, Set: map[string]string{"name": `"` + n.name + `"`}})
	refused(t, err, client.Exists, n.name)
	_, err = f.client.UpdateNode(within(t), &api.UpdateNodeRequest{Node: n.name, Unset: []string{"driver_info/redfish_address"}})
	refused(t, err, client.Invalid, "redfish_address")
	_, err = f.client.GetNode(within(t), &api.GetNodeRequest{Node: "nobody"})
	refused(t, err, client.NotFound, "nobody")
}

// testLife is what comes after a deployment: power, undeploy, delete.
func testLife(t *testing.T, f *fixture) {
	n := f.ready(t)
	f.deploys(t, n, 0)
	_, err := f.client.DeleteNode(within(t), &api.DeleteNodeRequest{Node: n.name})
	refused(t, err, client.WrongState, `its state is "active"`, "maintenance")

	ons := n.bmc.Stats().PowerOns
	f.powers(t, n, api.PowerAction_POWER_ACTION_OFF, api.PowerState_POWER_OFF)
	f.powers(t, n, api.PowerAction_POWER_ACTION_OFF, api.PowerState_POWER_OFF) // is so already
	f.powers(t, n, api.PowerAction_POWER_ACTION_ON, api.PowerState_POWER_ON)
	f.bootsDisk(t, n, 2)
	f.powers(t, n, api.PowerAction_POWER_ACTION_REBOOT, api.PowerState_POWER_ON)
	f.bootsDisk(t, n, 3)
	f.powers(t, n, api.PowerAction_POWER_ACTION_SOFT_OFF, api.PowerState_POWER_OFF)
	f.says(t, 0, nil, "node", "power", n.name, "on", "--wait")
	f.bootsDisk(t, n, 4)
	if got := n.bmc.Stats().PowerOns - ons; got != 3 {
		t.Errorf("the BMC switched on %d times, not 3", got)
	}

	const note = "metadata only, data remains"
	f.does(t, n, api.Event_EV_DELETE, nil, api.State_AVAILABLE)
	unbootable(t, n, 0)
	tail := f.images.body[imageMiB<<20-64<<10:]
	if !bytes.Equal(readAt(t, n.machine.DiskPath(0), imageMiB<<20-64<<10, len(tail)), tail) {
		t.Error("the data is gone: the note would be wrong")
	}
	reply, err := f.client.GetNode(within(t), &api.GetNodeRequest{Node: n.name})
	if err != nil {
		t.Fatal(err)
	}
	if e := reply.GetNode().GetErasure(); e.GetLevel() != api.Erasure_METADATA || len(e.GetDisks()) != 1 || e.GetDisks()[0] != "DISK"+n.name+"A" {
		t.Errorf("erasure on record: %v", e)
	}
	// The clean has booted anew, and its agent is kept.
	if st := n.machine.Stats(); st.RamdiskRuns != 2 || reply.GetNode().GetPowerState() != api.PowerState_POWER_ON || n.bmc.Power() != api.PowerState_POWER_ON {
		t.Errorf("%d boots of the ramdisk; power: %v on record, %v in truth", st.RamdiskRuns, reply.GetNode().GetPowerState(), n.bmc.Power())
	}
	for _, args := range [][]string{{"list"}, {"show", n.name}, {"explain", n.name}} {
		f.says(t, 0, []string{n.name, note}, append([]string{"node"}, args...)...)
	}

	// Nobody would switch it off any more.
	f.says(t, 0, []string{"kept on in the ramdisk for its next flow", "is switched off in "}, "node", "explain", n.name)
	f.says(t, 6, []string{"kept on in the ramdisk", "ironring node power " + n.name + " off"}, "node", "delete", n.name, "--yes")
	f.powers(t, n, api.PowerAction_POWER_ACTION_OFF, api.PowerState_POWER_OFF)
	f.says(t, 0, []string{"deleted"}, "node", "delete", n.name, "--yes")
	_, err = f.client.GetNode(within(t), &api.GetNodeRequest{Node: n.name})
	refused(t, err, client.NotFound, n.name)
	// Its name and its MAC address are free again.
	if err := f.enrol(within(t), n); err != nil {
		t.Error(err)
	}
	f.does(t, n, api.Event_EV_MANAGE, nil, api.State_MANAGEABLE)
}

// powers does a power action and compares record and BMC.
func (f *fixture) powers(t *testing.T, n *node, action api.PowerAction, want api.PowerState) {
	t.Helper()
	was := f.state(t, n)
	reply, err := f.client.Power(within(t), &api.PowerRequest{Node: n.name, Action: action})
	if err != nil {
		t.Fatalf("%v %s: %v", action, n.name, err)
	}
	ev, err := f.client.Wait(within(t), n.name, client.Until{Flow: reply.GetFlow().GetId(), After: reply.GetIndex()}, nil)
	if err != nil {
		t.Fatalf("%v %s: %v", action, n.name, err)
	}
	if got := ev.GetNode(); got.GetState() != was || got.GetPowerState() != want || n.bmc.Power() != want {
		t.Errorf("%v: state %q, power %v on record and %v in truth", action, nodes.StateName(got.GetState()), got.GetPowerState(), n.bmc.Power())
	}
}

func readAt(t *testing.T, path string, off int64, n int) []byte {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	b := make([]byte, n)
	if _, err := file.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	return b
}
