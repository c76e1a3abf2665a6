package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/ironring/ironring/api"
)

// mistake is one of testdata/mistakes.yaml.
type mistake struct {
	Name, File, Want, Real string
	Args                   []string
	Code                   int
}

// TestOperatorMistakes: each mistake is a clear error, and nothing was done
// that a question did not name before. A tired person is at the terminal and
// answers everything with yes; where nobody is, nobody is asked.
//
// This shows that nothing was sent. That the peers refuse it, and that no byte
// of a machine changes, is in sim/lab, TestMistakes, with the same table.
func TestOperatorMistakes(t *testing.T) {
	raw, err := os.ReadFile("testdata/mistakes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all []mistake
	if err := yaml.UnmarshalWithOptions(raw, &all, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if len(all) < 30 {
		t.Fatalf("%d mistakes only", len(all))
	}
	for _, c := range all {
		t.Run(c.Name, func(t *testing.T) {
			d := newDesk(t)
			d.nodes(10, api.State_ACTIVE)
			for _, name := range []string{"web1", "web2", "db1", "spare1"} {
				d.does(0, "enrolled", "node", "create", "--name", name, "--driver", "fake")
				d.fake.Change(name, func(n *api.Node, _ *api.Flow) {
					n.State, n.Protected = api.State_ACTIVE, name == "db1"
					switch name {
					case "spare1":
						n.State = api.State_MANAGEABLE
					case "web1":
						n.DriverInfo = []byte(`{"redfish_address":"https://10.0.0.1"}`)
					}
				})
			}
			d.does(0, "created", "port", "create", "web1", "52:54:00:00:00:01")
			var web2 string
			d.fake.Change("web2", func(n *api.Node, _ *api.Flow) { web2 = n.GetId() })
			before := len(d.fake.Done())
			fill := strings.NewReplacer("WEB1_BMC", "https://10.0.0.1", "WEB2_ID", web2, "SUM", "sha256:"+strings.Repeat("0", 64)).Replace
			line := c.Args
			if c.File != "" {
				line = []string{"node", "apply", "--yes", "-f", d.file("fleet.yaml", fill(c.File))}
			}
			for i := range line {
				line[i] = fill(line[i])
			}
			code, out, err := d.run(says("yes"), line...)
			if code != c.Code || !strings.Contains(out+err, c.Want) {
				t.Errorf("ironring %s: exit code %d, want %d and %q:\n%s%s", strings.Join(line, " "), code, c.Code, c.Want, out, err)
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
