//go:build linux

package linuxhw

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/ironring/ironring/agent/signature"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/rootdisk"
)

// notListed are block devices that no image could ever go to: made by the
// kernel out of others, or optical.
var notListed = regexp.MustCompile(`^(loop|ram|zram|sr|fd|nbd|dm-|md|mtdblock)[0-9]`)

// Disks implements agent.Hardware.
func (m *Machine) Disks(ctx context.Context) ([]agentproto.Disk, error) {
	if err := m.settle(ctx); err != nil {
		return nil, err
	}
	var out []agentproto.Disk
	for _, name := range m.names("sys/block") {
		// A path of a multipath NVMe namespace is hidden behind its head.
		if notListed.MatchString(name) || m.read("sys/block", name, "hidden") == "1" {
			continue
		}
		d := m.disk(name)
		d.Contents = m.contents(name, d.SizeBytes)
		if d.Excluded = rootdisk.Ineligible(d); d.Excluded == "" {
			if of := m.members(name, d.SizeBytes); len(of) > 0 {
				d.Excluded = rootdisk.Member(of)
			}
		}
		out = append(out, d)
	}
	return out, ctx.Err()
}

// members names what the disk is a member of by its own bytes.
func (m *Machine) members(name string, size uint64) []string {
	if size == 0 {
		return nil
	}
	f, err := os.Open(m.path("dev", name))
	if err != nil {
		return nil
	}
	defer f.Close()
	return signature.Members(f, int64(size))
}

// contents names what lies on a disk; nil where it cannot be read.
func (m *Machine) contents(name string, size uint64) []string {
	f, err := os.Open(m.path("dev", name))
	if err != nil {
		return nil
	}
	defer f.Close()
	found, err := signature.Contents(f, int64(size))
	if err != nil {
		return nil
	}
	return found
}

func (m *Machine) disk(name string) agentproto.Disk {
	dir := "sys/block/" + name
	sectors, _ := strconv.ParseUint(m.read(dir, "size"), 10, 64) // always of 512 bytes
	block, _ := strconv.Atoi(m.read(dir, "queue/logical_block_size"))
	d := agentproto.Disk{
		Name: "/dev/" + name, SizeBytes: sectors * 512, LogicalBlk: block,
		Model: m.first(dir, "device/model", "device/name"), Vendor: m.first(dir, "device/vendor"),
		Serial:     m.serial(name),
		Rotational: m.read(dir, "queue/rotational") == "1", Removable: m.read(dir, "removable") == "1", ReadOnly: m.read(dir, "ro") == "1",
		HCTL: m.hctl(name), Holders: m.names(dir, "holders"),
	}
	d.WWN, d.WWNExt, d.WWNVendor = splitWWID(m.first(dir, "wwid", "device/wwid"))
	path := m.link("sys/block", name)
	d.Tran, d.ByPath = transport(path, name), m.byPath(path, name)
	// On its partitions lies what holds the disk as well.
	for _, part := range m.names(dir) {
		if strings.HasPrefix(part, name) {
			d.Holders = append(d.Holders, m.names(dir, part, "holders")...)
		}
	}
	return d
}

// first is the first of these files that holds something.
func (m *Machine) first(dir string, files ...string) string {
	for _, f := range files {
		if s := m.read(dir, f); s != "" {
			return s
		}
	}
	return ""
}

// link is where a symbolic link of sysfs leads, "" when there is none.
func (m *Machine) link(elem ...string) string {
	p, err := filepath.EvalSymlinks(m.path(elem...))
	if err != nil {
		return ""
	}
	return p
}

func base(p string) string {
	if p == "" {
		return ""
	}
	return filepath.Base(p)
}

// serial is asked in the order of what each kind of disk has: virtio and MMC,
// NVMe, SCSI's page 0x80 (which libata makes for SATA too), ATA IDENTIFY.
func (m *Machine) serial(name string) string {
	dir := "sys/block/" + name
	if s := m.first(dir, "serial", "device/serial"); s != "" {
		return s
	}
	if b, err := os.ReadFile(m.path(dir, "device/vpd_pg80")); err == nil && len(b) > 4 {
		n := int(b[2])<<8 | int(b[3])
		if s := strings.TrimSpace(strings.Trim(string(b[4:min(4+n, len(b))]), "\x00")); s != "" {
			return s
		}
	}
	return m.ataSerial(name)
}

var hctlName = regexp.MustCompile(`^[0-9]+:[0-9]+:[0-9]+:[0-9]+$`)

func (m *Machine) hctl(name string) string {
	if b := base(m.link("sys/block", name, "device")); hctlName.MatchString(b) {
		return b
	}
	return ""
}

// splitWWID turns the kernel's wwid into what udev calls WWN, WWN with
// extension and the extension. Names that the maker chose (t10) are no WWN.
func splitWWID(id string) (wwn, withExt, ext string) {
	kind, hex, ok := strings.Cut(id, ".")
	switch {
	case ok && kind == "naa":
		hex = strings.ToLower(hex)
		if len(hex) > 16 {
			return "0x" + hex[:16], "0x" + hex, "0x" + hex[16:]
		}
		return "0x" + hex, "0x" + hex, ""
	case ok && (kind == "eui" || kind == "nvme" || kind == "uuid"):
		return id, id, ""
	}
	return "", "", ""
}
