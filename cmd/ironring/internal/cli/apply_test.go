package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// file writes a fleet file.
func (d *desk) file(name, text string) string {
	d.Helper()
	path := filepath.Join(d.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.Fatal(err)
	}
	return path
}

const twoNodes = `# racks 1 and 2
nodes:
  - name: n1
    driver: redfish
    driver_info:
      redfish_address: https://10.0.0.1
      redfish_username: admin
      redfish_password: {env: BMC_PASSWORD}
    properties: {cpus: 4, rack: "1"}
    ports:
      - 52:54:00:00:00:01
      - {address: "52:54:00:00:00:02", pxe_enabled: false}
  - name: n2
    driver: ipmi
    driver_info: {ipmi_address: 10.0.0.2, ipmi_username: admin, ipmi_password: {file: SECRETFILE}}
    protected: true
    ports: ["52:54:00:00:00:03"]
`

func TestApply(t *testing.T) {
	d := newDesk(t)
	d.env["BMC_PASSWORD"] = "hunter2"
	password := d.file("password", "hunter3\n")
	path := d.file("fleet.yaml", strings.ReplaceAll(twoNodes, "SECRETFILE", password))

	writes := func() int { return len(d.fake.Done()) }
	d.does(0, "2 to create, 0 to change, 0 unchanged", "node", "apply", "-f", path, "--dry-run")
	d.does(3, "nobody can be asked", "node", "apply", "-f", path)
	d.doesAsked(says("no"), 3, `"no" is not yes; nothing was done`, "node", "apply", "-f", path)
	if writes() != 0 {
		t.Fatalf("done: %q", d.fake.Done())
	}
	code, out, stderr := d.run(says("yes"), "node", "apply", "-f", path)
	if code != 0 || !strings.Contains(out, "create n1\n  driver: redfish\n") || !strings.Contains(out, "port: 52:54:00:00:00:02, not booted from") || !strings.Contains(stderr, "2 done") {
		t.Fatalf("exit code %d:\n%s%s", code, out, stderr)
	}
	if strings.Contains(out+stderr, "hunter") {
		t.Errorf("a secret is shown:\n%s%s", out, stderr)
	}
	var info map[string]string
	d.fake.Change("n2", func(n *api.Node, _ *api.Flow) {
		if json.Unmarshal(n.DriverInfo, &info) != nil || info["ipmi_password"] != "hunter3" || !n.Protected {
			t.Errorf("n2 has %s", n.DriverInfo)
		}
	})
	// Again: nothing to do, nobody is asked, nothing is written.
	before := writes()
	d.does(0, "0 to create, 0 to change, 2 unchanged", "node", "apply", "-f", path)
	if writes() != before {
		t.Errorf("done: %q", d.fake.Done()[before:])
	}
	// A secret that is stored is only written when that is asked for.
	d.does(0, "driver_info/redfish_password: ****** -> from the environment variable", "node", "apply", "-f", path, "--update-secrets", "--dry-run")
	d.does(0, "2 done", "node", "apply", "-f", path, "--update-secrets", "--yes")

	changed := d.file("changed.yaml", `
- name: n1
  group: Rack1
  properties: {cpus: 8, root_device: {serial: S1}}
  driver_info: {redfish_address: "https://10.0.0.1", redfish_username: root}
  ports: ["52:54:00:00:00:01", "52:54:00:00:00:04"]
`)
	code, out, _ = d.run(nil, "node", "apply", "-f", changed, "--yes")
	want := `change n1
  group: nothing -> rack1
  driver_info/redfish_username: admin -> root
  properties/cpus: 4 -> 8
  properties/rack: 1 removed
  properties/root_device: nothing -> {"serial":"S1"}
  port: 52:54:00:00:00:04 added
  port: 52:54:00:00:00:02, not booted from removed
0 to create, 1 to change, 0 unchanged
NODE  RESULT  WHAT
n1    done    changed
`
	if code != 0 || out != want {
		t.Errorf("exit code %d, got\n%s\nwant\n%s", code, out, want)
	}
	d.fake.Change("n1", func(n *api.Node, _ *api.Flow) {
		n.ConductorGroup = "rack1"
		if json.Unmarshal(n.DriverInfo, &info) != nil || info["redfish_password"] != "hunter2" || info["redfish_username"] != "root" {
			t.Errorf("n1 has %s", n.DriverInfo)
		}
	})
	d.does(0, "0 to change, 1 unchanged", "node", "apply", "-f", changed)
	// n2 was in neither file: it is as it was.
	d.does(0, "ipmi_address", "node", "show", "n2")
}

