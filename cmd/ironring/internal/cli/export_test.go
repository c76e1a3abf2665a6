package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
)

const secretive = `
- name: n1
  driver: redfish
  driver_info: {redfish_address: "https://10.0.0.1", redfish_username: admin, redfish_password: {env: ONE}}
  extra: {deep: {api_token: {env: TWO}, list: [{a_password: {env: THREE}, b: 4}]}}
  ports: ["52:54:00:00:00:01"]
- name: n2
  driver: ipmi
  driver_info: {ipmi_address: 10.0.0.2, ipmi_username: admin, ipmi_password: {env: ONE}}
`

// TestExportToAnotherCluster: what one cluster exports makes the same nodes of
// another that has none, once the secrets are where the file says; until then
// nothing is done, and every secret that is missing is named. No secret is ever
// in the file or shown.
func TestExportToAnotherCluster(t *testing.T) {
	from := newDesk(t)
	from.env = map[string]string{"ONE": "hunter1", "TWO": "hunter2", "THREE": "hunter3"}
	from.does(0, "2 done", "node", "apply", "--yes", "-f", from.file("fleet.yaml", secretive))
	for _, format := range []string{"yaml", "csv", "json"} {
		t.Run(format, func(t *testing.T) {
			code, text, stderr := from.run(nil, "node", "export", "-o", format)
			if code != 0 || stderr != "" || strings.Contains(text, "hunter") || strings.Contains(text, "*") {
				t.Fatalf("exit code %d:\n%s%s", code, text, stderr)
			}
			to := newDesk(t)
			to.fake.ID = "another"
			path := to.file("fleet."+format, text)
			apply := []string{"node", "apply", "--yes", "-f", path}
			to.does(3, "was exported from the cluster test, and this is another: is this the right cluster?", apply...)
			apply = append(apply, "--from-other-cluster")
			code, out, stderr := to.run(nil, apply...)
			secrets := map[string]string{
				"n1/driver_info/redfish_password": "hunter1",
				"n1/extra/deep/api_token":         "hunter2",
				"n1/extra/deep/list/0/a_password": "hunter3",
				"n2/driver_info/ipmi_password":    "hunter1",
			}
			for at := range secrets {
				if code != 3 || !strings.Contains(out+stderr, filepath.Join(filepath.Dir(path), "secrets", at)+": no such file") {
					t.Errorf("exit code %d, %s is not named in:\n%s%s", code, at, out, stderr)
				}
			}
			for at, secret := range secrets {
				if len(to.fake.Done()) > 0 {
					t.Fatalf("done before all secrets were there: %q", to.fake.Done())
				}
				to.does(3, "no such file", apply...)
				file := filepath.Join(filepath.Dir(path), "secrets", at)
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			code, out, stderr = to.run(nil, apply...)
			if code != 0 || !strings.Contains(stderr, "2 done") || strings.Contains(out+stderr, "hunter") {
				t.Fatalf("exit code %d:\n%s%s", code, out, stderr)
			}
			for _, name := range []string{"n1", "n2"} {
				var a, b *api.Node
				from.fake.Change(name, func(n *api.Node, _ *api.Flow) { a = n })
				to.fake.Change(name, func(n *api.Node, _ *api.Flow) { b = n })
				if a.GetId() != b.GetId() || !sameJSON(a.GetDriverInfo(), b.GetDriverInfo()) || !sameJSON(a.GetExtra(), b.GetExtra()) {
					t.Errorf("%v\nis not\n%v", b, a)
				}
			}
			// And it is its own export, but for the cluster's name.
			_, again, _ := to.run(nil, "node", "export", "-o", format)
			if again == text || strings.ReplaceAll(again, "another", "test") != text {
				t.Errorf("exported again:\n%s\nwas\n%s", again, text)
			}
			to.does(0, "0 to create, 0 to change, 2 unchanged", apply...)
		})
	}
}

func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return len(a)+len(b) == 0 || string(a)+string(b) == "{}"
	}
	one, _ := json.Marshal(x)
	two, _ := json.Marshal(y)
	return string(one) == string(two)
}

// On the cluster that it is from, an export needs no secret and changes
// nothing, wherever its references point.
func TestExportIsNoChangeAtHome(t *testing.T) {
	d := newDesk(t)
	d.env = map[string]string{"ONE": "hunter1", "TWO": "hunter2", "THREE": "hunter3"}
	d.does(0, "2 done", "node", "apply", "--yes", "-f", d.file("fleet.yaml", secretive))
	d.fake.Change("n2", func(n *api.Node, _ *api.Flow) {
		n.Extra = []byte(`{"a": {"b/c": 1, "c_token": "hunter4", "d": [{"e_secret": "hunter5"}]}}`)
	})
	d.env = map[string]string{}
	for _, c := range []struct{ pattern, want string }{
		{"file:secrets/{node}/{path}", "secrets/n1/driver_info/redfish_password"},
		{"file:/run/secrets/{key}", "/run/secrets/redfish_password"},
		{"env:{node}_{path}", "N1_EXTRA_DEEP_API_TOKEN"},
		{"env:BMC", "{env: BMC}"},
		{"none", "redfish_username"},
	} {
		code, text, stderr := d.run(nil, "node", "export", "--secrets", c.pattern)
		if code != 0 || !strings.Contains(text, c.want) || strings.Contains(text, "hunter") {
			t.Errorf("%s: exit code %d:\n%s%s", c.pattern, code, text, stderr)
		}
		d.does(0, "0 to create, 0 to change, 2 unchanged", "node", "apply", "-f", d.file("fleet.yaml", text))
	}
	for _, c := range []struct{ pattern, want string }{
		{"secrets/", "must be file:PATH, env:NAME or none"},
		{"env:", "must be file:PATH, env:NAME or none"},
		{"file:{name}", "{name} stands for nothing"},
	} {
		d.does(3, c.want, "node", "export", "--secrets", c.pattern)
	}
}

// Names of variables have fewer letters than those of nodes: two secrets never
// share one by accident.
func TestExportVariablesThatCollide(t *testing.T) {
	r, err := newReferring("env:{node}_{key}")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		node string
		ok   bool
	}{{"n-1", true}, {"n-1", true}, {"n.1", false}, {"N-1", false}, {"n2", true}} {
		if _, err := r.to(c.node, []string{"driver_info", "x_password"}); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.node, err)
		}
	}
}

// Whatever a node or a key is called, its reference stays below its directory,
// and is of no other.
func TestReferencesStayInPlace(t *testing.T) {
	r, err := newReferring("file:secrets/{node}/{path}")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, path := range [][]string{{"extra", ".."}, {"extra", "..", ".."}, {"extra", "a/b"}, {"extra", "a", "b"}, {"extra", ""}, {"extra", "%"}, {"extra", "."}, {"extra", "a%2Fb"}} {
		ref, err := r.to("n1", path)
		if err != nil {
			t.Fatal(err)
		}
		if clean := filepath.Clean(ref.File); clean != ref.File || !strings.HasPrefix(clean, "secrets/n1/extra/") || seen[clean] {
			t.Errorf("%q has %s", path, ref.File)
		}
		seen[ref.File] = true
	}
}
