package agent

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rootdisk"
)

const (
	// endWipe is cleared at both ends of a disk: MBR, GPT and its copy,
	// md (all versions), LVM, DDF, IMSM, ZFS labels, bcache, btrfs, ext, xfs,
	// ISO 9660 and swap signatures lie inside.
	endWipe = 4 << 20
	// partWipe is cleared at both ends of each partition, because a new table
	// with the same layout would bring the old signatures back to light.
	partWipe = 1 << 20
	// mirrorWipe is cleared at each of btrfsMirrors.
	mirrorWipe = 4 << 10
)

// btrfsMirrors are where btrfs keeps copies of its superblock.
var btrfsMirrors = []int64{64 << 20, 256 << 30}

// span is a piece of a disk.
type span struct{ off, n int64 }

// eraseMetadata makes disks look empty. What is in their files remains: this
// is for the next deployment, not for the next owner's eyes.
func (a *agent) eraseMetadata(ctx context.Context, t *task) (any, error) {
	var args agentproto.EraseArgs
	if err := t.decode(&args); err != nil {
		return nil, err
	}
	if len(args.Disks) == 0 {
		return nil, errs.New(errs.Invalid, "no disks given")
	}
	// All are matched before the first one is touched.
	all, err := a.hw.Disks(ctx)
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "list disks: %w", err)
	}
	var disks []agentproto.Disk
	used := map[string]bool{}
	for _, id := range args.Disks {
		d, err := matchDisk(all, id)
		if err != nil {
			return nil, err
		}
		if used[d.Name] {
			return nil, errs.New(errs.Invalid, "disk %s is named twice", d.Name)
		}
		used[d.Name] = true
		disks = append(disks, d)
	}
	out := &agentproto.EraseResult{}
	for i, d := range disks {
		name := d.Name
		err := a.eraseDisk(ctx, t, d, func(done, total int64) {
			t.progress(uint64(done), uint64(total), fmt.Sprintf("disk %d of %d, %s", i+1, len(disks), name))
		})
		if err != nil {
			return nil, errs.New(errs.KindOf(err), "erase metadata of %s: %w", d.Name, err)
		}
		out.Disks = append(out.Disks, rootdisk.ID(d))
	}
	return out, nil
}

func (a *agent) eraseDisk(ctx context.Context, t *task, d agentproto.Disk, progress func(done, total int64)) error {
	_, dev, err := a.openDisk(ctx, rootdisk.ID(d))
	if err != nil {
		return err
	}
	defer dev.Close()
	parts, err := readPartitions(dev, d.LogicalBlk)
	if err != nil {
		// The ends are cleared all the same, and with them the damaged table.
		t.log.Warn("partitions cannot be told, only the disk's own ends are cleared", "disk", d.Name, "err", err)
	}
	spans := eraseSpans(dev.Size(), parts, max(512, int64(d.LogicalBlk)))
	var total, done int64
	for _, s := range spans {
		total += s.n
	}
	zero := make([]byte, imageBlock)
	for _, s := range spans {
		for off := int64(0); off < s.n; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n := min(s.n-off, imageBlock)
			if _, err := dev.WriteAt(zero[:n], s.off+off); err != nil {
				return fmt.Errorf("write at %d: %w", s.off+off, err)
			}
			off, done = off+n, done+n
			progress(done, total)
		}
	}
	if err := verifyZero(dev, spans); err != nil {
		return err
	}
	if err := dev.RereadPartitions(); err != nil {
		t.log.Warn("the kernel does not read the empty partition table", "disk", d.Name, "err", err)
	}
	t.log.Info("metadata is erased, data remains", "disk", d.Name, "serial", d.Serial, "partitions", len(parts))
	return nil
}

// eraseSpans are the pieces to clear, inside the disk. The ends come last, so
// that after an interruption the partitions can still be found.
func eraseSpans(size int64, parts []partition, block int64) []span {
	var out []span
	add := func(off, n int64) {
		if off < 0 || off >= size || n <= 0 {
			return
		}
		out = append(out, span{off, min(n, size-off)})
	}
	blocks := uint64(size / block)
	for _, p := range parts {
		if p.format == 0 || p.start >= blocks {
			continue
		}
		n := int64(min(p.blocks, blocks-p.start)) * block
		add(int64(p.start)*block, min(n, partWipe))
		add(int64(p.start)*block+max(0, n-partWipe), min(n, partWipe))
	}
	for _, off := range btrfsMirrors {
		add(off, mirrorWipe)
	}
	add(max(0, size-endWipe), endWipe)
	add(0, endWipe)
	return out
}

// verifyZero reads the pieces from the medium.
func verifyZero(dev BlockDevice, spans []span) error {
	if err := dev.Sync(); err != nil {
		return fmt.Errorf("sync the disk: %w", err)
	}
	if err := dev.DropCaches(); err != nil {
		return fmt.Errorf("drop the disk's caches: %w", err)
	}
	buf := make([]byte, imageBlock)
	for _, s := range spans {
		for off := int64(0); off < s.n; {
			n := min(s.n-off, imageBlock)
			if k, err := dev.ReadAt(buf[:n], s.off+off); int64(k) < n {
				if err == nil || errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return fmt.Errorf("read at %d: %w", s.off+off, err)
			}
			for i, c := range buf[:n] {
				if c != 0 {
					return errs.New(errs.Internal, "the disk still holds data at %d after it was cleared", s.off+off+int64(i))
				}
			}
			off += n
		}
	}
	return nil
}
