package rootdisk

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/ironring/ironring/internal/agentproto"
)

// DefaultMinBytes is the smallest root disk unless Options says otherwise.
const DefaultMinBytes = 4 << 30

// Options of Choose.
type Options struct {
	// MinBytes is the smallest disk that is a candidate; 0 means DefaultMinBytes.
	MinBytes uint64
}

func (o Options) minBytes() uint64 {
	if o.MinBytes == 0 {
		return DefaultMinBytes
	}
	return o.MinBytes
}

// notDisks are block devices that are not disks, by kernel name.
var notDisks = regexp.MustCompile(`^(loop|ram|zram|sr|fd|nbd|mtdblock)[0-9]+$`)

// virtualMedia are the makers' names for media that a BMC presents. "virtual
// disk" is not among them: hypervisors call their real disks so.
var virtualMedia = []string{
	"virtual media", "virtual cd", "virtual dvd", "virtual floppy", "virtual hdisk",
	"virtual usb", "virtual removable", "vmedia", "remote media", "vkvm-mapped",
	"idrac", "lcdrive", "oemdrv", "secupd",
}

// Ineligible says why a disk can never be the root disk, "" when it can.
// The size limit and other disks of the machine are not looked at. A reason
// that the agent gave (Disk.Excluded) stands.
func Ineligible(d agentproto.Disk) string {
	base := path.Base(d.Name)
	product := strings.ToLower(d.Vendor + " " + d.Model)
	switch {
	case d.Excluded != "":
		return d.Excluded
	case notDisks.MatchString(base):
		return "not a disk"
	case strings.HasPrefix(base, "mmcblk") && (strings.Contains(base, "boot") || strings.Contains(base, "rpmb")):
		return "boot area of an eMMC"
	case strings.HasPrefix(base, "md"):
		return "software RAID"
	case strings.HasPrefix(base, "dm-"):
		return "multipath or mapped device"
	case strings.EqualFold(d.Tran, "usb"):
		return "usb"
	case containsAny(product, virtualMedia):
		return "virtual media"
	case d.Removable:
		return "removable"
	case d.ReadOnly:
		return "read-only"
	case d.SizeBytes == 0:
		return "no medium"
	}
	for _, h := range d.Holders {
		switch {
		case strings.HasPrefix(h, "md"):
			return "raid member (" + h + ")"
		case strings.HasPrefix(h, "dm-"), strings.HasPrefix(h, "mpath"):
			return "multipath or mapped (" + h + ")"
		default:
			return "in use by " + h
		}
	}
	return ""
}

// Member is the reason against a disk that its own bytes show to be a member
// of these.
func Member(of []string) string { return "raid member (" + strings.Join(of, ", ") + ")" }

// Untouchable says for each disk why not even a clean of the whole machine may
// write it, "" when it may. Other than for Ineligible, a member of a RAID may be
// written: the machine is ours to wipe, and a clean stops the arrays that the
// kernel has assembled before it writes. Of a unit that is seen by several paths
// none is written: it may be shared with others.
func Untouchable(disks []agentproto.Disk) []string {
	why := make([]string, len(disks))
	for i, d := range disks {
		d.Excluded = "" // what the agent saw in the disk's bytes
		d.Holders = slices.DeleteFunc(slices.Clone(d.Holders), func(h string) bool { return strings.HasPrefix(h, "md") })
		why[i] = Ineligible(d)
		if other := samePath(disks, i); why[i] == "" && other >= 0 {
			why[i] = "multipath (same WWN as " + disks[other].Name + ")"
		}
	}
	return why
}

// reasons says for each disk why it is not a candidate, "" when it is one.
func reasons(disks []agentproto.Disk, o Options) []string {
	why := make([]string, len(disks))
	for i, d := range disks {
		why[i] = Ineligible(d)
		switch other := samePath(disks, i); {
		case why[i] != "":
		case other >= 0:
			why[i] = "multipath (same WWN as " + disks[other].Name + ")"
		case d.SizeBytes < o.minBytes():
			why[i] = "too small (less than " + size(o.minBytes()) + ")"
		}
	}
	return why
}

// samePath finds another disk with the WWN of disk i: both are paths to one
// unit. Units of one array may share the WWN and differ in its extension.
func samePath(disks []agentproto.Disk, i int) int {
	for j, d := range disks {
		if j == i {
			continue
		}
		a, b := identity(disks[i].WWNExt), identity(d.WWNExt)
		if a == "" || b == "" {
			a, b = identity(disks[i].WWN), identity(d.WWN)
		}
		if a != "" && a == b {
			return j
		}
	}
	return -1
}

// identity normalises a serial or WWN; what some firmware writes for "none" is
// the empty string.
func identity(s string) string {
	s = strings.ToLower(strings.TrimSpace(s))
	if strings.Trim(strings.TrimPrefix(s, "0x"), "0") == "" {
		return ""
	}
	return s
}

func containsAny(s string, parts []string) bool {
	for _, p := range parts {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}
