package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A peer that does not start because of its data directory ends with one line
// and the exit code of its kind.
func TestServeRefusesDataDirectory(t *testing.T) {
	for name, c := range map[string]struct {
		make func(dir string) error
		code int
		says []string
	}{
		"nothing there": {func(string) error { return nil }, 4, []string{"holds no peer", "--init"}},
		"open to all":   {func(dir string) error { return os.Chmod(dir, 0o777) }, 3, []string{"can be changed by others (mode 0777)", "run `chmod 700 "}},
		"key open": {func(dir string) error {
			path := filepath.Join(dir, "ca.key")
			if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
				return err
			}
			return os.Chmod(path, 0o644)
		}, 3, []string{"ca.key can be read by others (mode 0644)", "run `chmod 600 "}},
		"identity damaged": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "identity.json"), []byte(`{"id":`), 0o600)
		}, 3, []string{"identity.json is damaged", "join again with a new token"}},
		"log without identity": {func(dir string) error { return os.Mkdir(filepath.Join(dir, "raft"), 0o700) }, 3, []string{"identity.json is missing although there is a log"}},
		"a file in its place":  {func(dir string) error { return replace(dir) }, 3, []string{"make the data directory"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := c.make(dir); err != nil {
				t.Fatal(err)
			}
			conf := filepath.Join(t.TempDir(), "ironring.yaml")
			text := "data_dir: " + dir + "\nid: p1\ndrivers: [fake]\nlisten: {cluster: 127.0.0.1, gossip: 127.0.0.1, api: 127.0.0.1, agent: 127.0.0.1, boot: 127.0.0.1, tftp: 127.0.0.1}\n"
			if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var out, stderr bytes.Buffer
			f := &Factory{In: strings.NewReader(""), Out: &out, Err: &stderr, Getenv: func(string) string { return "" }}
			if code := Main(t.Context(), f, []string{"serve", "--config", conf}); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			line, ok := strings.CutPrefix(stderr.String(), "error: ")
			if !ok || strings.Count(line, "\n") != 1 || !strings.Contains(line, dir) {
				t.Errorf("not one line about %s: %q", dir, stderr.String())
			}
			for _, s := range c.says {
				if !strings.Contains(line, s) {
					t.Errorf("%q does not say %q", line, s)
				}
			}
		})
	}
}

func replace(dir string) error {
	if err := os.Remove(dir); err != nil {
		return err
	}
	return os.WriteFile(dir, nil, 0o600)
}
