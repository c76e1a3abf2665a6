package rootdisk

import (
	"strings"

	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

// ID is what a disk is recognised by from now on.
func ID(d agentproto.Disk) agentproto.DiskID {
	return agentproto.DiskID{Name: d.Name, Serial: d.Serial, WWN: d.WWN, ByPath: d.ByPath, SizeBytes: d.SizeBytes}
}

// Match finds the disk that was chosen before, also when its name is another
// one by now. Serial and WWN must be the same where the id has them; where it
// has neither, the place (by_path) must be. The size must be the same where the
// id has it. Exactly one disk must fit, else the error has kind NotFound (none)
// or Invalid (several, or an id that names nothing).
//
// Match does not ask whether the disk may be written: Ineligible does.
func Match(id agentproto.DiskID, disks []agentproto.Disk) (agentproto.Disk, error) {
	serial, wwn := identity(id.Serial), identity(id.WWN)
	place := strings.TrimSpace(id.ByPath)
	if serial == "" && wwn == "" && (place == "" || id.SizeBytes == 0) {
		return agentproto.Disk{}, errs.New(errs.Invalid, "disk %s has no serial, no wwn and no path to recognise it by", text(id.Name))
	}
	var found []agentproto.Disk
	for _, d := range disks {
		switch {
		case serial != "" && identity(d.Serial) != serial:
		case wwn != "" && identity(d.WWN) != wwn:
		case serial == "" && wwn == "" && strings.TrimSpace(d.ByPath) != place:
		case id.SizeBytes != 0 && d.SizeBytes != id.SizeBytes:
		default:
			found = append(found, d)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return agentproto.Disk{}, errs.New(errs.NotFound, "the chosen disk %s is not in the machine; it has: %s", describeID(id), join(disks))
	}
	return agentproto.Disk{}, errs.New(errs.Invalid, "the chosen disk %s cannot be told apart: %s", describeID(id), join(found))
}

func describeID(id agentproto.DiskID) string {
	return describe(agentproto.Disk{Name: id.Name, Serial: id.Serial, WWN: id.WWN, SizeBytes: id.SizeBytes})
}

func join(disks []agentproto.Disk) string {
	if len(disks) == 0 {
		return "no disk"
	}
	var parts []string
	for _, d := range disks[:min(len(disks), maxListed)] {
		parts = append(parts, describe(d))
	}
	return strings.Join(parts, "; ")
}
