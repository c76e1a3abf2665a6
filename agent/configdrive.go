package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/configdrive"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rootdisk"
)

// configDrive puts the config drive on a partition of its own at the end of
// the disk that has the image. Doing it again changes nothing: the partition
// and what is on it are found and recognised. The partition is written, read
// back and only then named in the partition table.
//
// What is on the drive may be secret: it is in no log line and no error.
func (a *agent) configDrive(ctx context.Context, t *task) (any, error) {
	var args agentproto.ConfigDriveArgs
	if err := t.decode(&args); err != nil {
		return nil, errs.New(errs.Invalid, "the arguments cannot be read")
	}
	d, err := parseDrive(args.Drive, args.Checksum)
	if err != nil {
		return nil, err
	}
	disk, dev, err := a.openDisk(ctx, args.Disk)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	drive, err := a.driveImage(ctx, t, d, args)
	if err != nil {
		return nil, err
	}
	if drive.label != configdrive.Label {
		t.log.Warn("the config drive's volume has another label than the usual one; its reader must know it", "label", drive.label, "usual", configdrive.Label)
	}
	r, err := findRoom(dev, disk.LogicalBlk, int64(len(drive.image)))
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "config drive on disk %s: %w", disk.Name, err)
	}
	out := &agentproto.ConfigDriveResult{Partition: r.number, StartByte: r.start, Bytes: int64(len(drive.image)), Digest: "sha256:" + drive.digest, Checksum: args.Checksum, Disk: rootdisk.ID(disk)}
	if r.exists && drive.isAt(dev, r.start) {
		out.Found = true
		t.log.Info("the config drive is on the disk already", "disk", disk.Name, "partition", r.number)
		return out, nil
	}
	if err := putDrive(dev, r, drive.image); err != nil {
		return nil, errs.New(errs.KindOf(err), "config drive on disk %s: %w", disk.Name, err)
	}
	if err := dev.RereadPartitions(); err != nil {
		t.log.Warn("the kernel does not read the new partition table", "disk", disk.Name, "err", err)
	}
	t.log.Info("the config drive is on the disk", "disk", disk.Name, "partition", r.number, "bytes", len(drive.image))
	return out, nil
}

// drive is an image with what it is recognised by.
type drive struct {
	image     []byte
	digest    string // lower-case hex SHA-256: of the files it was made of, or of the image as given
	label     string
	publisher string // of one that was made here
}

// driveImage makes or gets the image.
func (a *agent) driveImage(ctx context.Context, t *task, d *configdrive.Drive, args agentproto.ConfigDriveArgs) (drive, error) {
	if d.Files != nil {
		files, err := d.WithDefaults(args.Defaults)
		if err != nil {
			return drive{}, err
		}
		digest := filesDigest(files)
		image, err := buildISO(a.cfg.StateDir, files, digest)
		return drive{image, digest, configdrive.Label, isoPublisher(digest)}, err
	}
	image := d.Image
	if d.URL != "" {
		var err error
		if image, err = a.fetchDrive(ctx, t, d.URL, args.Checksum); err != nil {
			return drive{}, err
		}
	}
	sum := sha256.Sum256(image)
	return drive{image: image, digest: hex.EncodeToString(sum[:]), label: configdrive.VolumeLabel(image)}, nil
}

// isAt says whether this drive is on the disk there. An image of ours counts
// when its first descriptor is there, which is written last.
func (d drive) isAt(dev BlockDevice, start int64) bool {
	if d.publisher != "" {
		pvd := make([]byte, 2048)
		_, err := dev.ReadAt(pvd, start+isoPVD)
		return err == nil && publisherOf(pvd) == d.publisher
	}
	got := make([]byte, len(d.image))
	_, err := dev.ReadAt(got, start)
	return err == nil && bytes.Equal(got, d.image)
}

// putDrive writes the image, what it is recognised by last, and then the
// partition table.
func putDrive(dev BlockDevice, r room, image []byte) error {
	n := r.size
	if r.exists { // what is behind the image stays
		n = min(n, int64(len(image)+directAlign-1)/directAlign*directAlign)
	}
	padded := alignedBytes(int(n))
	copy(padded, image)
	head := bytes.Clone(padded[:min(len(padded), isoPVD+2048)])
	clear(padded[:len(head)])
	if _, err := dev.WriteAt(padded, r.start); err != nil {
		return fmt.Errorf("write at %d: %w", r.start, err)
	}
	if err := dev.Sync(); err != nil {
		return fmt.Errorf("sync the disk: %w", err)
	}
	if _, err := dev.WriteAt(head, r.start); err != nil {
		return fmt.Errorf("write at %d: %w", r.start, err)
	}
	if err := settleDisk(dev); err != nil {
		return err
	}
	got := make([]byte, len(image))
	if n, err := dev.ReadAt(got, r.start); n < len(got) {
		return fmt.Errorf("read back at %d: %w", r.start, errors.Join(err, io.ErrUnexpectedEOF))
	}
	if !bytes.Equal(got, image) {
		return errs.New(errs.Internal, "the disk does not hold what was written to it at %d", r.start)
	}
	if r.exists {
		return nil
	}
	if err := r.add(); err != nil {
		return err
	}
	if err := settleDisk(dev); err != nil {
		return err
	}
	return nil
}

// settleDisk makes the reads that follow come from the medium.
func settleDisk(dev BlockDevice) error {
	if err := dev.Sync(); err != nil {
		return fmt.Errorf("sync the disk: %w", err)
	}
	if err := dev.DropCaches(); err != nil {
		return fmt.Errorf("drop the disk's caches: %w", err)
	}
	return nil
}
