package client

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// forbidden are what a program that only wants to talk to a cluster must not
// be made to link.
var forbidden = []string{"hashicorp/", "bmclib", "gofish", "bbolt", "ironring/fsm", "ironring/cluster", "ironring/conductor", "ironring/node", "ironring/ring"}

func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".", "../api").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for p := range strings.FieldsSeq(string(out)) {
		for _, bad := range forbidden {
			if strings.Contains(p, bad) {
				t.Errorf("client or api depends on %s", p)
			}
		}
	}
}

// TestOutsideModule compiles testdata/outside as somebody else's module,
// offline: what is exported must be enough to be used from there.
func TestOutsideModule(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	copyFile := func(from, to string) {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(filepath.Join("testdata", "outside", "main.go"), "main.go")
	copyFile(filepath.Join(root, "go.sum"), "go.sum")
	mod := "module example.org/outside\n\ngo 1.26.0\n\nrequire github.com/ironring/ironring v0.0.0\n\nreplace github.com/ironring/ironring => " + root + "\n"
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "outside"), ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
