package client

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

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
