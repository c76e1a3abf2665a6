package lab

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/ironring/ironring/api"
)

// binaryDir is where the program that peers run is built, once.
var binaryDir string

func TestMain(m *testing.M) {
	flag.Parse()
	// The cases wait for peers and machines rather than compute: as many as
	// there are may wait at the same time.
	if err := flag.Set("test.parallel", "32"); err != nil {
		panic(err)
	}
	var err error
	if binaryDir, err = os.MkdirTemp("", "ironring-lab-test-"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(binaryDir) // what is left of it lies in a temporary place
		os.Exit(code)
	}))
}

// build makes the program as `make build` does, so that both share a cache.
var build = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binaryDir, "ironring")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/ironring/ironring/cmd/ironring")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
})

func binary(t testing.TB) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal("build ironring: ", err)
	}
	return path
}

// shortDir is a directory whose path leaves room for the name of a socket.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "irlab")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

var quiet = slog.New(slog.DiscardHandler)

// TestStory is the whole of `ironring lab --once`: the peer that works on a
// node is taken away in the middle of its image, by force and in order; the
// deployments go on elsewhere and no byte of an image is fetched twice.
func TestStory(t *testing.T) {
	t.Parallel()
	for name, term := range map[string]bool{"SIGKILL": false, "SIGTERM": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const image = 4
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			rep, err := Run(ctx, Options{
				Peers: 3, Nodes: 3, Once: true, Kill: true, Term: term, Dir: shortDir(t), Binary: binary(t),
				ImageMiB: image, ImageRate: 512 << 10, Progress: t.Output(), Logger: quiet,
			})
			if err != nil {
				t.Fatal(err)
			}
			if !rep.Well() || rep.Active != 3 || rep.Killed != 1 || rep.Resumed < 1 || rep.RestartedSteps != 0 || len(rep.TakeoverSeconds) != rep.Resumed {
				t.Errorf("%+v", rep)
			}
			taken := 0
			for i, row := range rep.Rows {
				if ipmi := i == len(rep.Rows)-1 && ipmitool(); (row.Driver == "ipmi") != ipmi {
					t.Errorf("%s has the driver %s", row.Node, row.Driver)
				}
				if row.State != api.State_ACTIVE || row.Served != image<<20 || row.Ramdisks != 1 || row.Problem != "" {
					t.Errorf("%+v", row)
				}
				taken += row.Takeovers
			}
			if taken < rep.Resumed {
				t.Errorf("%d nodes were resumed, but %d takeovers are on record", rep.Resumed, taken)
			}
			if err := rep.Print(t.Output()); err != nil {
				t.Error(err)
			}
		})
	}
}
