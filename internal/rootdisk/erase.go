package rootdisk

import (
	"slices"
	"strings"

	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

// Wipeable are the disks that a clean of the whole machine erases.
func Wipeable(disks []agentproto.Disk) []agentproto.Disk {
	var out []agentproto.Disk
	for i, why := range Untouchable(disks) {
		if why == "" {
			out = append(out, disks[i])
		}
	}
	return out
}

// Judge is the list of disks that a clean erases, as they were when it was
// decided that they may be.
func Judge(disks []agentproto.Disk) []agentproto.JudgedDisk {
	var out []agentproto.JudgedDisk
	for _, d := range Wipeable(disks) {
		out = append(out, agentproto.JudgedDisk{DiskID: ID(d), Contents: d.Contents})
	}
	return out
}

// ToErase finds the disks of a list among those that the machine has now, and
// says which others are left alone and why. The list is the whole of what may
// be erased: a disk of it that is gone, that holds what it did not hold, or
// that may not be written any more, and a disk beside it that could be erased
// and that nobody was asked about, are errs.Denied, which names all of them.
// Nothing to erase at all is errs.Invalid.
func ToErase(list []agentproto.JudgedDisk, disks []agentproto.Disk) ([]agentproto.Disk, []agentproto.SkippedDisk, error) {
	why := Untouchable(disks)
	used := make([]bool, len(disks))
	var erase []agentproto.Disk
	var wrong []string
	for _, j := range list {
		i := among(j.DiskID, disks, used)
		if i < 0 {
			wrong = append(wrong, describeID(j.DiskID)+" is not there any more, or cannot be told from another one")
			continue
		}
		used[i] = true
		d := disks[i]
		switch more := Unseen(j.Contents, d.Contents); {
		case why[i] != "":
			wrong = append(wrong, describe(d)+" may not be written any more: "+why[i])
		case more != "":
			wrong = append(wrong, describe(d)+" holds what it did not hold: "+more)
		}
		erase = append(erase, d)
	}
	var skipped []agentproto.SkippedDisk
	var reasons []string
	for i, d := range disks {
		switch {
		case used[i]:
		case why[i] == "":
			wrong = append(wrong, describe(d)+" was not there then and holds: "+Holds(d.Contents))
		default:
			skipped = append(skipped, agentproto.SkippedDisk{DiskID: ID(d), Reason: why[i]})
			reasons = append(reasons, d.Name+": "+why[i])
		}
	}
	switch {
	case len(wrong) > maxListed:
		wrong = append(wrong[:maxListed], "and more")
		fallthrough
	case len(wrong) > 0:
		return nil, nil, errs.New(errs.Denied, "nothing was erased: the machine's disks are not those that were looked at: %s", strings.Join(wrong, "; "))
	case len(erase) == 0:
		return nil, nil, errs.New(errs.Invalid, "the machine has no disk that may be erased: %s", strings.Join(append(reasons, "nothing was written"), "; "))
	}
	return erase, skipped, nil
}

// among is the index of the unused disk that id names, -1 where none or several
// fit. Disks of one serial and WWN are told apart by their place, and those
// that tell nothing of themselves by their name: unlike a root disk, such a list
// is used within one boot of the machine.
func among(id agentproto.DiskID, disks []agentproto.Disk, used []bool) int {
	fitting := func(more func(agentproto.Disk) bool) (at, n int) {
		at = -1
		for i, d := range disks {
			if !used[i] && identity(d.Serial) == identity(id.Serial) && identity(d.WWN) == identity(id.WWN) && d.SizeBytes == id.SizeBytes && more(d) {
				at, n = i, n+1
			}
		}
		return at, n
	}
	if identity(id.Serial) != "" || identity(id.WWN) != "" {
		if i, n := fitting(func(agentproto.Disk) bool { return true }); n < 2 {
			return i
		}
	}
	place := strings.TrimSpace(id.ByPath)
	i, n := fitting(func(d agentproto.Disk) bool {
		return strings.TrimSpace(d.ByPath) == place && (place != "" || d.Name == id.Name)
	})
	if n != 1 {
		return -1
	}
	return i
}

// Unseen says what a disk holds now that was not seen when it was judged, ""
// for nothing. Of a disk of which it was not known nothing can be new.
func Unseen(judged, now []string) string {
	switch {
	case judged == nil:
		return ""
	case now == nil:
		return Holds(nil)
	}
	return strings.Join(slices.DeleteFunc(slices.Clone(now), func(c string) bool { return slices.Contains(judged, c) }), ", ")
}

// Blank reports whether nothing lies on a disk. A disk that could not be read
// is not blank.
func Blank(d agentproto.Disk) bool { return d.Contents != nil && len(d.Contents) == 0 }

// Holds is what lies on a disk, for people.
func Holds(contents []string) string {
	switch {
	case contents == nil:
		return "not known what, it could not be read"
	case len(contents) == 0:
		return "nothing"
	}
	return strings.Join(contents, ", ")
}

// Describe is a disk and what lies on it, so that a person can go and look for
// it.
func Describe(d agentproto.Disk) string { return describe(d) + ": " + Holds(d.Contents) }

// Known reports whether d is the one disk of a machine that a record is of.
// The whole identity must be the same, and it must tell d from the machine's
// other disks: without serial number and WWN a disk is never known, and of
// disks that share them none is.
func Known(d agentproto.Disk, disks []agentproto.Disk, record agentproto.DiskID) bool {
	serial, wwn := identity(d.Serial), identity(d.WWN)
	if identity(record.Serial) != serial || identity(record.WWN) != wwn || record.SizeBytes != d.SizeBytes {
		return false
	}
	sameSerial, sameWWN := 0, 0
	for _, other := range disks {
		if serial != "" && identity(other.Serial) == serial {
			sameSerial++
		}
		if wwn != "" && identity(other.WWN) == wwn {
			sameWWN++
		}
	}
	// Exactly one has it, d itself. Name spaces of one drive share its serial
	// number and differ in their WWNs.
	return sameWWN == 1 || sameSerial == 1
}
