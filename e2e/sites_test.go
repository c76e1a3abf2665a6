//go:build e2e && e2e_all

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ironring/ironring/e2e/harness"
)

var (
	plugFar     = sync.OnceValue(func() error { return lab.PlugFar(context.Background()) })
	plugForeign = sync.OnceValue(func() error { return lab.PlugForeign(context.Background()) })
)

// TestRelay boots a machine on a network where no peer is: a DHCP relay of
// another project asks for it and wants its option 82 back.
func TestRelay(t *testing.T) {
	runCase(t, "relay", func(ctx context.Context, k *kase) error {
		if err := plugFar(); err != nil {
			return err
		}
		if err := k.CLI(ctx, nil, "network", "set", "far", "--cidr", harness.FarCIDR, "--range", "10.78.0.100-10.78.0.199", "--gateway", harness.FarRouter); err != nil {
			return err
		}
		vm, bmc, err := k.machineOf(ctx, harness.VMSpec{Index: 1, Bridge: harness.BridgeFar}, harness.BMCSpec{})
		if err != nil {
			return err
		}
		if err := k.inspected(ctx, "n1", vm, bmc); err != nil {
			return err
		}
		return k.timelineHas(ctx, "n1", "offered 10.78.0.", "from 10.78.0.")
	})
}

// TestProxy boots a machine with UEFI and one with a BIOS beside a DHCP server
// of another project that gives the addresses and knows nothing of booting.
func TestProxy(t *testing.T) {
	for _, fw := range []struct {
		name string
		fw   harness.Firmware
		says []string
	}{
		{"proxy-uefi", harness.UEFI, []string{"PXE firmware (UEFI x86-64) at 10.77.0.2", "iPXE (UEFI x86-64) at 10.77.0.2"}},
		{"proxy-bios", harness.BIOS, []string{"iPXE (BIOS) at 10.77.0.2"}},
		{"proxy-http", harness.UEFIHTTP, []string{"HTTP boot firmware (UEFI x86-64): offered no address", "iPXE (UEFI x86-64) at 10.77.0.2"}},
	} {
		t.Run(fw.name, func(t *testing.T) {
			runCase(t, fw.name, func(ctx context.Context, k *kase) error {
				if err := plugForeign(); err != nil {
					return err
				}
				server, err := lab.ForeignDHCP(ctx, "10.77.0.200", "10.77.0.220")
				if err != nil {
					return err
				}
				defer server.Kill()
				if err := k.CLI(ctx, nil, "network", "set", "provisioning", "--cidr", harness.ProvCIDR, "--dhcp", "proxy", "--rev", "1"); err != nil {
					return err
				}
				vm, bmc, err := k.machineOf(ctx, harness.VMSpec{Index: 1, Firmware: fw.fw}, harness.BMCSpec{})
				if err != nil {
					return err
				}
				if err := k.inspected(ctx, "n1", vm, bmc); err != nil {
					return err
				}
				if err := k.timelineHas(ctx, "n1", fw.says...); err != nil {
					return err
				}
				return k.keySecret("n1")
			})
		})
	}
}

// keySecret checks that the key of a boot script is in no log.
func (k *kase) keySecret(name string) error {
	logs, err := filepath.Glob(filepath.Join(lab.Dir, k.name, "*", "ironring.log"))
	if err != nil || len(logs) == 0 {
		return fmt.Errorf("no logs of the peers: %w", err)
	}
	for _, file := range logs {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if strings.Contains(string(b), "?key=") {
			return fmt.Errorf("%s shows the key of %s's boot script", file, name)
		}
	}
	return nil
}
