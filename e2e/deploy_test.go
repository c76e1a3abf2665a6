//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ironring/ironring/e2e/harness"
)

// TestDeploy is the life of a machine: enrol, inspect, clean and deploy by
// UEFI PXE with a config drive, until the deployed image speaks on the console
// and tells what is on the drive. The machine's clock says 2001 at first.
func TestDeploy(t *testing.T) {
	runCase(t, "deploy", func(ctx context.Context, k *kase) error {
		vm, bmc, err := k.machineOf(ctx, harness.VMSpec{Index: 1, RTC: "2001-01-01T00:00:00"}, harness.BMCSpec{})
		if err != nil {
			return err
		}
		if err := k.enrol(ctx, "n1", vm.MAC, bmc); err != nil {
			return err
		}
		if err := k.verb(ctx, "n1", "inspect", "MANAGEABLE", 4*time.Minute); err != nil {
			return err
		}
		if err := k.bootTime(ctx, "n1", vm); err != nil {
			return err
		}
		if err := k.inventory(ctx, "n1", vm, bmc); err != nil {
			return err
		}
		if err := k.verb(ctx, "n1", "provide", "AVAILABLE", 4*time.Minute); err != nil {
			return err
		}
		img, url, err := image("deploy", 0)
		if err != nil {
			return err
		}
		before, err := vm.Written()
		if err != nil {
			return err
		}
		data := filepath.Join(lab.Dir, k.name, "user-data")
		if err := os.WriteFile(data, []byte("value-"+lab.ID+"\nsecond line\n"), 0o600); err != nil {
			return err
		}
		mark := vm.Console.Mark()
		if err := k.verb(ctx, "n1", "deploy", "ACTIVE", 6*time.Minute, "--image", url, "--checksum", "sha256:"+img.SHA256, "--user-data", data); err != nil {
			return err
		}
		if err := k.boots(ctx, vm, mark, img); err != nil {
			return err
		}
		if _, err := vm.Console.Wait(ctx, mark, fmt.Sprintf("IRONRING-CONFIG user_data=%q", "value-"+lab.ID), lab.Limit(time.Minute)); err != nil {
			return err
		}
		return writtenOnce(vm, before, img)
	})
}

// inventory checks what the agent found in a machine.
func (k *kase) inventory(ctx context.Context, name string, vm *harness.VM, bmc *harness.BMC) error {
	var got struct {
		Found struct {
			UUID     string `json:"system_uuid"`
			Serial   string `json:"serial"`
			BootMode string `json:"boot_mode"`
			Disks    []struct {
				Serial string `json:"serial"`
			} `json:"disks"`
			BMC struct {
				Addresses []string `json:"addresses"`
			} `json:"bmc"`
		} `json:"json"`
	}
	if err := k.CLI(ctx, &got, "node", "inventory", name); err != nil {
		return err
	}
	f := got.Found
	if f.UUID != vm.UUID || f.Serial != vm.Serial || f.BootMode != "uefi" || len(f.Disks) != 1 || f.Disks[0].Serial != vm.DiskID ||
		!slices.Equal(f.BMC.Addresses, []string{bmc.Addr}) {
		return fmt.Errorf("inventory: %+v, want the machine %s, serial %s, disk %s, BMC %s", f, vm.UUID, vm.Serial, vm.DiskID, bmc.Addr)
	}
	return nil
}

// bootTime logs how long the last boot took from power on to the agent's first
// call, and each stage on the way.
func (k *kase) bootTime(ctx context.Context, name string, vm *harness.VM) error {
	events, err := k.Timeline(ctx, name)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, e := range events {
		if e.Stage != "" && !seen[e.Stage] {
			seen[e.Stage] = true
			lab.Logf("%s: power on to %s: %.1f s", name, e.Stage, time.UnixMilli(e.At).Sub(vm.Started()).Seconds())
		}
	}
	if !seen["agent"] {
		return errors.New("the timeline does not show the agent's first call")
	}
	return nil
}

// boots waits for the marker of an image and logs the time.
func (k *kase) boots(ctx context.Context, vm *harness.VM, mark int64, img *harness.Image) error {
	if _, err := vm.Console.Wait(ctx, mark, img.Booted(), lab.Limit(2*time.Minute)); err != nil {
		return err
	}
	lab.Logf("%s: the image booted %.1f s after power on", vm.Name, time.Since(vm.Started()).Seconds())
	return nil
}

// writtenOnce checks that an image was fetched and written exactly once, and
// that the disk holds it. before is what the machine had written until then.
func writtenOnce(vm *harness.VM, before uint64, img *harness.Image) error {
	srv, err := images()
	if err != nil {
		return err
	}
	after, err := vm.Written()
	if err != nil {
		return err
	}
	served, written := srv.Bytes(img), int64(after-before)
	lab.Logf("%s: image of %d bytes: %d bytes fetched in %d requests, %d bytes written", vm.Name, img.Size, served, len(srv.Requests(img)), written)
	// A connection that breaks loses what was under way, and is resumed.
	if served < img.Size || served > img.Size+img.Size/8 {
		return fmt.Errorf("%d bytes of an image of %d were fetched: not once; requests: %q", served, img.Size, srv.Requests(img))
	}
	// Zeroes may be left out, partition tables and boot entries are written too.
	if written < img.Size/3 || written > img.Size+img.Size/4 {
		return fmt.Errorf("%d bytes were written to the disk for an image of %d: not once", written, img.Size)
	}
	return sameContent(vm.Disk, img.File)
}

// sameContent compares what is inside the partitions of an image with a disk.
func sameContent(disk, image string) error {
	a, err := os.Open(disk)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Open(image)
	if err != nil {
		return err
	}
	defer b.Close()
	const from, to = 1 << 20, 63 << 20 // without the partition tables
	bufA, bufB := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(from); at < to; at += int64(len(bufA)) {
		if _, err := io.ReadFull(io.NewSectionReader(a, at, to-at), bufA); err != nil {
			return err
		}
		if _, err := io.ReadFull(io.NewSectionReader(b, at, to-at), bufB); err != nil {
			return err
		}
		if !bytes.Equal(bufA, bufB) {
			return fmt.Errorf("the disk differs from the image between %d and %d", at, at+int64(len(bufA)))
		}
	}
	return nil
}
