package flow

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/rootdisk"
)

// ownership is what a node's record says of disks that hold something. That a
// clean of ours has erased a disk says only that it was blank then: what lies on
// it now was put there by others, unless it came with an image of ours. A record
// must be certain of just this disk (rootdisk.Known).
type ownership struct{ n *api.Node }

// written reports whether an image of ours was written to a disk since the last
// clean, or begun to be. What lies on it is the image, half of one, or what its
// system has put there.
func (o ownership) written(d agentproto.Disk, all []agentproto.Disk) bool {
	root := o.n.GetRootDisk()
	return overwritten(root) && rootdisk.Known(d, all, rootID(root)) || knownIn(root.GetBefore(), d, all)
}

// ofTenant reports whether what lies on a disk is what an undeploy is for: an
// image of ours, or data of a system that came with one. Such a system had all
// disks of its machine, those that were blank when it came.
func (o ownership) ofTenant(d agentproto.Disk, all []agentproto.Disk) bool {
	if o.written(d, all) {
		return true
	}
	root := o.n.GetRootDisk()
	return root.GetHanded() && knownIn(o.n.GetErasure().GetErased(), d, all)
}

// overwritten reports whether an image of ours is, or may be in part, on the
// disk of a record.
func overwritten(root *api.RootDisk) bool { return root.GetWritten() || root.GetBegunCmd() != "" }

func knownIn(list []*api.DiskRecord, d agentproto.Disk, all []agentproto.Disk) bool {
	return slices.ContainsFunc(list, func(rec *api.DiskRecord) bool { return rootdisk.Known(d, all, recordID(rec)) })
}

// chosenDisk is the record of the disk that a flow chose, with what is known of
// the disks that were written before.
func chosenDisk(was *api.RootDisk, d agentproto.Disk, all []agentproto.Disk, flow string) *api.RootDisk {
	out := &api.RootDisk{
		Name: d.Name, Serial: d.Serial, Wwn: d.WWN, ByPath: d.ByPath, Model: d.Model, SizeBytes: d.SizeBytes, FlowId: flow,
		Handed: was.GetHanded(),
	}
	before := was.GetBefore()
	switch {
	case rootdisk.Known(d, all, rootID(was)):
		out.Written, out.BegunCmd = was.GetWritten(), was.GetBegunCmd()
	case overwritten(was):
		before = append(slices.Clone(before), &api.DiskRecord{
			Name: was.GetName(), Serial: was.GetSerial(), Wwn: was.GetWwn(), ByPath: was.GetByPath(), Model: was.GetModel(), SizeBytes: was.GetSizeBytes(),
		})
	}
	if knownIn(before, d, all) {
		out.Written = true
	}
	size := 0
	for _, rec := range slices.Backward(before) { // the latest first
		if size += proto.Size(rec); size > maxRecords {
			break
		}
		if id := recordID(rec); !rootdisk.Known(d, all, id) && !slices.ContainsFunc(out.Before, func(o *api.DiskRecord) bool { return nameless(recordID(o)) == nameless(id) }) {
			out.Before = append(out.Before, rec)
		}
	}
	slices.Reverse(out.Before)
	return out
}

// begins is the record of a root disk to which a command is about to write; nil
// where the record need not change.
func begins(root *api.RootDisk, cmd string) *api.RootDisk {
	if overwritten(root) {
		return nil
	}
	out := proto.CloneOf(root)
	out.BegunCmd = cmd
	return out
}

// endedWithout is the record of a root disk at the end of a flow whose agent
// said of the first command that was to write to it that it failed or was
// stopped: an image that is not whole leaves the ends of its disk as they were,
// or empty. Nil where the record need not change.
func endedWithout(root *api.RootDisk, cmd string, said api.CommandStatus_State) *api.RootDisk {
	without := said == api.CommandStatus_FAILED || said == api.CommandStatus_CANCELLED
	if !without || root.GetWritten() || root.GetBegunCmd() != cmd || cmd == "" {
		return nil
	}
	out := proto.CloneOf(root)
	out.BegunCmd = ""
	return out
}

func recordID(rec *api.DiskRecord) agentproto.DiskID {
	return agentproto.DiskID{Name: rec.GetName(), Serial: rec.GetSerial(), WWN: rec.GetWwn(), ByPath: rec.GetByPath(), SizeBytes: rec.GetSizeBytes()}
}

// sameChoice reports whether a disk is the one that was committed, as far as
// it tells.
func sameChoice(root *api.RootDisk, d agentproto.Disk) bool {
	return nameless(rootID(root)) == nameless(rootdisk.ID(d)) && root.GetModel() == d.Model
}

func rootID(d *api.RootDisk) agentproto.DiskID {
	return agentproto.DiskID{Name: d.GetName(), Serial: d.GetSerial(), WWN: d.GetWwn(), ByPath: d.GetByPath(), SizeBytes: d.GetSizeBytes()}
}
