package serve

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/config"
	"github.com/ironring/ironring/internal/errs"
)

// forming makes a configuration one of those that form a cluster of p1 to p3.
func forming(t *testing.T, n int, keyFile string) *config.Config {
	t.Helper()
	cfg := testConfig(t, n)
	cfg.ClusterID, cfg.Expect, cfg.KeyFile = "one-file", 3, keyFile
	for i := 1; i <= 3; i++ {
		cfg.Join = append(cfg.Join, testAddress(i)+":7480")
	}
	return cfg
}

func keyFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// Three peers with one file make one cluster; a fourth with the same file
// joins it; none of them needs a command.
func TestFormFromOneFile(t *testing.T) {
	key := keyFile(t, strings.Repeat("s3cret", 8)+"\n", 0o600)
	var wait errgroup.Group
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var first *client.Client
	for i := 1; i <= 4; i++ {
		opts := Options{Config: forming(t, i, key), Logger: quiet}
		wait.Go(func() error {
			p, err := Open(ctx, opts)
			if err != nil {
				cancel()
				return err
			}
			return p.Run(ctx)
		})
		if i == 1 {
			c, err := client.New(client.Config{Socket: opts.Config.Socket})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			first = c
		}
	}
	eventually(t, "four peers", members(first, 4))
	v, err := first.Version(ctx, nil)
	if err != nil || v.GetClusterId() != "one-file" {
		t.Errorf("cluster %q: %v", v.GetClusterId(), err)
	}
	cancel()
	if err := wait.Wait(); err != nil {
		t.Error(err)
	}
}

func TestKeyFile(t *testing.T) {
	for name, c := range map[string]struct {
		path, text string
	}{
		"missing":  {filepath.Join(t.TempDir(), "none"), "no such file"},
		"readable": {keyFile(t, strings.Repeat("k", 44), 0o644), "chmod 600"},
		"short":    {keyFile(t, "short\n", 0o600), "openssl rand"},
	} {
		_, err := Open(t.Context(), Options{Config: forming(t, 1, c.path), Logger: quiet})
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "kkkk") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
