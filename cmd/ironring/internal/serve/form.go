package serve

import (
	"bytes"
	"os"

	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/internal/config"
	"github.com/ironring/ironring/internal/errs"
)

// formation is what the file says of forming; nil when it says nothing. The
// shared key is read whenever it is needed, by members too: they take in later
// peers, and a new key counts without a restart.
func formation(cfg *config.Config) *cluster.Form {
	if !cfg.Forms() {
		return nil
	}
	return &cluster.Form{
		ClusterID: cfg.ClusterID, Join: cfg.Join, Expect: cfg.Expect,
		Key: func() ([]byte, error) { return readKeyFile(cfg.KeyFile) },
	}
}

// readKeyFile reads a shared key that nobody else on this host can read.
func readKeyFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, errs.About(errs.Invalid, "key_file", "key_file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, errs.About(errs.Invalid, "key_file", "key_file: %s can be read by others (mode %04o): run chmod 600 %s", path, info.Mode().Perm(), path)
	}
	key, err := os.ReadFile(path)
	if err != nil {
		return nil, errs.About(errs.Invalid, "key_file", "key_file: %w", err)
	}
	return bytes.TrimSpace(key), nil
}
