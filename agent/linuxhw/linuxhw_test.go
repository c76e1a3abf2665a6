//go:build linux

package linuxhw

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

// tree builds a file tree: "path" -> content; "path@" -> target of a link.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for p, c := range files {
		link := strings.HasSuffix(p, "@")
		p = filepath.Join(root, strings.TrimSuffix(p, "@"))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if link {
			target := filepath.Join(root, c)
			if err := os.MkdirAll(target, 0o755); err != nil {
				t.Fatal(err)
			}
			err = os.Symlink(target, p)
		} else {
			err = os.WriteFile(p, []byte(c), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const (
	virtio = "/sys/devices/pci0000:00/0000:00:04.0/virtio1/block/vda"
	nvme   = "/sys/devices/pci0000:00/0000:00:1d.0/0000:02:00.0/nvme/nvme0/nvme0n1"
	sata   = "/sys/devices/pci0000:00/0000:00:1f.2/ata2/host1/target1:0:0/1:0:0:0/block/sda"
	vscsi  = "/sys/devices/pci0000:00/0000:00:06.0/virtio3/host7/target7:0:3/7:0:3:1/block/sdb"
	usb    = "/sys/devices/pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host9/target9:0:0/9:0:0:0/block/sdc"
)

func machine(t *testing.T) *Machine {
	return New(Config{Root: tree(t, map[string]string{
		"sys/block/vda@": virtio, virtio + "/size": "2097152\n", virtio + "/serial": "LABs-0",
		virtio + "/queue/rotational": "1\n", virtio + "/queue/logical_block_size": "512\n", virtio + "/ro": "0\n",
		virtio + "/vda1/holders/dm-0": "",
		"sys/block/nvme0n1@":          nvme, nvme + "/size": "8388608\n", nvme + "/wwid": "eui.0025388b710116a1\n", nvme + "/nsid": "1\n",
		nvme + "/device@": "/sys/devices/pci0000:00/0000:00:1d.0/0000:02:00.0/nvme/nvme0/ctrl", "/sys/devices/pci0000:00/0000:00:1d.0/0000:02:00.0/nvme/nvme0/ctrl/serial": "S4EWNX0N  \n",
		"/sys/devices/pci0000:00/0000:00:1d.0/0000:02:00.0/nvme/nvme0/ctrl/model": "Samsung SSD",
		"sys/block/sda@": sata, sata + "/size": "8388608", sata + "/device@": filepath.Dir(filepath.Dir(sata)),
		filepath.Dir(filepath.Dir(sata)) + "/vpd_pg80": "\x00\x80\x00\x0c  QM00005   ", filepath.Dir(filepath.Dir(sata)) + "/wwid": "t10.ATA     QEMU",
		filepath.Dir(filepath.Dir(sata)) + "/vendor": "ATA     ", "sys/class/ata_port/ata2/port_no": "2\n",
		"sys/block/sdb@": vscsi, vscsi + "/size": "8388608", vscsi + "/device@": filepath.Dir(filepath.Dir(vscsi)),
		filepath.Dir(filepath.Dir(vscsi)) + "/wwid": "naa.6005076303FFD1100000000000001234",
		"sys/block/sdc@": usb, usb + "/size": "8388608", usb + "/removable": "1", usb + "/device@": filepath.Dir(filepath.Dir(usb)),
		"sys/block/loop0@": "/sys/devices/virtual/block/loop0", "sys/block/sr0@": "/sys/devices/pci0000:00/x/block/sr0",
		"sys/class/net/eth0@": "/sys/devices/pci0000:00/0000:00:03.0/virtio0/net/eth0", "/sys/devices/pci0000:00/0000:00:03.0/virtio0/net/eth0/type": "1\n",
		"/sys/devices/pci0000:00/0000:00:03.0/virtio0/net/eth0/address": "52:54:00:AA:00:01\n", "/sys/devices/pci0000:00/0000:00:03.0/virtio0/net/eth0/speed": "-1\n",
		"/sys/devices/pci0000:00/0000:00:03.0/virtio0/net/eth0/carrier": "1\n", "/sys/devices/pci0000:00/0000:00:03.0/virtio0/net/eth0/device@": "/sys/devices/pci0000:00/0000:00:03.0/virtio0",
		"/sys/devices/pci0000:00/0000:00:03.0/virtio0/driver@": "/sys/bus/virtio/drivers/virtio_net",
		"sys/class/net/lo/type":                                "772", "sys/class/net/br0/type": "1", "sys/class/net/br0/address": "52:54:00:aa:00:09",
		"sys/class/dmi/id/product_uuid": "4A6A2ED2-9D5C-4C6E-8D59-5F0B3F0D0001\n", "sys/class/dmi/id/product_serial": "To Be Filled By O.E.M.\n",
		"sys/class/dmi/id/sys_vendor": "QEMU", "proc/meminfo": "MemTotal:        1000 kB\n", "proc/cpuinfo": "model name\t: A CPU\n",
	})})
}

func TestInventory(t *testing.T) {
	inv, err := machine(t).Inventory(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	want := []agentproto.Disk{
		{Name: "/dev/nvme0n1", SizeBytes: 4 << 30, Model: "Samsung SSD", Serial: "S4EWNX0N", WWN: "eui.0025388b710116a1", WWNExt: "eui.0025388b710116a1", Tran: "nvme", ByPath: "/dev/disk/by-path/pci-0000:02:00.0-nvme-1"},
		{Name: "/dev/sda", SizeBytes: 4 << 30, Vendor: "ATA", Serial: "QM00005", Tran: "sata", HCTL: "1:0:0:0", ByPath: "/dev/disk/by-path/pci-0000:00:1f.2-ata-2"},
		{Name: "/dev/sdb", SizeBytes: 4 << 30, WWN: "0x6005076303ffd110", WWNExt: "0x6005076303ffd1100000000000001234", WWNVendor: "0x0000000000001234", Tran: "scsi", HCTL: "7:0:3:1", ByPath: "/dev/disk/by-path/pci-0000:00:06.0-scsi-0:0:3:1"},
		{Name: "/dev/sdc", SizeBytes: 4 << 30, Tran: "usb", HCTL: "9:0:0:0", Removable: true, ByPath: "/dev/disk/by-path/pci-0000:00:14.0-usb-0:1:1.0-scsi-0:0:0:0", Excluded: "usb"},
		{Name: "/dev/vda", SizeBytes: 1 << 30, Serial: "LABs-0", Tran: "virtio", Rotational: true, LogicalBlk: 512, ByPath: "/dev/disk/by-path/pci-0000:00:04.0", Holders: []string{"dm-0"}, Excluded: "multipath or mapped (dm-0)"},
	}
	for i := range inv.Disks {
		if len(inv.Disks[i].Holders) == 0 {
			inv.Disks[i].Holders = nil
		}
	}
	if d := cmp.Diff(want, inv.Disks); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]agentproto.Interface{{Name: "eth0", MAC: "52:54:00:aa:00:01", Driver: "virtio_net", Carrier: true}}, inv.Interfaces); d != "" {
		t.Error(d)
	}
	if inv.SystemUUID != "4a6a2ed2-9d5c-4c6e-8d59-5f0b3f0d0001" || inv.Serial != "" || inv.MemoryBytes != 1000<<10 || inv.CPUModel != "A CPU" || inv.BootMode != "bios" || inv.BMC.Error == "" || inv.Manufacturer != "QEMU" {
		t.Errorf("%+v", inv)
	}
}

// A kernel with md built in has assembled arrays; one of them does not stop.
func TestReleaseDisks(t *testing.T) {
	root := tree(t, map[string]string{
		"sys/block/md0/md/array_state": "clean\n", "sys/block/md127/md/array_state": "clear\n", "sys/block/sda/size": "8",
	})
	m := New(Config{Root: root})
	if err := m.ReleaseDisks(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := m.read("sys/block/md0/md/array_state"); got != "clear" {
		t.Errorf("the array is %s", got)
	}
	stuck := filepath.Join(root, "sys/block/md1/md")
	if err := os.MkdirAll(stuck, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc/version", filepath.Join(stuck, "array_state")); err != nil { // nobody can write it
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 150*time.Millisecond)
	defer cancel()
	if err := m.ReleaseDisks(ctx); !errors.Is(err, errs.Busy) || !strings.Contains(err.Error(), "md1") || strings.Contains(err.Error(), "md0") {
		t.Errorf("an array that does not stop: %v", err)
	}
}

// The bytes of a disk, not only what holds it, show that it is a member.
func TestMemberByBytes(t *testing.T) {
	root := tree(t, map[string]string{"sys/block/sda/size": "2048", "dev/sda": string(make([]byte, 4096)) + "\xfc\x4e\x2b\xa9" + string(make([]byte, 1<<20-4100))})
	disks, err := New(Config{Root: root}).Disks(context.Background())
	if err != nil || len(disks) != 1 || disks[0].Excluded != "raid member (linux md)" {
		t.Errorf("%+v %v", disks, err)
	}
}

func TestOpenDiskRefuses(t *testing.T) {
	m := New(Config{Root: tree(t, map[string]string{"dev/file": "x"})})
	for _, n := range []string{"/dev/file", "file", "/dev/../etc/passwd", "/etc/passwd"} {
		if d, err := m.OpenDisk(context.Background(), n); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v %v", n, d, err)
		}
	}
}