func TestApplyBadFiles(t *testing.T) {
	d := newDesk(t)
	d.nodes(2, api.State_ACTIVE)
	d.does(0, "created", "port", "create", "n01", "52:54:00:00:00:01")
	d.fake.Change("n02", func(n *api.Node, _ *api.Flow) { n.DriverInfo = []byte(`{"ipmi_address":"10.0.0.2","ipmi_port":623}`) })
	before := len(d.fake.Done())
	for _, c := range []struct{ name, text, want string }{
		{"a.yaml", "nodes:\n  - name: n1\n    driver: [", "line "},
		{"a.yaml", "nodes:\n- name: n1\n  driver: fake\n  drivr_info: {}", "line 4: unknown key \"drivr_info\"; there are name, id"},
		{"a.yaml", "node:\n- name: n1", "line 1: unknown key \"node\""},
		{"a.yaml", "nodes: 5", "line 1: `nodes` must be a list"},
		{"a.yaml", "nodes: []", "holds no nodes"},
		{"a.yaml", "", "holds no nodes"},
		{"a.txt", "nodes: []", "must end in .yaml, .yml, .json or .csv"},
		{"a.yaml", "- n1\n", "line 1: a node must be a mapping"},
		{"a.yaml", "- driver: fake\n", "line 1: a node needs a name"},
		{"a.yaml", "- name: n1\n", "line 1: n1 is new and needs a driver"},
		{"a.yaml", "- name: a b\n  driver: fake\n", "line 1: name"},
		{"a.yaml", "- name: n1\n  id: N1\n  driver: fake\n", "line 2: id: not a UUID"},
		{"a.yaml", "- name: n1\n  protected: maybe\n", "line 2: protected: must be true or false"},
		{"a.yaml", "- name: 5\n", "line 1: name: must be a text"},
		{"a.yaml", "- name: n1\n  driver: fake\n- name: n1\n  driver: fake\n", "line 3: the name n1 is given to n1 already, on line 1"},
		{"a.yaml", "- name: n1\n  name: n2\n", "name"},
		{"a.yaml", "- name: n1\n  driver: fake\n  ports: [\"52:54:00:00:00:09\"]\n- name: n2\n  driver: fake\n  ports: [\"52-54-00-00-00-09\"]\n", "line 6: the MAC address 52:54:00:00:00:09 is given to n1 already"},
		{"a.yaml", "- name: n1\n  driver: fake\n  ports: [\"52:54\"]\n", "line 3: ports: address"},
		{"a.yaml", "- name: n1\n  driver: fake\n  ports: [{mac: x}]\n", `line 3: ports: unknown key "mac"`},
		{"a.yaml", "- name: n1\n  driver: redfish\n  driver_info: {redfish_address: https://b/, redfish_username: u}\n- name: n2\n  driver: redfish\n  driver_info: {redfish_address: HTTPS://B, redfish_username: u}\n", "line 6: the BMC b is given to n1 already"},
		{"a.yaml", "- name: n1\n  driver: ipmi\n  driver_info: {ipmi_address: 10.0.0.2}\n", "line 3: the BMC 10.0.0.2 is of node n02: one machine cannot be two nodes"},
		{"a.yaml", "- name: n1\n  driver: fake\n  ports: [\"52:54:00:00:00:01\"]\n", "line 3: the MAC address 52:54:00:00:00:01 is of node n01"},
		{"a.yaml", "- name: n01\n  id: 11111111-2222-3333-4444-555555555555\n  driver: fake\n", "line 1: the name n01 is of the node 00000000-0000-7000-8000-000000000001: is this the right cluster"},
		{"a.yaml", "- name: n01\n- id: 00000000-0000-7000-8000-000000000001\n", "line 2: is the same node as n01 on line 1"},
		{"a.yaml", "- id: 11111111-2222-3333-4444-555555555555\n", "line 1: there is no node 11111111"},
		{"a.yaml", "- name: n1\n  driver: ipmi\n  driver_info: {ipmi_address: a, ipmi_password: hunter2}\n", "line 3: driver_info/ipmi_password is a secret, which must not stand in the file"},
		{"a.yaml", "- name: n1\n  driver: fake\n  extra:\n    a: 1\n    api_key: hunter2\n", "line 5: extra/api_key is a secret"},
		{"a.yaml", "- name: n1\n  driver: fake\n  extra: {note: \"******\"}\n", "line 3: extra/note is ******"},
		{"a.yaml", "- name: n1\n  driver: ipmi\n  driver_info: {ipmi_address: a, ipmi_password: {env: NOT_SET}}\n", "line 3: driver_info/ipmi_password of n1: the environment variable NOT_SET is not set"},
		{"a.yaml", "- name: n1\n  driver: ipmi\n  driver_info: {ipmi_address: a, ipmi_password: {file: /none}}\n", "line 3: driver_info/ipmi_password of n1: open /none"},
		{"a.yaml", "- name: n1\n  driver: ipmi\n  driver_info: {ipmi_addres: a}\n", "line 3: "},
		{"a.yaml", "- name: n1\n  driver: fake\n  maintenance_reason: x\n", "line 3: maintenance_reason: there is a reason"},
		{"a.yaml", "- name: n1\n  driver: fake\n  properties: [1]\n", "line 3: properties: must be a mapping"},
		{"a.yaml", "- name: n1\n  driver: fake\n  properties: {a: .inf}\n", "line 3: properties/a"},
		{"a.yaml", "- &a\n  name: n1\n- *a\n", "line 1: a node must be a mapping"},
		{"a.yaml", "--- \n- name: n1\n---\n- name: n2\n", "more than one YAML document"},
		{"a.csv", "", "holds no nodes"},
		{"a.csv", "name,driver,color\nn1,fake,red\n", `line 1: unknown column "color"`},
		{"a.csv", "name,driver,extra\nn1,fake,{}\n", "line 1: the column \"extra\" needs a path"},
		{"a.csv", "name,driver,name\n", "line 1: the column \"name\" is there twice"},
		{"a.csv", "name,driver\nn1,fake\nn2\n", "line 3: wrong number of fields"},
		{"a.csv", "name,driver\nn1,\"fake\n", "line 2: "},
		{"a.csv", "name,driver,protected\nn1,fake,2\n", "line 2: protected: must be true or false"},
		{"a.csv", "name,driver,driver_info/ipmi_password\nn1,fake,hunter2\n", "line 2: driver_info/ipmi_password is a secret"},
		{"a.csv", "name,driver,extra/a,extra/a/b\nn1,fake,1,2\n", "line 2: extra/a/b: another column"},
		{"a.csv", "name,driver,ports\nn1,fake,52:54:00:00:00:0g\n", "line 2: ports: address"},
	} {
		code, out, err := d.run(nil, "node", "apply", "--yes", "-f", d.file(c.name, c.text))
		if code != 3 || !strings.Contains(err, c.want) || strings.Contains(out+err, "hunter2") {
			t.Errorf("%q: exit code %d, want 3 and %q:\n%s%s", c.text, code, c.want, out, err)
		}
	}
	d.does(3, "give the file with -f", "node", "apply")
	d.does(3, "no such file", "node", "apply", "-f", "/none.yaml")
	if got := d.fake.Done()[before:]; len(got) != 0 {
		t.Errorf("a bad file was carried out: %q", got)
	}
}

