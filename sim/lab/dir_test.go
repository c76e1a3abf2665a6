package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A lab takes no directory in which something is: it would write over the
// configuration of a lab that runs there.
func TestWorkDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	for range 2 { // a new one, an empty one
		if got, err := workDir(dir); err != nil || got != dir {
			t.Fatal(got, err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "p1"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := workDir(dir); err == nil || !strings.Contains(err.Error(), "is not empty (it has p1)") {
		t.Errorf("error %v", err)
	}
}
