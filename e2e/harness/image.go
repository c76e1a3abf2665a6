package harness

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/partition/gpt"
)

const (
	mib = 1 << 20
	// The image: an EFI system partition, and a partition of noise, so that a
	// writer which leaves out zeroes still writes most of the image.
	imageSize  = 64 * mib
	espStart   = 1 * mib
	espSize    = 36 * mib
	noiseStart = espStart + espSize
	noiseSize  = 26 * mib

	legacyBoot = 1 << 2 // GPT attribute: a BIOS boots this partition
	syslinux   = "/usr/lib/syslinux/"
)

// Image is a whole-disk image that boots with BIOS and UEFI and prints its
// marker on the serial console.
type Image struct {
	File   string
	Size   int64
	SHA256 string // lower-case hex, over the file
	Marker string // what the console shows: "IRONRING-BOOTED marker=" + Marker
}

// Booted is the line that the image prints when it has booted.
func (i *Image) Booted() string { return "IRONRING-BOOTED marker=" + i.Marker }

// Boot is what a machine needs to run the marker program: made once per run.
type Boot struct {
	Kernel *Kernel
	Initrd string
	grub   string // GRUB as an EFI program
}

// Boot gets kernel and boot loader and builds the marker program.
func (l *Lab) Boot(ctx context.Context) (*Boot, error) {
	k, err := l.Kernel(ctx)
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	grub, err := l.unpacked(ctx, "grub-efi-amd64-signed", nil)
	if err != nil {
		return nil, fmt.Errorf("boot loader: %w", err)
	}
	initrd, err := l.markerInitrd(ctx, k)
	if err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	return &Boot{Kernel: k, Initrd: initrd, grub: filepath.Join(grub, "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed")}, nil
}

// Image makes a test image whose marker is unique to this run and name. No
// loop device and no mount: it is put together from files.
func (l *Lab) Image(ctx context.Context, b *Boot, name string) (*Image, error) {
	start := time.Now()
	img := &Image{
		File:   filepath.Join(l.Dir, "image-"+name+".raw"),
		Size:   imageSize,
		Marker: name + "-" + l.ID,
	}
	l.Defer(func() error { return os.Remove(img.File) }) // large, and the same again next time
	if err := img.format(b); err != nil {
		return nil, fmt.Errorf("%s: %w", img.File, err)
	}
	if err := l.bootableByBIOS(ctx, img.File); err != nil {
		return nil, err
	}
	if err := writeNoise(img.File, noiseStart, noiseSize, name); err != nil {
		return nil, err
	}
	var err error
	if img.SHA256, err = digest(img.File); err != nil {
		return nil, err
	}
	l.Logf("image %s made in %.1f s", name, time.Since(start).Seconds())
	return img, nil
}

// format makes the file with its partitions and the boot partition's content.
func (i *Image) format(b *Boot) error {
	d, err := diskfs.Create(i.File, i.Size, diskfs.SectorSize512)
	if err != nil {
		return err
	}
	err = d.Partition(&gpt.Table{
		LogicalSectorSize: 512, PhysicalSectorSize: 512, ProtectiveMBR: true,
		Partitions: []*gpt.Partition{
			{Index: 1, Start: espStart / 512, Size: espSize, Type: gpt.EFISystemPartition, Name: "ESP", Attributes: legacyBoot},
			{Index: 2, Start: noiseStart / 512, Size: noiseSize, Type: gpt.LinuxFilesystem, Name: "noise"},
		},
	})
	if err == nil {
		err = fillESP(d, b, i.Marker)
	}
	return errors.Join(err, d.Close())
}

func fillESP(d *disk.Disk, b *Boot, marker string) error {
	fs, err := d.CreateFilesystem(disk.FilesystemSpec{Partition: 1, FSType: filesystem.TypeFat32, VolumeLabel: "E2E"})
	if err != nil {
		return err
	}
	for _, dir := range []string{"/EFI", "/EFI/BOOT", "/EFI/debian"} {
		if err := fs.Mkdir(dir); err != nil {
			return err
		}
	}
	// The signed GRUB looks for its configuration in EFI/debian.
	args := "console=ttyS0 quiet panic=-1 marker=" + marker
	cfg := "set timeout=0\nsearch --no-floppy --set=root --file /initrd.img\n" +
		"linux /vmlinuz " + args + "\ninitrd /initrd.img\nboot\n"
	if err := putBytes(fs, "/EFI/debian/grub.cfg", []byte(cfg)); err != nil {
		return err
	}
	cfg = "SERIAL 0 115200\nDEFAULT e2e\nPROMPT 0\nLABEL e2e\n  LINUX /vmlinuz\n  INITRD /initrd.img\n  APPEND " + args + "\n"
	if err := putBytes(fs, "/syslinux.cfg", []byte(cfg)); err != nil {
		return err
	}
	for name, file := range map[string]string{
		"/EFI/BOOT/BOOTX64.EFI": b.grub, "/ldlinux.c32": syslinux + "modules/bios/ldlinux.c32", "/vmlinuz": b.Kernel.Vmlinuz, "/initrd.img": b.Initrd,
	} {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := putBytes(fs, name, content); err != nil {
			return err
		}
	}
	return fs.Close()
}

// bootableByBIOS adds what a BIOS loads: syslinux in the boot partition, and in
// the first sector a program that finds that partition by its attribute.
func (l *Lab) bootableByBIOS(ctx context.Context, file string) error {
	if _, err := l.Output(ctx, Cmd{Name: "syslinux", Env: []string{"MTOOLS_SKIP_CHECK=1"}, Args: []string{
		"syslinux", "-t", strconv.Itoa(espStart), "-i", file,
	}}); err != nil {
		return err
	}
	mbr, err := os.ReadFile(syslinux + "mbr/gptmbr.bin")
	if err != nil {
		return err
	}
	if len(mbr) > 440 {
		return fmt.Errorf("%d bytes of boot code: more than there is room for", len(mbr))
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(mbr, 0)
	return errors.Join(err, f.Close())
}

func putBytes(fs filesystem.FileSystem, name string, content []byte) error {
	f, err := fs.OpenFile(name, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Close()
}

// writeNoise fills a part of a file with bytes that depend only on the seed.
func writeNoise(file string, at, size int64, seed string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.CopyN(f, rand.NewChaCha8(sha256.Sum256([]byte(seed))), size); err != nil {
		return err
	}
	return f.Close()
}

func digest(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