// What was cut off is completed by the same command, and done once.
func TestApplyResumes(t *testing.T) {
	d := newDesk(t)
	var text strings.Builder
	text.WriteString("name,driver,properties/rack,ports\n")
	for i := range 300 {
		fmt.Fprintf(&text, "n%03d,fake,r%d,52:54:00:00:%02x:%02x\n", i, i%7, i>>8, i&255)
	}
	path := d.file("fleet.csv", text.String())
	calls := 0
	d.peer.Before(func(_ context.Context, method string, _ any) error {
		if method == "CreateNodes" {
			if calls++; calls > 1 {
				return errs.New(errs.Denied, "the power is gone")
			}
		}
		return nil
	})
	code, out, stderr := d.run(nil, "node", "apply", "-f", path, "--yes")
	if code != 1 || !strings.Contains(stderr, "128 done, 128 failed, 44 not begun") || !strings.Contains(out, "n128  failed     the power is gone") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	d.peer.Before(nil)
	d.does(0, "172 to create, 0 to change, 128 unchanged", "node", "apply", "-f", path, "--yes")
	d.does(0, "0 to create, 0 to change, 300 unchanged", "node", "apply", "-f", path, "--yes")
	if got := len(d.done("create")); got != 300 {
		t.Errorf("%d nodes were created", got)
	}
}

