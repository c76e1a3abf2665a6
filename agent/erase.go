package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ironring/ironring/agent/signature"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rootdisk"
)

const (
	// endWipe is cleared at both ends of a disk: MBR, GPT and its copy,
	// md (all versions), LVM, DDF, IMSM, ZFS labels, bcache, DRBD, Ceph's first
	// label, LUKS, btrfs, ext, xfs, ISO 9660 and swap signatures lie inside.
	endWipe = 4 << 20
	// partWipe is cleared at both ends of each partition, because a new table
	// with the same layout would bring the old signatures back to light.
	partWipe = 1 << 20
	// mirrorWipe is cleared at each of mirrors.
	mirrorWipe = 4 << 10
)

// mirrors are where formats keep copies of their superblock away from the
// ends: the last place of LUKS2's second header, btrfs, Ceph.
var mirrors = append([]int64{4 << 20, 64 << 20, 256 << 30}, signature.Bluestore...)

// span is a piece of a disk.
type span struct{ off, n int64 }

// eraseMetadata makes disks look empty. What is in their files remains: this
// is for the next deployment, not for the next owner's eyes. All disks are
// found and opened before the first one is touched.
func (a *agent) eraseMetadata(ctx context.Context, t *task) (any, error) {
	var args agentproto.EraseArgs
	if err := t.decode(&args); err != nil {
		return nil, err
	}
	disks, skipped, err := a.toErase(ctx, args)
	if err != nil {
		return nil, err
	}
	for _, d := range skipped {
		t.log.Warn("the disk is not erased", "disk", d.Name, "serial", d.Serial, "reason", d.Reason)
	}
	devs, err := a.openAll(ctx, disks)
	defer closeAll(devs)
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "nothing was erased: %w", err)
	}
	out := &agentproto.EraseResult{Skipped: skipped}
	for i, d := range disks {
		name := d.Name
		of, err := eraseDisk(ctx, t, d, devs[i], func(done, total int64) {
			t.progress(uint64(done), uint64(total), fmt.Sprintf("disk %d of %d, %s", i+1, len(disks), name))
		})
		if err != nil {
			return nil, errs.New(errs.KindOf(err), "erase metadata of %s: %w", d.Name, err)
		}
		out.Disks = append(out.Disks, agentproto.ErasedDisk{DiskID: rootdisk.ID(d), MemberOf: of})
	}
	return out, nil
}

// toErase finds the disks that are to be erased, and those that are left alone.
// A RAID that does not stop keeps its members: they cannot be opened.
func (a *agent) toErase(ctx context.Context, args agentproto.EraseArgs) ([]agentproto.Disk, []agentproto.SkippedDisk, error) {
	if err := a.hw.ReleaseDisks(ctx); err != nil {
		return nil, nil, errs.New(errs.KindOf(err), "release the disks: %w", err)
	}
	all, err := a.disks(ctx)
	if err != nil {
		return nil, nil, err
	}
	return rootdisk.ToErase(args.Disks, all)
}

// openAll opens disks and looks whether they are the same still. What was
// opened must be closed, also after an error.
func (a *agent) openAll(ctx context.Context, disks []agentproto.Disk) ([]BlockDevice, error) {
	var out []BlockDevice
	for _, d := range disks {
		dev, err := a.open(ctx, d)
		if err != nil {
			return out, err
		}
		out = append(out, dev)
	}
	return out, a.unchanged(ctx, disks)
}

func closeAll(devs []BlockDevice) {
	for _, d := range devs {
		d.Close()
	}
}

func eraseDisk(ctx context.Context, t *task, d agentproto.Disk, dev BlockDevice, progress func(done, total int64)) (memberOf []string, err error) {
	memberOf = signature.Members(dev, dev.Size())
	parts, err := readPartitions(dev, d.LogicalBlk)
	if err != nil {
		// The ends are cleared all the same, and with them the damaged table.
		t.log.Warn("partitions cannot be told, only the disk's own ends are cleared", "disk", d.Name, "err", err)
	}
	parts = append(parts, logicalPartitions(dev, parts, d.LogicalBlk)...)
	spans := eraseSpans(dev.Size(), parts, max(512, int64(d.LogicalBlk)))
	if err := zeroSpans(ctx, dev, spans, progress); err != nil {
		return nil, err
	}
	if err := verifyZero(dev, spans); err != nil {
		return nil, err
	}
	if left := signature.Members(dev, dev.Size()); len(left) > 0 {
		return nil, errs.New(errs.Internal, "the disk still looks like a member of %s", strings.Join(left, ", "))
	}
	if err := dev.RereadPartitions(); err != nil {
		t.log.Warn("the kernel does not read the empty partition table", "disk", d.Name, "err", err)
	}
	t.log.Info("metadata is erased, data remains", "disk", d.Name, "serial", d.Serial, "partitions", len(parts), "member_of", strings.Join(memberOf, ", "))
	return memberOf, nil
}

func zeroSpans(ctx context.Context, dev BlockDevice, spans []span, progress func(done, total int64)) error {
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
	for _, off := range mirrors {
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
