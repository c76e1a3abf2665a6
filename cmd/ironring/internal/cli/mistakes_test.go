package cli

import (
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
)

// TestOperatorMistakes: each mistake is a clear error, and nothing was done
// that a question did not name before. A tired person is at the terminal and
// answers everything with yes; where nobody is, nobody is asked.
//
// Mistakes that only the machine can show (a wrong disk, swapped BMCs) are in
// sim/lab, TestBadInput, and conductor/flow, TestFirstCleanHolds.
func TestOperatorMistakes(t *testing.T) {
	const image = "--image=http://i/x"
	const sum = "--checksum=sha256:00"
	yaml := func(text string) func(*desk) []string {
		return func(d *desk) []string { return []string{"node", "apply", "--yes", "-f", d.file("fleet.yaml", text)} }
	}
	args := func(line ...string) func(*desk) []string { return func(*desk) []string { return line } }
	for _, c := range []struct {
		name string
		args func(*desk) []string
		code int
		want string
	}{
		{"yes is not the node's name", args("node", "undeploy", "web1"), 3, `"yes" is not web1; nothing was done`},
		{"the name of another node", args("node", "undeploy", "web"), 4, `no node "web"`},
		{"one of several is misspelt", args("node", "undeploy", "web1", "wbe2", "--yes"), 4, "nothing was done"},
		{"the same node twice", args("node", "delete", "web1", "web1", "--yes"), 3, "are the same node"},
		{"where is too wide", args("node", "undeploy", "--where", "true", "--yes"), 3, "nothing was done"},
		{"where is too wide, in a script", args("node", "undeploy", "--where", "true", "--yes", "--confirm-count", "3"), 3, "--confirm-count says 3 nodes, but 14 are meant"},
		{"where forgets a letter", args("node", "undeploy", "--where", `stat == "active"`, "--yes"), 3, "undeclared reference to 'stat'"},
		{"where assigns", args("node", "undeploy", "--where", `state = "active"`, "--yes"), 3, "--where: at character 7"},
		{"where is a name", args("node", "undeploy", "--where", `"web1"`, "--yes"), 3, "not true or false"},
		{"where means none", args("node", "undeploy", "--where", `state == "ACTIVE"`, "--yes"), 4, "no node of 14 matches"},
		{"nodes and where", args("node", "undeploy", "web1", "--where", "true", "--yes"), 3, "not both"},
		{"neither", args("node", "undeploy", "--yes"), 3, "needs NODE or --where"},
		{"a protected node is undeployed", args("node", "undeploy", "db1", "--yes"), 10, "protected"},
		{"a protected node is rebuilt", args("node", "rebuild", "db1", "--yes", image, sum), 10, "protected"},
		{"a protected node is deleted", args("node", "delete", "db1", "--yes"), 10, "protected"},
		{"deploy where rebuild is meant", args("node", "deploy", "web1", image, sum), 6, "not allowed for node web1 in state active"},
		{"rebuild is not asked for lightly", args("node", "rebuild", "web1", image, sum), 3, "nothing was done"},
		{"wipe is not asked for lightly", args("node", "provide", "--wipe-existing", "spare1"), 3, "nothing was done"},
		{"power cycle", args("node", "power", "web1", "cycle"), 3, "must be one of off, on, reboot, soft-off"},
		{"the power action first", args("node", "power", "off", "web1"), 3, `power "web1": must be one of`},
		{"power off everywhere", args("node", "power", "off", "--where", "true"), 3, "nothing was done"},
		{"a revision from yesterday", args("node", "set", "web1", "--rev", "77", "--description", "x"), 7, "not 77"},
		{"a revision for several", args("node", "manage", "web1", "web2", "--rev", "1"), 3, "--rev is for one node"},
		{"a password in the history of the shell", args("node", "set", "web1", "--driver-info", "ipmi_password=hunter2"), 3, "the command line can be read by every user"},
		{"a mask instead of the password", args("node", "set", "web1", "--extra", "note=******"), 3, "shown in the place of a secret"},
		{"a MAC address of another node", args("port", "create", "web1", "52:54:00:00:00:01"), 5, "is there already"},
		{"a peer is removed in passing", args("cluster", "leave", "p3"), 3, "--yes"},
		{"a file is imported twice under other names", yaml("- {name: new1, driver: fake, ports: [\"52:54:00:00:00:01\"]}\n"), 3, "the MAC address 52:54:00:00:00:01 is of node web1: one machine cannot be two nodes"},
		{"a file of another cluster", yaml("- {name: web1, id: 11111111-2222-3333-4444-555555555555, driver: fake}\n"), 3, "is this the right cluster"},
		{"swapped BMC addresses", yaml("- {name: web2, driver: ipmi, driver_info: {ipmi_address: 10.0.0.1}}\n"), 3, "the BMC 10.0.0.1 is of node web1"},
		{"one BMC for two machines", yaml("- {name: a, driver: ipmi, driver_info: {ipmi_address: b}}\n- {name: c, driver: ipmi, driver_info: {ipmi_address: B}}\n"), 3, "line 2: the BMC b is given to a already"},
		{"a line twice", yaml("- {name: a, driver: fake}\n- {name: a, driver: fake}\n"), 3, "line 2: the name a is given to a already, on line 1"},
		{"a password in the file", yaml("- {name: a, driver: ipmi, driver_info: {ipmi_address: b, ipmi_password: hunter2}}\n"), 3, "must not stand in the file"},
		{"a misspelt driver key", yaml("- {name: a, driver: ipmi, driver_info: {ipmi_address: b, ipmi_user: c}}\n"), 3, "ipmi_user"},
		{"a misspelt driver", yaml("- {name: a, driver: impi, driver_info: {ipmi_address: b}}\n"), 1, `no driver "impi"`},
		{"half a file", yaml("- {name: a, driver: fake}\n- {name: b, driver: fake, ports: [52:54}\n"), 3, "line 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(t)
			d.nodes(10, api.State_ACTIVE)
			for _, name := range []string{"web1", "web2", "db1", "spare1"} {
				d.does(0, "enrolled", "node", "create", "--name", name, "--driver", "fake")
				d.fake.Change(name, func(n *api.Node, _ *api.Flow) {
					n.State, n.Protected = api.State_ACTIVE, name == "db1"
					if name == "spare1" {
						n.State = api.State_MANAGEABLE
					}
					if name == "web1" {
						n.DriverInfo = []byte(`{"ipmi_address":"10.0.0.1"}`)
					}
				})
			}
			d.does(0, "created", "port", "create", "web1", "52:54:00:00:00:01")
			before := len(d.fake.Done())
			line := c.args(d)
			code, out, err := d.run(says("yes"), line...)
			if code != c.code || !strings.Contains(out+err, c.want) {
				t.Errorf("ironring %s: exit code %d, want %d and %q:\n%s%s", strings.Join(line, " "), code, c.code, c.want, out, err)
			}
			if done := d.fake.Done()[before:]; len(done) > 0 {
				t.Errorf("done all the same: %q", done)
			}
			if strings.Contains(out+err, "hunter2") {
				t.Errorf("a secret is repeated: %s%s", out, err)
			}
			// Where nobody can be asked, the same, and nobody waits for an answer.
			code, out, err = d.run(nil, line...)
			if code == 0 || len(d.fake.Done()) != before {
				t.Errorf("with nobody there: exit code %d, done %q:\n%s%s", code, d.fake.Done()[before:], out, err)
			}
		})
	}
}
