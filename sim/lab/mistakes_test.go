package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	nodes "github.com/ironring/ironring/node"
	"github.com/ironring/ironring/sim/machine"
)

// mistakesFile is what people do, for the program's own tests too.
const mistakesFile = "../../cmd/ironring/internal/cli/testdata/mistakes.yaml"

// scene is what mistakes are made at: a peer, and machines by the names of
// their nodes, some of which have data that somebody would miss.
type scene struct {
	*fixture
	machines map[string]*node
}

// TestMistakes: whatever mistake a person makes, no byte of any machine is lost
// without a question that named it, and no machine but those that are named is
// switched. After each mistake every disk and every BMC is looked at.
func TestMistakes(t *testing.T) {
	t.Parallel()
	f := startFixture(t, 64<<20)
	s := &scene{fixture: f, machines: map[string]*node{}}
	if !t.Run("scene", s.set) {
		return
	}
	t.Run("table", s.table)
	t.Run("past the questions", s.pastQuestions)
	t.Run("machines", s.atMachines)
	t.Run("changed while asked", s.changedWhileAsked)
	t.Run("two clusters", s.twoClusters)
	t.Run("swapped", s.swapped)
	t.Run("what was meant", s.meant)
}

// set brings every node where the mistakes are made.
func (s *scene) set(t *testing.T) {
	add := func(name string, disks ...machine.Disk) {
		n := s.bare(t, disks...)
		n.name = name
		s.machines[name] = n
		if name != "stranger" {
			if err := s.enrol(within(t), n); err != nil {
				t.Fatal(err)
			}
		}
	}
	add("n01", machineDisk, machineDisk)
	for _, name := range []string{"web1", "web2", "db1", "spare1", "n02", "stranger"} {
		add(name)
	}
	for _, name := range []string{"spare1", "n02", "stranger"} {
		plant(t, s.machines[name])
	}
	for i := 3; i <= 10; i++ {
		name := fmt.Sprintf("n%02d", i)
		info := fmt.Appendf(nil, `{"redfish_address":"https://192.0.2.%d","redfish_username":"u","redfish_password":"p"}`, i)
		if _, err := s.client.CreateNode(within(t), &api.CreateNodeRequest{Node: &api.Node{Name: name, Driver: "redfish", DriverInfo: info}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.client.CreatePort(within(t), &api.CreatePortRequest{Node: "web1", Port: &api.Port{Address: "52:54:00:00:00:01"}}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"web1", "web2", "db1", "spare1", "n01"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := s.machines[name]
			s.does(t, n, api.Event_EV_MANAGE, nil, api.State_MANAGEABLE)
			if name == "spare1" {
				return
			}
			s.does(t, n, api.Event_EV_PROVIDE, nil, api.State_AVAILABLE)
			if name == "n01" {
				return
			}
			s.deploys(t, n, 0)
			if name == "db1" {
				s.fixture.set(t, n, map[string]string{"protected": "true"})
			}
		})
	}
}

// ends makes a mistake and checks how it ended, and that nothing is lost.
func (s *scene) ends(t *testing.T, who person, code int, want string, booted []string, args ...string) {
	t.Helper()
	before := look(t, s.machines)
	out, got := s.at(t, s.peers[0], who, args...)
	if got != code || !strings.Contains(out, want) {
		t.Errorf("ironring %s: exit code %d, not %d, or no %q in:\n%s", strings.Join(args, " "), got, code, want, out)
	}
	if strings.Contains(out, "hunter2") {
		t.Errorf("a secret is repeated: %s", out)
	}
	same(t, before, look(t, s.machines), booted...)
}

// table is what the program's own tests have against a cluster in memory.
func (s *scene) table(t *testing.T) {
	raw, err := os.ReadFile(mistakesFile)
	if err != nil {
		t.Fatal(err)
	}
	var all []struct {
		Name, File, Want, Real string
		Args                   []string
		Code                   int
	}
	if err := yaml.UnmarshalWithOptions(raw, &all, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	web2, err := s.client.GetNode(within(t), &api.GetNodeRequest{Node: "web2"})
	if err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("WEB1_BMC", s.machines["web1"].bmc.URL(), "WEB2_ID", web2.GetNode().GetId(), "SUM", "sha256:"+strings.Repeat("0", 64)).Replace
	before := s.records(t)
	for _, c := range all {
		t.Run(c.Name, func(t *testing.T) {
			line := slices.Clone(c.Args)
			if c.File != "" {
				line = []string{"node", "apply", "--yes", "-f", s.file(t, "fleet.yaml", fill(c.File))}
			}
			for i := range line {
				line[i] = fill(line[i])
			}
			want := c.Want
			if c.Real != "" {
				want = c.Real
			}
			s.ends(t, types("yes"), c.Code, want, nil, line...)
			if out, code := s.at(t, s.peers[0], nil, line...); code == 0 {
				t.Errorf("with nobody there: done:\n%s", out)
			}
		})
	}
	if after := s.records(t); after != before {
		t.Errorf("the records changed: they are\n%s\nwere\n%s", after, before)
	}
}

// records is what the cluster knows, as an export has it, with states.
func (s *scene) records(t *testing.T) string {
	t.Helper()
	out, code := s.at(t, s.peers[0], nil, "node", "export")
	if code != 0 {
		t.Fatal(out)
	}
	all, err := s.client.ListNodes(within(t), &api.ListNodesRequest{Read: &api.ReadOptions{Linearizable: true}})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range all.GetNodes() {
		out += nodes.Label(n) + " " + nodes.StateName(n.GetState()) + "\n"
	}
	return out
}

func (s *scene) file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// pastQuestions: who asks the peers directly, or says yes beforehand, is
// refused by them.
func (s *scene) pastQuestions(t *testing.T) {
	for _, c := range []struct {
		name string
		who  person
		code int
		want string
		args []string
	}{
		{"another node's name is typed", types("web2"), 3, `"web2" is not web1; nothing was done`, []string{"node", "undeploy", "web1"}},
		{"the number of another list is typed", types("3"), 3, "nothing was done", []string{"node", "undeploy", "--where", `name.startsWith("web")`}},
		{"a node in use is deleted", nil, 6, `its state is "active"`, []string{"node", "delete", "web1", "--yes"}},
		{"a node in use is cleaned", nil, 6, `provide is not possible in state "active"`, []string{"node", "provide", "web1", "--wipe-existing", "--yes"}},
		{"a node in use is inspected", nil, 6, `inspect is not possible in state "active"`, []string{"node", "inspect", "web1"}},
		{"the network that machines boot from is not given", nil, 3, "", []string{"network", "delete"}},
	} {
		t.Run(c.name, func(t *testing.T) { s.ends(t, c.who, c.code, c.want, nil, c.args...) })
	}
	web1, err := s.client.GetNode(within(t), &api.GetNodeRequest{Node: "web1"})
	if err != nil {
		t.Fatal(err)
	}
	before := look(t, s.machines)
	old := web1.GetNode().GetRev() - 1
	ctx := within(t)
	for name, c := range map[string]struct {
		kind client.Kind
		do   func() error
	}{
		"undeploy of a protected node": {client.Denied, func() error {
			_, err := s.client.Provision(ctx, &api.ProvisionRequest{Node: "db1", Verb: api.Event_EV_DELETE})
			return err
		}},
		"rebuild of a protected node": {client.Denied, func() error {
			_, err := s.client.Provision(ctx, provision(t, s.machines["db1"], api.Event_EV_REBUILD, s.image(s.machines["db1"])))
			return err
		}},
		"delete of a protected node": {client.Denied, func() error {
			_, err := s.client.DeleteNode(ctx, &api.DeleteNodeRequest{Node: "db1"})
			return err
		}},
		"undeploy of an old revision": {client.Conflict, func() error {
			_, err := s.client.Provision(ctx, &api.ProvisionRequest{Node: "web1", Verb: api.Event_EV_DELETE, Rev: old})
			return err
		}},
		"power off of an old revision": {client.Conflict, func() error {
			_, err := s.client.Power(ctx, &api.PowerRequest{Node: "web1", Action: api.PowerAction_POWER_ACTION_OFF, Rev: old})
			return err
		}},
		"NMI of an old revision": {client.Conflict, func() error {
			_, err := s.client.ChangeHardware(ctx, &api.ChangeHardwareRequest{Node: "web1", Rev: old, Change: &api.ChangeHardwareRequest_Nmi{Nmi: true}})
			return err
		}},
		"a second node of a machine, by MAC address": {client.Exists, func() error {
			_, err := s.client.CreateNode(ctx, &api.CreateNodeRequest{
				Node:  &api.Node{Name: "twin", Driver: "redfish", DriverInfo: []byte(`{"redfish_address":"https://192.0.2.77","redfish_username":"u","redfish_password":"p"}`)},
				Ports: []*api.Port{{Address: s.machines["web1"].port}},
			})
			return err
		}},
	} {
		if err := c.do(); client.KindOf(err) != c.kind {
			t.Errorf("%s: %v, not %v", name, err, c.kind)
		}
	}
	same(t, before, look(t, s.machines))
}

// atMachines: mistakes that only show at the machine. It may be booted to look
// at it; nothing is written.
func (s *scene) atMachines(t *testing.T) {
	n01 := s.machines["n01"]
	deploy := func(url string, more ...string) []string {
		return append([]string{"node", "deploy", "n01", "--wait", "--yes", "--image", url, "--checksum", s.images.checksum}, more...)
	}
	right := s.images.url("n01")
	for _, c := range []struct {
		name, want, booted string
		args               []string
	}{
		{"no disk is named of two", "the machine has 2 disks and no root device hint", "n01", deploy(right)},
		{"the disk of another machine", "root device hint", "n01", deploy(right, "--root-device", "serial=DISK"+serialOf(s.machines["web1"])+"A")},
		{"an image that is not there", "404 Not Found", "n01", deploy(s.bad.URL+"/missing.raw", "--root-device", "serial=DISK"+serialOf(n01)+"A")},
		{"data that nobody has named", "--wipe-existing", "spare1", []string{"node", "provide", "spare1", "--yes", "--wait"}},
	} {
		t.Run(c.name, func(t *testing.T) { s.ends(t, nil, 1, c.want, []string{c.booted}, c.args...) })
	}
	// Onto a disk that a clean has left blank somebody puts data, past Ironring:
	// that it was ours once does not make them ours.
	plant(t, n01)
	const found = "data that Ironring did not put there on"
	t.Run("data on a disk that was cleaned", func(t *testing.T) {
		s.ends(t, nil, 1, found, []string{"n01"}, deploy(right, "--root-device", "serial=DISK"+serialOf(n01)+"A")...)
		s.ends(t, nil, 1, found, []string{"n01"}, "node", "undeploy", "n01", "--yes", "--wait")
		if out, code := s.at(t, s.peers[0], nil, "node", "manage", "n01", "--wait"); code != 0 {
			t.Fatal(out)
		}
		s.ends(t, nil, 1, found, []string{"n01"}, "node", "provide", "n01", "--yes", "--wait")
	})
	// A second node of a machine that is in use, with ports that are not known:
	// its record can be made, and it is shut out before anything is done.
	twin := *s.machines["web1"]
	twin.name, twin.port = "twin", "52:54:00:1c:00:07"
	if err := s.enrol(within(t), &twin); err != nil {
		t.Fatal(err)
	}
	t.Run("one machine as two nodes", func(t *testing.T) {
		s.ends(t, nil, 1, "web1", nil, "node", "manage", "twin", "--wait")
		s.ends(t, nil, 6, `provide is not possible in state "enroll"`, nil, "node", "provide", "twin", "--wipe-existing", "--yes")
	})
	if out, code := s.at(t, s.peers[0], nil, "node", "delete", "twin", "--yes"); code != 0 {
		t.Error(out)
	}
}

// serialOf is what the serial numbers of a machine's disks begin with, after
// "DISK": the name of its directory.
func serialOf(n *node) string { return filepath.Base(filepath.Dir(n.machine.DiskPath(0))) }

// changedWhileAsked: somebody else changes the node while a person reads the
// question. What was agreed to is not what it would be done to.
func (s *scene) changedWhileAsked(t *testing.T) {
	for name, set := range map[string]string{"protected": "true", "description": `"do not touch"`} {
		s.ends(t, func(q string) string {
			if !strings.Contains(q, "web1") {
				t.Errorf("asked %q", q)
			}
			s.fixture.set(t, s.machines["web1"], map[string]string{name: set})
			return "web1"
		}, 7, "has changed meanwhile: "+name, nil, "node", "undeploy", "web1")
	}
	s.fixture.set(t, s.machines["web1"], map[string]string{"protected": "false"})
}

// swapped: web1 gets the address of web2's BMC. Whatever is then asked of web1,
// by a person who means web1, nothing is done to web2.
func (s *scene) swapped(t *testing.T) {
	web1, web2 := s.machines["web1"], s.machines["web2"]
	address(t, s.fixture, web1, web2)
	for _, args := range [][]string{
		{"node", "power", "web1", "off", "--wait"},
		{"node", "power", "web1", "reboot", "--wait"},
		{"node", "bmc", "nmi", "web1", "--yes", "--wait"},
		{"node", "bmc", "indicator", "web1", "on", "--wait"},
		{"node", "undeploy", "web1", "--yes", "--wait"},
	} {
		s.ends(t, nil, 1, "belongs to another machine than the one that node web1 was verified with: found is UUID", nil, args...)
	}
	address(t, s.fixture, web1, web1)
}

// meant is the proof that a change would have been seen: what was asked for,
// with the question answered, wipes that machine and no other.
func (s *scene) meant(t *testing.T) {
	before := look(t, s.machines)
	if out, code := s.at(t, s.peers[0], types("web2"), "node", "undeploy", "web2", "--wait"); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	after := look(t, s.machines)
	if is, was := after["web2"], before["web2"]; is.disks == was.disks || is.written == was.written || is.changes == was.changes {
		t.Errorf("web2 was wiped, and nothing of it was seen: %+v, was %+v", is, was)
	}
	delete(before, "web2")
	same(t, before, after)
}
