package serve

import (
	"bytes"
	"os"

	"github.com/ironring/ironring/cluster"
	"github.com/ironring/ironring/internal/config"
	"github.com/ironring/ironring/internal/errs"
)

// formation is what the file says of forming; nil when it says nothing. The
// shared key is read on each start, so that members take in later peers.
func formation(cfg *config.Config) (*cluster.Form, error) {
	if !cfg.Forms() {
		return nil, nil
	}
	info, err := os.Stat(cfg.KeyFile)
	if err != nil {
		return nil, errs.About(errs.Invalid, "key_file", "key_file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, errs.About(errs.Invalid, "key_file", "key_file: %s can be read by others (mode %04o): run chmod 600 %s", cfg.KeyFile, info.Mode().Perm(), cfg.KeyFile)
	}
	key, err := os.ReadFile(cfg.KeyFile)
	if err != nil {
		return nil, errs.About(errs.Invalid, "key_file", "key_file: %w", err)
	}
	key = bytes.TrimSpace(key)
	if len(key) < 32 {
		return nil, errs.About(errs.Invalid, "key_file", "key_file: %s has %d bytes, at least 32 are needed: make one with `openssl rand -base64 32`", cfg.KeyFile, len(key))
	}
	return &cluster.Form{ClusterID: cfg.ClusterID, Join: cfg.Join, Expect: cfg.Expect, Key: key}, nil
}
