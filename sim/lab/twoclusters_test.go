package lab

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// startAnother founds a second cluster beside that of the fixture.
func (f *fixture) startAnother(t *testing.T) *peer {
	t.Helper()
	p := &peer{id: "q1", dir: shortDir(t), addr: f.net.peer(210)}
	p.socket = filepath.Join(p.dir, "sock")
	own, err := os.ReadFile(filepath.Join(f.peers[0].dir, "ironring.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := strings.NewReplacer(f.peers[0].dir, p.dir, "id: p1", "id: q1", f.peers[0].addr.String()+":", p.addr.String()+":").Replace(string(own))
	if err := os.WriteFile(filepath.Join(p.dir, "ironring.yaml"), []byte(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.start(f.opts.Binary, "", "--init"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.term()
		_ = p.log.Close() // written by the process, not by us
	})
	if err := f.await(within(t), p, 1); err != nil {
		t.Fatal(err)
	}
	return p
}

// twoClusters: the export of one cluster is refused by another, until somebody
// says that it is meant, and has put the secrets where the file says. Then it
// makes the same nodes, with credentials that work.
func (s *scene) twoClusters(t *testing.T) {
	q := s.startAnother(t)
	text, code := s.at(t, s.peers[0], nil, "node", "export", "--where", `name.startsWith("web") || name == "spare1"`)
	if code != 0 {
		t.Fatal(text)
	}
	path := s.file(t, "fleet.yaml", text)
	before := look(t, s.machines)
	apply := func(code int, want string, more ...string) {
		t.Helper()
		out, got := s.at(t, q, types("yes"), append([]string{"node", "apply", "-f", path}, more...)...)
		if got != code || !strings.Contains(out, want) {
			t.Errorf("exit code %d, not %d, or no %q in:\n%s", got, code, want, out)
		}
	}
	apply(3, "is this the right cluster?")
	secrets := regexp.MustCompile(`redfish_password: \{file: (.*)\}`).FindAllStringSubmatch(text, -1)
	if len(secrets) != 3 {
		t.Fatalf("%d references to passwords in\n%s", len(secrets), text)
	}
	for _, at := range secrets {
		apply(3, at[1]+": no such file", "--from-other-cluster")
	}
	if out, code := s.at(t, q, nil, "node", "list", "-o", "json"); code != 0 || strings.Contains(out, "web1") {
		t.Errorf("something was done: exit code %d:\n%s", code, out)
	}
	for _, at := range secrets {
		file := filepath.Join(filepath.Dir(path), at[1])
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		password := s.machines[strings.Split(at[1], "/")[1]].bmc.Info()["redfish_password"].(string)
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	apply(0, "3 done", "--from-other-cluster")
	apply(0, "0 to create, 0 to change, 3 unchanged", "--from-other-cluster")
	if out, code := s.at(t, q, nil, "node", "manage", "web1", "web2", "spare1", "--wait"); code != 0 {
		t.Errorf("the credentials do not work: exit code %d:\n%s", code, out)
	}
	again, _ := s.at(t, q, nil, "node", "export")
	cluster := regexp.MustCompile(`(?m)^cluster: .*$`)
	if cluster.ReplaceAllString(again, "") != cluster.ReplaceAllString(text, "") || again == text {
		t.Errorf("exported again:\n%s\nwas\n%s", again, text)
	}
	same(t, before, look(t, s.machines))
}