// A node that changes after the differences were shown is left alone.
func TestApplyLooksAgain(t *testing.T) {
	d := newDesk(t)
	d.nodes(2, api.State_ENROLL)
	path := d.file("fleet.yaml", "- {name: n01, description: new}\n- {name: n02, description: new}\n")
	d.peer.Before(func(_ context.Context, method string, _ any) error {
		if method == "GetNode" {
			d.fake.Change("n02", func(n *api.Node, _ *api.Flow) { n.Description = "by somebody else" })
		}
		return nil
	})
	code, out, _ := d.run(says("yes"), "node", "apply", "-f", path)
	if code != 1 || !strings.Contains(out, "n02   failed  has changed since the differences were shown") || len(d.done("update")) != 1 {
		t.Errorf("exit code %d, %q:\n%s", code, d.done("update"), out)
	}
}

// documentsGen makes documents as users may write them.
func documentsGen() *rapid.Generator[map[string]any] {
	key := rapid.SampledFrom([]string{"a", "b c", "rack", "x_password", "yes", "null", "1", "ä", "key", "deep", "- x", "a: b", "#c"})
	scalar := rapid.OneOf(
		rapid.Map(rapid.SampledFrom([]string{"", "x", "true", "null", "5", "1e3", "0x1f", "~", "- a", "a: b", " lead", "trail ", "#", "{}", "[1]", `"`, "'", "line\nbreak", "tab\t", "ünï", "@x", "%", "2024-01-01", "a,b", "\\n", "env:X", "\r\n", "😀", "\u2028"}), func(s string) any { return s }),
		rapid.Map(rapid.SampledFrom([]string{"0", "-1", "1.50", "1e3", "123456789012345678901234567890", "0.1", "1E-7"}), func(s string) any { return json.Number(s) }),
		rapid.Map(rapid.Bool(), func(b bool) any { return b }),
		rapid.Just[any](nil),
	)
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		if depth == 0 {
			return scalar
		}
		return rapid.OneOf(scalar,
			rapid.Map(rapid.SliceOfN(value(depth-1), 0, 3), func(l []any) any { return append([]any{}, l...) }),
			rapid.Map(rapid.MapOfN(key, value(depth-1), 0, 3), func(m map[string]any) any { return m }))
	}
	return rapid.MapOfN(key, value(2), 0, 4)
}

