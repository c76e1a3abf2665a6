//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/e2e/harness"
)

// TestBIOS is the life of a machine with a BIOS: clean and deploy over the
// iPXE of its NIC's ROM, and the image boots without UEFI. Arguments and
// console of the node stand on the ramdisk's kernel line. It is active once its
// marker was read from its serial console, through its BMC.
func TestBIOS(t *testing.T) {
	runCase(t, "bios", func(ctx context.Context, k *kase) error {
		vm, bmc, err := k.machineOf(ctx, harness.VMSpec{Index: 1, Firmware: harness.BIOS}, harness.BMCSpec{Console: true})
		if err != nil {
			return err
		}
		if err := k.enrol(ctx, "n1", vm.MAC, bmc); err != nil {
			return err
		}
		if err := k.CLI(ctx, nil, "node", "set", "n1", "--property", "kernel_args=ironringtest.word=e2e loglevel=7", "--property", "console=ttyS0,115200n8"); err != nil {
			return err
		}
		mark := vm.Console.Mark()
		if err := k.verb(ctx, "n1", "provide", "AVAILABLE", 4*time.Minute); err != nil {
			return err
		}
		if _, err := vm.Console.Wait(ctx, mark, "ironringtest.word=e2e loglevel=7 console=ttyS0,115200n8", time.Second); err != nil {
			return fmt.Errorf("the node's kernel arguments: %w", err)
		}
		if err := k.bootTime(ctx, "n1", vm); err != nil {
			return err
		}
		if err := k.bootShown(ctx, "n1"); err != nil {
			return err
		}
		img, url, err := image(k.name, 0)
		if err != nil {
			return err
		}
		before, err := vm.Written()
		if err != nil {
			return err
		}
		mark = vm.Console.Mark()
		if err := k.verb(ctx, "n1", "deploy", "ACTIVE", 6*time.Minute, "--image", url, "--checksum", "sha256:"+img.SHA256,
			"--evidence", "console", "--console-pattern", img.Booted()); err != nil {
			return err
		}
		if err := k.boots(ctx, vm, mark, img); err != nil {
			return err
		}
		if err := k.seenOnConsole(ctx, "n1", img.Booted()); err != nil {
			return err
		}
		return writtenOnce(vm, before, img)
	})
}

// seenOnConsole checks that a line of the console is the evidence of a node.
func (k *kase) seenOnConsole(ctx context.Context, name, line string) error {
	var rep struct {
		Node struct {
			Evidence struct {
				Seen   string `json:"seen"`
				Source string `json:"source"`
			} `json:"evidence"`
		} `json:"node"`
	}
	if err := k.CLI(ctx, &rep, "node", "show", name); err != nil {
		return err
	}
	if e := rep.Node.Evidence; e.Seen != "console:"+line || !strings.Contains(e.Source, line) {
		return fmt.Errorf("the evidence of %s is %+v, want the line %q of the console", name, e, line)
	}
	return nil
}

// bootShown checks that every peer says of itself what it would give a machine,
// and that they all say the same.
func (k *kase) bootShown(ctx context.Context, name string) error {
	type reply struct {
		Peer  string `json:"peer"`
		Ports []struct {
			Script string `json:"script"`
		} `json:"ports"`
		Files []struct {
			Name   string `json:"name"`
			SHA256 string `json:"sha256"`
		} `json:"files"`
	}
	var first reply
	for i, p := range k.Peers {
		var r reply
		if err := k.CLI(ctx, &r, "node", "boot", "show", name, "--peer", p.ID); err != nil {
			return err
		}
		if r.Peer != p.ID || len(r.Ports) != 1 || len(r.Files) == 0 || r.Files[0].SHA256 == "" {
			return fmt.Errorf("boot show of %s: %+v", p.ID, r)
		}
		if i == 0 {
			first = r
		}
		if r.Peer = first.Peer; !reflect.DeepEqual(r, first) {
			return fmt.Errorf("%s would give something else than %s: %+v, %+v", p.ID, first.Peer, r, first)
		}
	}
	return nil
}

// TestHTTPBoot boots a machine whose firmware loads iPXE over HTTP.
func TestHTTPBoot(t *testing.T) {
	runCase(t, "http-boot", func(ctx context.Context, k *kase) error {
		vm, bmc, err := k.machineOf(ctx, harness.VMSpec{Index: 1, Firmware: harness.UEFIHTTP}, harness.BMCSpec{})
		if err != nil {
			return err
		}
		if err := k.inspected(ctx, "n1", vm, bmc); err != nil {
			return err
		}
		return k.timelineHas(ctx, "n1", "HTTP boot firmware (UEFI x86-64)", "GET /ipxe/snponly.efi")
	})
}

// inspected enrols a machine and boots it into the ramdisk once.
func (k *kase) inspected(ctx context.Context, name string, vm *harness.VM, bmc *harness.BMC) error {
	if err := k.enrol(ctx, name, vm.MAC, bmc); err != nil {
		return err
	}
	if err := k.verb(ctx, name, "inspect", "MANAGEABLE", 4*time.Minute); err != nil {
		return err
	}
	return k.bootTime(ctx, name, vm)
}

// timelineHas checks that each text stands in the boot timeline of a node.
func (k *kase) timelineHas(ctx context.Context, name string, texts ...string) error {
	events, err := k.Timeline(ctx, name)
	if err != nil {
		return err
	}
	var all strings.Builder
	for _, e := range events {
		all.WriteString(e.Text + "\n")
	}
	for _, text := range texts {
		if !strings.Contains(all.String(), text) {
			return fmt.Errorf("the timeline of %s does not say %q:\n%s", name, text, all.String())
		}
	}
	return nil
}
