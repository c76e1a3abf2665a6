package agent

import (
	"context"
	"errors"
	"slices"

	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rootdisk"
)

// matchDisk is the one disk that id names, and that may be written. A disk
// that is not there, and one that must never be written, are errs.Denied: the
// wrong disk cannot be taken back.
func matchDisk(disks []agentproto.Disk, id agentproto.DiskID) (agentproto.Disk, error) {
	d, err := rootdisk.Match(id, disks)
	if errors.Is(err, errs.NotFound) {
		return d, errs.New(errs.Denied, "identity mismatch: %w", err)
	}
	if err != nil {
		return d, err
	}
	// What a RAID left on the disk does not forbid to write here: the holder
	// knows of it and may want just that to be cleared.
	bare := d
	bare.Excluded = ""
	if why := rootdisk.Ineligible(bare); why != "" {
		return d, errs.New(errs.Denied, "disk %s may not be written: %s", d.Name, why)
	}
	return d, nil
}

// openDisk finds and opens the disk that id names.
func (a *agent) openDisk(ctx context.Context, id agentproto.DiskID) (agentproto.Disk, BlockDevice, error) {
	disks, err := a.disks(ctx)
	if err != nil {
		return agentproto.Disk{}, nil, err
	}
	d, err := matchDisk(disks, id)
	if err != nil {
		return d, nil, err
	}
	dev, err := a.open(ctx, d)
	if err != nil {
		return d, nil, err
	}
	if err := a.unchanged(ctx, []agentproto.Disk{d}); err != nil {
		dev.Close()
		return d, nil, err
	}
	return d, dev, nil
}

// openJudged is openDisk for a disk that is about to lose what lies on it:
// there must be nothing that was not seen when that was decided.
func (a *agent) openJudged(ctx context.Context, j agentproto.JudgedDisk) (agentproto.Disk, BlockDevice, error) {
	d, dev, err := a.openDisk(ctx, j.DiskID)
	if err != nil {
		return d, nil, err
	}
	if more := rootdisk.Unseen(j.Contents, d.Contents); more != "" {
		dev.Close()
		return d, nil, errs.New(errs.Denied, "nothing was written: disk %s holds what it did not hold when it was chosen: %s", d.Name, more)
	}
	return d, dev, nil
}

func (a *agent) disks(ctx context.Context) ([]agentproto.Disk, error) {
	disks, err := a.hw.Disks(ctx)
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "list disks: %w", err)
	}
	return disks, nil
}

// open opens a disk by its name. Whether it is still that disk unchanged says.
func (a *agent) open(ctx context.Context, d agentproto.Disk) (BlockDevice, error) {
	dev, err := a.hw.OpenDisk(ctx, d.Name)
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "open disk %s: %w", d.Name, err)
	}
	if uint64(dev.Size()) != d.SizeBytes {
		dev.Close()
		return nil, errs.New(errs.Denied, "identity mismatch: %s has %d bytes, %d were reported", d.Name, dev.Size(), d.SizeBytes)
	}
	return dev, nil
}

// unchanged looks once more at disks that have been opened: before that,
// another one may have come under a name. An open disk keeps its name.
func (a *agent) unchanged(ctx context.Context, opened []agentproto.Disk) error {
	now, err := a.disks(ctx)
	if err != nil {
		return err
	}
	for _, d := range opened {
		i := slices.IndexFunc(now, func(n agentproto.Disk) bool { return n.Name == d.Name })
		if i < 0 || rootdisk.ID(now[i]) != rootdisk.ID(d) {
			return errs.New(errs.Denied, "identity mismatch: %s is not the disk any more that it was a moment ago (serial %q, WWN %q); nothing was written", d.Name, d.Serial, d.WWN)
		}
	}
	return nil
}
