//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/e2e/harness"
)

// TestSwappedBMCs enrols two machines each with the other's BMC. What is
// switched on is then not what answers: both are refused, and nothing is
// written to either disk. One BMC tells its machine's UUID; of the other only
// the address is known, which the machine's own BMC does not have.
func TestSwappedBMCs(t *testing.T) {
	runCase(t, "swapped-bmcs", func(ctx context.Context, k *kase) error {
		turn := harness.NewTurn()
		vm1, bmc1, err := k.machine(ctx, 1, turn, harness.BMCSpec{})
		if err != nil {
			return err
		}
		vm2, bmc2, err := k.machine(ctx, 2, turn, harness.BMCSpec{NoGUID: true})
		if err != nil {
			return err
		}
		if err := k.enrol(ctx, "n1", vm1.MAC, bmc2); err != nil {
			return err
		}
		if err := k.enrol(ctx, "n2", vm2.MAC, bmc1); err != nil {
			return err
		}
		for _, n := range []string{"n1", "n2"} {
			if err := k.CLI(ctx, nil, "node", "provide", n, "--yes"); err != nil {
				return err
			}
		}
		// One machine runs at a time: when one node was refused, its machine is
		// unplugged, so that the other gets its turn.
		vms := map[string]*harness.VM{"n1": vm1, "n2": vm2}
		for len(vms) > 0 {
			if err := k.refused(ctx, "CLEAN_FAILED", "identity mismatch", vms); err != nil {
				return err
			}
		}
		for _, vm := range []*harness.VM{vm1, vm2} {
			if n, err := vm.Written(); err != nil || n != 0 {
				return fmt.Errorf("%s wrote %d bytes to its disk: %w", vm.Name, n, err)
			}
			if err := allZero(vm.Disk); err != nil {
				return fmt.Errorf("%s: %w", vm.Name, err)
			}
		}
		return nil
	})
}

// refused waits until one more node is in state failed for the right reason.
// Its machine is unplugged and taken out of vms, so that the other gets its
// turn; if nobody switched that on, the test presses its button.
func (k *kase) refused(ctx context.Context, failed, why string, vms map[string]*harness.VM) error {
	var done string
	err := harness.Poll(ctx, "refusal of a node", lab.Limit(4*time.Minute), func() (bool, error) {
		if err := k.silent(); err != nil {
			return false, harness.Final(err)
		}
		for n := range vms {
			e, err := k.Explain(ctx, n)
			if err != nil {
				return false, err
			}
			switch {
			case e.Node.State == failed && strings.Contains(e.Node.LastError, why):
				lab.Logf("%s: refused: %s", n, e.Node.LastError)
				done = n
				return true, nil
			case strings.HasSuffix(e.Node.State, "_FAILED") || e.Node.State == "AVAILABLE" || e.Node.State == "ACTIVE":
				return false, harness.Final(fmt.Errorf("%s: %s: %s", n, e.Node.State, e.Node.LastError))
			}
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	vms[done].PowerOff("unplugged by the test")
	delete(vms, done)
	for _, vm := range vms {
		if !vm.On() {
			vm.SetBoot(harness.BootPXE)
			return vm.PowerOn("button pressed by the test")
		}
	}
	return nil
}

// allZero checks that nothing was ever written to a disk: the file behind it
// is one hole, or what is in it is zeroes.
func allZero(disk string) error {
	f, err := os.Open(disk)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for at := int64(0); ; {
		at, err = unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return err
		}
		n, err := f.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		for i, b := range buf[:n] {
			if b != 0 {
				return fmt.Errorf("byte %d of the disk is %#x, want a disk that was never written to", at+int64(i), b)
			}
		}
		at += int64(n)
	}
}
