package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/internal/errs"
)

func testFactory(in string, env map[string]string) (f *Factory, out, err *bytes.Buffer) {
	out, err = new(bytes.Buffer), new(bytes.Buffer)
	return &Factory{In: strings.NewReader(in), Out: out, Err: err, Getenv: func(k string) string { return env[k] },
		Now: func() time.Time { return testNow }, output: "table"}, out, err
}

func everyCommand(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		everyCommand(sub, visit)
	}
}

// TestHelp compares the help of every command with testdata/help; -update
// accepts what it says now.
func TestHelp(t *testing.T) {
	f, _, _ := testFactory("", nil)
	seen := map[string]bool{}
	everyCommand(NewRoot(f), func(cmd *cobra.Command) {
		path := strings.Fields(cmd.CommandPath())
		if cmd.Short == "" || cmd.Example == "" && len(path) > 1 {
			t.Errorf("%s has no short text or no example", cmd.CommandPath())
		}
		f, out, _ := testFactory("", nil)
		if code := Main(context.Background(), f, append(path[1:], "--help")); code != 0 {
			t.Errorf("%s --help: exit code %d", cmd.CommandPath(), code)
		}
		name := strings.Join(path, "-") + ".txt"
		seen[name] = true
		golden := filepath.Join("testdata", "help", name)
		if *update {
			if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Error(err)
		} else if out.String() != string(want) {
			t.Errorf("help of %s has changed (-update accepts it):\n%s", cmd.CommandPath(), out)
		}
	})
	files, err := os.ReadDir(filepath.Join("testdata", "help"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !seen[file.Name()] {
			t.Errorf("testdata/help/%s is of no command", file.Name())
		}
	}
}

func TestExitCodes(t *testing.T) {
	for k := errs.Internal; k <= errs.Unreachable; k++ {
		code, ok := exitCodes[k]
		if !ok || code == 0 || code == 2 {
			t.Errorf("%v: exit code %d", k, code)
		}
		if got := ExitCode(errs.New(k, "x")); got != code {
			t.Errorf("%v: %d, want %d", k, got, code)
		}
	}
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {errors.New("x"), 1}, {exitStatus(2), 2}, {errors.Join(errors.New("x"), exitStatus(5)), 5},
		{&client.WorkFailed{}, 1}, {errs.New(errs.WrongState, "%w", &cluster.RemovedError{}), removedStatus},
	} {
		if got := ExitCode(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}

func TestInterrupted(t *testing.T) {
	f, _, stderr := testFactory("", nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if code := Main(ctx, f, []string{"node", "list", "--socket", "/nonexistent"}); code != interrupted {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
