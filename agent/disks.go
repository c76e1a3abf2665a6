package agent

import (
	"context"
	"errors"

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
	disks, err := a.hw.Disks(ctx)
	if err != nil {
		return agentproto.Disk{}, nil, errs.New(errs.KindOf(err), "list disks: %w", err)
	}
	d, err := matchDisk(disks, id)
	if err != nil {
		return d, nil, err
	}
	dev, err := a.hw.OpenDisk(ctx, d.Name)
	if err != nil {
		return d, nil, errs.New(errs.KindOf(err), "open disk %s: %w", d.Name, err)
	}
	if uint64(dev.Size()) != d.SizeBytes {
		dev.Close()
		return d, nil, errs.New(errs.Denied, "identity mismatch: %s has %d bytes, %d were reported", d.Name, dev.Size(), d.SizeBytes)
	}
	return d, dev, nil
}
