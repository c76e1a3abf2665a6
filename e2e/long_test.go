//go:build e2e && e2e_all

package e2e

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/e2e/harness"
)

// TestRollingRestart stops and starts every peer in turn while an image is
// being written, as an upgrade would. The deployment goes on, and the image is
// written once.
func TestRollingRestart(t *testing.T) {
	runCase(t, "rolling-restart", func(ctx context.Context, k *kase) error {
		vm, bmc, err := k.machine(ctx, 1, nil, harness.BMCSpec{})
		if err != nil {
			return err
		}
		if err := k.available(ctx, "n1", vm, bmc); err != nil {
			return err
		}
		img, url, err := image(k.name, 90*time.Second)
		if err != nil {
			return err
		}
		before, err := vm.Written()
		if err != nil {
			return err
		}
		mark := vm.Console.Mark()
		if err := k.CLI(ctx, nil, "node", "deploy", "n1", "--image", url, "--checksum", "sha256:"+img.SHA256); err != nil {
			return err
		}
		if err := k.served(ctx, img, 10, 5*time.Minute); err != nil {
			return err
		}
		for _, p := range k.Peers {
			if err := p.Stop(); err != nil {
				return err
			}
			if err := p.Start(ctx); err != nil {
				return err
			}
			if err := k.WaitHealthy(ctx); err != nil {
				return err
			}
		}
		if _, err := k.WaitState(ctx, "n1", "ACTIVE", lab.Limit(6*time.Minute)); err != nil {
			return err
		}
		if err := k.boots(ctx, vm, mark, img); err != nil {
			return err
		}
		return writtenOnce(vm, before, img)
	})
}

// TestSwappedBeforeDeploy swaps the BMCs of two machines that are known and
// clean: the deployment is refused before a byte is written, and before a
// machine is switched.
func TestSwappedBeforeDeploy(t *testing.T) {
	runCase(t, "swapped-before-deploy", func(ctx context.Context, k *kase) error {
		turn := harness.NewTurn()
		vms, bmcs := map[string]*harness.VM{}, map[string]*harness.BMC{}
		nodes := []string{"n1", "n2"}
		for i, n := range nodes {
			vm, bmc, err := k.machine(ctx, i+1, turn, harness.BMCSpec{})
			if err != nil {
				return err
			}
			vms[n], bmcs[n] = vm, bmc
			if err := k.available(ctx, n, vm, bmc); err != nil {
				return err
			}
			// Its agent would be kept for the deployment: the other one has its turn.
			if err := k.CLI(ctx, nil, "node", "power", n, "off", "--wait"); err != nil {
				return err
			}
		}
		img, url, err := image(k.name, 0)
		if err != nil {
			return err
		}
		before := map[string]uint64{}
		for i, n := range nodes {
			if before[n], err = vms[n].Written(); err != nil {
				return err
			}
			other := bmcs[nodes[1-i]]
			if err := k.CLI(ctx, nil, "node", "set", n, "--driver-info", "ipmi_address="+other.Addr); err != nil {
				return err
			}
		}
		for _, n := range nodes {
			if err := k.CLI(ctx, nil, "node", "deploy", n, "--image", url, "--checksum", "sha256:"+img.SHA256); err != nil {
				return err
			}
		}
		for left := maps.Clone(vms); len(left) > 0; {
			if err := k.refused(ctx, "DEPLOY_FAILED", "belongs to another machine", left); err != nil {
				return err
			}
		}
		for _, n := range nodes {
			after, err := vms[n].Written()
			if err != nil {
				return err
			}
			if after != before[n] {
				return fmt.Errorf("%s wrote %d bytes", n, after-before[n])
			}
		}
		srv, err := images()
		if err != nil {
			return err
		}
		if r := srv.Requests(img); len(r) > 0 {
			return fmt.Errorf("the image was asked for: %s", strings.Join(r, ", "))
		}
		return nil
	})
}
