//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/ironring/ironring/e2e/harness"
)

// TestHarness proves the lab without the product: ipmitool speaks to ipmi_sim,
// which powers a QEMU machine, which boots the test image from its disk, whose
// in-band interface leads to the same BMC.
func TestHarness(t *testing.T) {
	ctx := t.Context()
	img, err := lab.Image(t.Context(), boot, "harness")
	if err != nil {
		t.Fatal(err)
	}
	vm, bmc := newMachine(t, 1)
	if err := fill(vm.Disk, img.File); err != nil {
		t.Fatal(err)
	}
	tool := func(args ...string) string {
		t.Helper()
		out, err := bmc.Tool(ctx, 1, args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if got := tool("chassis", "power", "status"); !strings.HasSuffix(got, "off") {
		t.Fatalf("power before it is switched on: %q", got)
	}
	tool("chassis", "bootdev", "disk")
	mark := vm.Console.Mark()
	start := time.Now()
	tool("chassis", "power", "on")
	if _, err := vm.Console.Wait(ctx, mark, img.Booted(), lab.Limit(60*time.Second)); err != nil {
		t.Fatal(err)
	}
	lab.Logf("harness: power on to the marker: %.1f s", time.Since(start).Seconds())

	line, err := vm.Console.Wait(ctx, mark, "IRONRING-BMC", lab.Limit(60*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("IRONRING-BMC ip=%s mac=%s", bmc.Addr, bmc.MAC); line != want {
		t.Errorf("in-band: %q, want %q", line, want)
	}
	if got := tool("lan", "print"); !strings.Contains(got, bmc.Addr) || !strings.Contains(got, bmc.MAC) {
		t.Errorf("the BMC's own address over the network:\n%s\nwant %s and %s", got, bmc.Addr, bmc.MAC)
	}
	if got := tool("mc", "guid"); !strings.Contains(got, vm.UUID) {
		t.Errorf("the BMC's system GUID: %q, want the machine's UUID %s", got, vm.UUID)
	}
	if got := tool("chassis", "power", "status"); !strings.HasSuffix(got, "on") {
		t.Errorf("power while it runs: %q", got)
	}
	tool("chassis", "power", "off")
	if vm.On() {
		t.Error("the machine still runs after power off")
	}
	if got := tool("chassis", "power", "status"); !strings.HasSuffix(got, "off") {
		t.Errorf("power after it was switched off: %q", got)
	}
	if n, err := vm.Written(); err != nil || n != 0 {
		t.Errorf("the image wrote %d bytes to its disk (%v), want none", n, err)
	}
}

// newMachine is a machine with an empty disk, off, and its BMC.
func newMachine(t *testing.T, index int) (*harness.VM, *harness.BMC) {
	t.Helper()
	vm, err := lab.NewVM(harness.VMSpec{
		Index: index, UUID: uuid.NewString(), Serial: fmt.Sprintf("E2E-%s-%d", lab.Prefix, index), DiskMB: 8 << 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	bmc, err := lab.NewBMC(t.Context(), vm, harness.BMCSpec{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		vm.PowerOff("the case ends")
		bmc.Close()
	})
	return vm, bmc
}

// fill copies an image to the start of a disk.
func fill(disk, image string) error {
	from, err := os.Open(image)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer to.Close()
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	return to.Close()
}
