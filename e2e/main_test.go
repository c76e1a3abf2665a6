//go:build e2e

package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/ironring/ironring/e2e/harness"
)

// lab and boot are made once for all cases.
var (
	lab  *harness.Lab
	boot *harness.Boot
)

func TestMain(m *testing.M) {
	harness.Helper()
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root, err := filepath.Abs("..")
	if err != nil {
		return 1, err
	}
	if lab, err = harness.Open(root); err != nil {
		return 1, err
	}
	// Once: at the end, or when somebody asks us to stop.
	closeLab := sync.OnceValue(lab.Close)
	defer func() {
		if cerr := closeLab(); err == nil {
			err = cerr
		}
	}()
	interrupted := context.AfterFunc(ctx, func() {
		_ = closeLab()
		os.Exit(130)
	})
	defer interrupted() // before stop, which ends ctx
	if err := lab.InstallPackages(ctx); err != nil {
		return 1, err
	}
	if boot, err = lab.Boot(ctx); err != nil {
		return 1, err
	}
	if err := lab.Calibrate(ctx, boot); err != nil {
		return 1, err
	}
	if err := lab.Plug(ctx); err != nil {
		return 1, err
	}
	return m.Run(), nil
}
