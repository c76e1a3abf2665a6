package cli

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

const portMAC = "52:54:00:00:00:01"

// port makes node n1 with one port, as the cluster shows it: secrets masked.
func (d *desk) port(extra string) {
	d.Helper()
	if _, err := d.peer.CreateNode(d.Context(), &api.CreateNodeRequest{
		Node:  &api.Node{Name: "n1", Driver: "fake"},
		Ports: []*api.Port{{Id: "11111111-2222-7333-8444-555555555555", Address: portMAC, PxeEnabled: true, Extra: []byte(extra)}},
	}); err != nil {
		d.Fatal(err)
	}
}

// ports are the ports that there are, with their extra.
func (d *desk) ports() string {
	d.Helper()
	rep, err := d.peer.ListPorts(d.Context(), &api.ListPortsRequest{})
	if err != nil {
		d.Fatal(err)
	}
	var out []string
	for _, p := range rep.GetPorts() {
		out = append(out, fmt.Sprintf("%s %s %s", p.GetId(), portText(p), p.GetExtra()))
	}
	return strings.Join(out, "; ")
}

// TestApplyKeepsSecretsOfPorts: a port with secrets is never replaced, because
// they would be lost; it is refused before anything is done. One that is left
// out goes, and the differences say what goes with it.
func TestApplyKeepsSecretsOfPorts(t *testing.T) {
	const secrets = `{"loc":"r7","switch_password":"******","switch":{"api_token":"******"},"list":[{"a_secret":"******","b":1}]}`
	for _, c := range []struct {
		name, extra, ports string
		code               int
		want               string
	}{
		{"the same", secrets, `{address: "` + portMAC + `", extra: {loc: r7}}`, 0, "1 unchanged"},
		{"nothing but secrets", `{"switch_password":"******"}`, `"` + portMAC + `"`, 0, "1 unchanged"},
		{"not booted from", secrets, `{address: "` + portMAC + `", pxe_enabled: false, extra: {loc: r7}}`, 3,
			portMAC + " -> " + portMAC + ", not booted from) and would have to be removed and added again, by which the secrets in its extra would be lost: list, switch/api_token, switch_password. Give in the file what"},
		{"another network", secrets, `{address: "` + portMAC + `", physical_network: p, extra: {loc: r7}}`, 3, "would be lost: list, switch/api_token, switch_password"},
		{"another extra", secrets, `{address: "` + portMAC + `", extra: {loc: r8}}`, 3, `-> ` + portMAC + `, extra {"loc":"r8"}) and would`},
		{"no extra", secrets, `"` + portMAC + `"`, 3, "would be lost"},
		{"the place of a secret", secrets, `{address: "` + portMAC + `", extra: {loc: r7, switch: 5}}`, 3, "would be lost"},
		{"left out", secrets, "", 0, "port: " + portMAC + " removed, with the secrets in its extra: list, switch/api_token, switch_password"},
		{"a mask", `{}`, `{address: "` + portMAC + `", extra: {loc: "******"}}`, 3, "extra/loc of " + portMAC + " is ******, which is shown in the place of a secret"},
		{"no name of a network", `{}`, `{address: "` + portMAC + `", physical_network: "a b"}`, 3, `physical_network: "a b"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(t)
			d.port(c.extra)
			before, was := len(d.fake.Done()), d.ports()
			path := d.file("fleet.yaml", "- {name: n1, description: new, ports: ["+c.ports+"]}\n")
			want := c.want
			if want == "1 unchanged" {
				want = "description: nothing -> new\n0 to create, 1 to change" // and nothing of the port
			}
			d.does(c.code, want, "node", "apply", "-f", path, "--yes")
			if c.code != 0 && len(d.fake.Done()) != before {
				t.Errorf("refused, but done: %q", d.fake.Done()[before:])
			}
			if now := d.ports(); c.ports != "" && now != was {
				t.Errorf("the port was %s and is %s", was, now)
			}
		})
	}
	t.Run("export", func(t *testing.T) {
		d := newDesk(t)
		d.port(secrets)
		for _, format := range []string{"yaml", "csv", "json"} {
			code, text, stderr := d.run(nil, "node", "export", "-o", format)
			if code != 0 || !strings.Contains(text, "r7") || strings.Contains(text, "*") || !strings.Contains(stderr, "3 secrets that no reference can stand for were left out") {
				t.Fatalf("exit code %d:\n%s%s", code, text, stderr)
			}
			d.does(0, "0 to create, 0 to change, 1 unchanged", "node", "apply", "-f", d.file("fleet."+format, text))
			d.does(3, "would be lost", "node", "apply", "--yes", "-f", d.file("fleet."+format, strings.ReplaceAll(text, "r7", "r8")))
		}
	})
	t.Run("a secret that came meanwhile", func(t *testing.T) {
		d := newDesk(t)
		d.port(`{}`)
		d.peer.Before(func(_ context.Context, method string, _ any) error {
			if method != "GetNode" {
				return nil
			}
			d.peer.Before(nil)
			if _, err := d.peer.DeletePort(t.Context(), &api.DeletePortRequest{Port: portMAC}); err != nil {
				return err
			}
			_, err := d.peer.CreatePort(t.Context(), &api.CreatePortRequest{Node: "n1", Port: &api.Port{Address: portMAC, PxeEnabled: true, Extra: []byte(secrets)}})
			return err
		})
		d.does(1, "would be lost", "node", "apply", "--yes", "-f", d.file("fleet.yaml", `- {name: n1, ports: [{address: "`+portMAC+`", pxe_enabled: false}]}`))
		if now := d.ports(); !strings.Contains(now, "switch_password") {
			t.Errorf("now %s", now)
		}
	})
}

// TestApplyReplacesPorts: a port that differs is removed and added again under
// its UUID, which the differences say; whatever happens between the two, the
// same command completes it.
func TestApplyReplacesPorts(t *testing.T) {
	const want = "port: " + portMAC + `, extra {"loc":"r7"} -> ` + portMAC + `, not booted from, extra {"loc":"r8"}: removed and added again`
	for _, c := range []struct {
		name    string
		prepare func(d *desk, interrupt func())
		code    int
		says    string
	}{
		{"at once", func(*desk, func()) {}, 0, "1 done"},
		{"interrupted after the first half", func(d *desk, interrupt func()) {
			d.peer.After(func(method string) error {
				if method == "DeletePort" {
					interrupt()
				}
				return nil
			})
		}, 0, "1 done"},
		{"cut off after the first half", func(d *desk, _ func()) {
			d.peer.Before(func(_ context.Context, method string, _ any) error {
				if method == "CreatePort" {
					return errs.New(errs.Denied, "the power is gone")
				}
				return nil
			})
		}, 1, "port " + portMAC + " was removed, but not added again, and may be missing now; apply the file once more, which adds it: the power is gone"},
		{"the machine is at work", func(d *desk, _ func()) {
			d.peer.Before(func(_ context.Context, method string, _ any) error {
				if method == "DeletePort" {
					return errs.New(errs.Locked, "deploy is under way")
				}
				return nil
			})
		}, 1, "port " + portMAC + " is to be removed and added again: deploy is under way"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(t)
			d.port(`{"loc":"r7"}`)
			id, _, _ := strings.Cut(d.ports(), " ")
			path := d.file("fleet.yaml", `- {name: n1, ports: [{address: "`+portMAC+`", pxe_enabled: false, extra: {loc: r8}}]}`)
			d.does(0, want, "node", "apply", "-f", path, "--dry-run")

			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			c.prepare(d, interrupt)
			f, stdout, stderr := testFactory("", nil)
			code := Main(ctx, f, []string{"node", "apply", "-f", path, "--yes", "--socket", d.socket})
			out := stdout.String() + stderr.String()
			if code != c.code || !strings.Contains(out, want) || !strings.Contains(out, c.says) {
				t.Errorf("exit code %d:\n%s", code, out)
			}
			replaced := id + " " + portMAC + `, not booted from {"loc":"r8"}`
			if now := d.ports(); code == 0 && now != replaced {
				t.Errorf("the port is %s, want %s", now, replaced)
			}
			d.peer.Before(nil)
			d.peer.After(nil)
			d.does(0, "0 to create", "node", "apply", "-f", path, "--yes")
			d.does(0, "0 to create, 0 to change, 1 unchanged", "node", "apply", "-f", path)
			if now := d.ports(); strings.Count(now, portMAC) != 1 || !strings.HasSuffix(now, `, not booted from {"loc":"r8"}`) {
				t.Errorf("the port is %s", now)
			}
		})
	}
}

// TestFleetFilesMissNothing: what apply and export compare and write is read so
// that nothing committed is missing, the ports too.
func TestFleetFilesMissNothing(t *testing.T) {
	d := newDesk(t)
	d.port(`{}`)
	path := d.file("fleet.yaml", `- {name: n1, description: new, ports: []}`)
	for args, reads := range map[string]int{"node export": 1, "node apply -f " + path + " --yes": 2} {
		before := len(d.peer.Requests())
		d.does(0, "n", strings.Fields(args)...)
		for _, req := range d.peer.Requests()[before:] {
			if list, ok := req.(*api.ListPortsRequest); ok {
				if reads--; !list.GetRead().GetLinearizable() {
					t.Errorf("%s: %v", args, list)
				}
			}
		}
		if reads != 0 {
			t.Errorf("%s: %d reads of ports are missing", args, reads)
		}
	}
}
