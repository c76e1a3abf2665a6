//go:build linux

package linuxhw

import (
	"regexp"
	"strconv"
	"strings"
)

var (
	pciName  = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]$`)
	usbIface = regexp.MustCompile(`^[0-9]+-([0-9.]+:[0-9.]+)$`)
	hostName = regexp.MustCompile(`^host([0-9]+)$`)
)

// transport is how a disk is attached, from its path in sysfs.
func transport(path, name string) string {
	has := func(s string) bool { return strings.Contains(path, s) }
	switch {
	case strings.HasPrefix(name, "nvme"):
		return "nvme"
	case strings.HasPrefix(name, "mmcblk"):
		return "mmc"
	case has("/usb"):
		return "usb"
	case strings.HasPrefix(name, "vd") || strings.HasPrefix(name, "xvd"):
		return "virtio"
	case has("/ata"):
		return "sata"
	case has("/end_device-"):
		return "sas"
	case has("/session"):
		return "iscsi"
	case has("/rport-"):
		return "fc"
	case strings.HasPrefix(name, "sd"):
		return "scsi"
	}
	return ""
}

// byPath is the name that udev gives the disk under /dev/disk/by-path, for the
// common kinds of attachment; "" for others. There is no udev in the ramdisk.
func (m *Machine) byPath(path, name string) string {
	comps := strings.Split(path, "/")
	pci, at := "", 0
	for i, c := range comps {
		if pciName.MatchString(c) {
			pci, at = c, i
		}
	}
	if pci == "" {
		return ""
	}
	out := "/dev/disk/by-path/pci-" + pci
	rest := comps[at+1:]
	hctl := m.hctl(name)
	switch tran := transport(path, name); tran {
	case "virtio", "mmc":
		return out
	case "nvme":
		return out + "-nvme-" + m.read("sys/block", name, "nsid")
	case "sata":
		for _, c := range rest {
			if strings.HasPrefix(c, "ata") {
				if port := m.read("sys/class/ata_port", c, "port_no"); port != "" {
					return out + "-ata-" + port
				}
			}
		}
	case "sas":
		for _, c := range rest {
			if strings.HasPrefix(c, "end_device-") {
				if a := m.read("sys/class/sas_device", c, "sas_address"); a != "" && hctl != "" {
					return out + "-sas-" + a + "-lun-" + hctl[strings.LastIndex(hctl, ":")+1:]
				}
			}
		}
	case "usb":
		for i := len(rest) - 1; i >= 0; i-- {
			if f := usbIface.FindStringSubmatch(rest[i]); f != nil && hctl != "" {
				return out + "-usb-0:" + f[1] + "-scsi-0" + hctl[strings.Index(hctl, ":"):]
			}
		}
	case "scsi":
		if hctl != "" {
			return out + "-scsi-" + strconv.Itoa(m.hostOffset(comps)) + hctl[strings.Index(hctl, ":"):]
		}
	}
	return ""
}

// hostOffset counts the SCSI hosts of one controller from 0, because their
// numbers in the kernel depend on who came first.
func (m *Machine) hostOffset(comps []string) int {
	for i, c := range comps {
		f := hostName.FindStringSubmatch(c)
		if f == nil {
			continue
		}
		own, _ := strconv.Atoi(f[1])
		least := own
		dir := strings.TrimPrefix(strings.Join(comps[:i], "/"), m.cfg.Root)
		for _, n := range m.names(dir) {
			if g := hostName.FindStringSubmatch(n); g != nil {
				if k, _ := strconv.Atoi(g[1]); k < least {
					least = k
				}
			}
		}
		return own - least
	}
	return 0
}
