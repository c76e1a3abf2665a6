package serve

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ironring/ironring/internal/errs"
)

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ironring") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

func TestSocket(t *testing.T) {
	path := socketPath(t)
	lis, err := listenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := listenUnix(path); !errors.Is(err, errs.Exists) {
		t.Errorf("a socket in use: %v", err)
	}
	// A dead process leaves its socket behind.
	lis.(*net.UnixListener).SetUnlinkOnClose(false)
	lis.Close()
	lis, err = listenUnix(path)
	if err != nil {
		t.Fatalf("a socket left behind: %v", err)
	}
	lis.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path); !errors.Is(err, errs.Exists) {
		t.Errorf("a file of somebody else: %v", err)
	}
	if _, err := listenUnix(filepath.Join(path, "s")); !errors.Is(err, errs.Invalid) {
		t.Errorf("a directory that is none: %v", err)
	}
}

func TestPortInUse(t *testing.T) {
	lis, err := listenTCP("listen.api", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	_, err = listenTCP("listen.api", lis.Addr().String())
	if !errors.Is(err, errs.Exists) || !strings.Contains(err.Error(), "listen.api: listen tcp "+lis.Addr().String()) {
		t.Errorf("got %v", err)
	}
}

func TestRegistry(t *testing.T) {
	r, err := registry([]string{"redfish", "fake", "ipmi"})
	if err != nil || strings.Join(r.Names(), " ") != "fake ipmi redfish" {
		t.Errorf("%v", err)
	}
	if _, err := registry([]string{"ilo"}); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "fake, ipmi, redfish") {
		t.Errorf("got %v", err)
	}
}