// What was exported changes nothing when it is applied, in either format.
func TestExportRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := newDesk(t)
		count := rapid.IntRange(0, 3).Draw(rt, "nodes")
		for i := range count {
			n := &api.Node{Name: fmt.Sprintf("n%d", i), Driver: "fake", DriverInfo: []byte(`{"fake_address":"a` + fmt.Sprint(i) + `","fake_password":"p"}`),
				Description: rapid.SampledFrom([]string{"", "x", "a: b", "true", "line\nbreak", "#"}).Draw(rt, "description"),
				Protected:   rapid.Bool().Draw(rt, "protected"), Maintenance: rapid.Bool().Draw(rt, "maintenance")}
			for _, doc := range []*[]byte{&n.Properties, &n.Extra, &n.InstanceInfo} {
				raw, err := json.Marshal(documentsGen().Draw(rt, "document"))
				if err != nil {
					t.Fatal(err)
				}
				*doc = raw
			}
			req := &api.CreateNodeRequest{Node: n}
			for p := range rapid.IntRange(0, 2).Draw(rt, "ports") {
				req.Ports = append(req.Ports, &api.Port{Address: fmt.Sprintf("52:54:00:00:%02d:%02d", i, p), PxeEnabled: rapid.Bool().Draw(rt, "pxe"),
					PhysicalNetwork: rapid.SampledFrom([]string{"", "prov"}).Draw(rt, "network"), Extra: []byte(rapid.SampledFrom([]string{"", "{}", `{"a":1}`}).Draw(rt, "extra"))})
			}
			if _, err := d.peer.CreateNode(context.Background(), req); err != nil {
				t.Fatal(err)
			}
		}
		for _, format := range []string{"yaml", "csv", "json"} {
			code, out, stderr := d.run(nil, "node", "export", "-o", format)
			if code != 0 {
				rt.Fatalf("export: %s", stderr)
			}
			if bytes.Contains([]byte(out), []byte("******")) {
				rt.Fatalf("a mask in\n%s", out)
			}
			code, plan, stderr := d.run(nil, "node", "apply", "-f", d.file("fleet."+format, out), "--dry-run")
			if count == 0 && strings.Contains(stderr, "holds no nodes") {
				continue
			}
			if code != 0 || !strings.Contains(plan, "0 to create, 0 to change, ") {
				rt.Fatalf("%s\n%s\n%s", out, plan, stderr)
			}
		}
	})
}

// TestFleetStalls: a file that keeps a YAML parser busy is refused at once, and
// the error says where and why.
func TestFleetStalls(t *testing.T) {
	for want, text := range map[string]string{
		"line 2: nested more than 64 deep":             "nodes:\n" + strings.Repeat("- ", 1<<16),
		"line 105: more than 100 empty lines in a row": "nodes:\n- description: |\n    a\n" + strings.Repeat("\n", 1<<16),
	} {
		start := time.Now()
		d := newDesk(t)
		code, _, stderr := d.run(nil, "node", "apply", "-f", d.file("fleet.yaml", text), "--dry-run")
		if code != 3 || !strings.Contains(stderr, want) {
			t.Errorf("%d %s, want %s", code, stderr, want)
		}
		if took := time.Since(start); took > 30*time.Second { // hundredths of one, without a race detector beside it
			t.Errorf("refused after %s", took)
		}
	}
}

// Files from anywhere are an error or a plan, never more.
func FuzzFleetYAML(f *testing.F) {
	f.Add([]byte(twoNodes))
	f.Add([]byte("- {name: n1, ports: [1, {address: 2}], extra: {a: [{env: X}]}}"))
	f.Add([]byte("nodes: &a\n- <<: *a\n"))
	f.Add([]byte("nodes:\n- description: |\n    a\n" + strings.Repeat("\n", 90)))
	f.Fuzz(func(_ *testing.T, data []byte) {
		p := &problems{path: "f"}
		for _, e := range parseYAML(data, p) {
			e.check(p)
		}
		_ = p.err()
	})
}

func FuzzFleetCSV(f *testing.F) {
	f.Add([]byte("name,driver,properties/a/b,ports\nn1,fake,\"{\"\"x\"\":1}\",52:54:00:00:00:01\n"))
	f.Add([]byte("name,extra/\n,1\n"))
	f.Add([]byte("name,driver\n\""))
	f.Fuzz(func(_ *testing.T, data []byte) {
		p := &problems{path: "f"}
		for _, e := range parseCSV(data, p) {
			e.check(p)
		}
		_ = p.err()
	})
}
