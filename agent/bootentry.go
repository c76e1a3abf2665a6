package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/filesystem/fat12"
	"github.com/diskfs/go-diskfs/filesystem/fat16"
	"github.com/diskfs/go-diskfs/filesystem/fat32"

	"github.com/ironring/ironring/agent/efi"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

// bootLabel is the description of our boot entry; there is one at most.
const bootLabel = "Ironring"

// loaderPath is the removable-media path of this machine's architecture: what
// a whole-disk image has, because it knows no firmware.
func loaderPath() string {
	name := map[string]string{"amd64": "BOOTX64.EFI", "arm64": "BOOTAA64.EFI", "386": "BOOTIA32.EFI", "riscv64": "BOOTRISCV64.EFI"}[runtime.GOARCH]
	return `\EFI\BOOT\` + name
}

// bootEntry sees that the firmware will boot the disk: in UEFI mode by an
// entry of ours, first in the order, that names the partition with the loader.
// Old firmware (BIOS) keeps nothing of the kind that a system could set: it
// boots the disks in the order of its own settings, so all that can be seen is
// that the disk has a boot program. What is returned was read back.
func (a *agent) bootEntry(ctx context.Context, t *task) (any, error) {
	var args agentproto.BootEntryArgs
	if err := t.decode(&args); err != nil {
		return nil, err
	}
	disk, dev, err := a.openDisk(ctx, args.Disk)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	vars := a.hw.EFI()
	if vars == nil {
		active, err := bootProgram(dev)
		if err != nil {
			return nil, errs.New(errs.KindOf(err), "disk %s will not boot in BIOS mode: %w", disk.Name, err)
		}
		t.log.Info("the disk has a boot program; the firmware's own order decides", "disk", disk.Name, "active_partition", active)
		return &agentproto.BootEntryResult{Mode: "bios", Active: active}, nil
	}
	esp, err := findESP(dev, disk.LogicalBlk)
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "disk %s will not boot in UEFI mode: %w", disk.Name, err)
	}
	want := efi.LoadOption{
		Attributes: efi.LoadActive, Description: bootLabel,
		Path: efi.DevicePath{
			efi.HardDrive{
				Number: esp.number, Start: esp.start, Size: esp.blocks,
				Signature: esp.signature, SigType: esp.sigType, Format: esp.format,
			}.Node(),
			efi.FilePath(loaderPath()),
		},
	}
	entry, err := setEntry(vars, want)
	if err != nil {
		return nil, varError(err)
	}
	order, err := readOrder(vars)
	if err != nil {
		return nil, varError(err)
	}
	out := &agentproto.BootEntryResult{Mode: "uefi", Entry: efi.BootName(entry), Loader: loaderPath()}
	for _, n := range order {
		out.Order = append(out.Order, efi.BootName(n))
	}
	current := ""
	if b, _, err := vars.Get("BootCurrent"); err == nil {
		if ns, err := efi.ParseOrder(b); err == nil && len(ns) == 1 {
			current = efi.BootName(ns[0])
		}
	}
	t.log.Info("the firmware boots the disk", "entry", out.Entry, "path", want.Path.String(), "order", strings.Join(out.Order, ","), "current", current)
	return out, nil
}

// bootProgram checks that a BIOS can start the disk, and gives the number of
// the partition with the active flag, 0 for none. The flag is not asked for:
// most boot programs do without.
func bootProgram(dev BlockDevice) (active int, err error) {
	mbr := make([]byte, 512)
	if _, err := dev.ReadAt(mbr, 0); err != nil {
		return 0, fmt.Errorf("read the first sector: %w", err)
	}
	if mbr[510] != 0x55 || mbr[511] != 0xaa || isZero(mbr[:440]) {
		return 0, errs.New(errs.Invalid, "it has no boot program in its first sector; is the image for UEFI only?")
	}
	for i := range 4 {
		if mbr[446+16*i] == 0x80 {
			return i + 1, nil
		}
	}
	return 0, nil
}

// varError gives firmware that does not let its variables be changed a kind of
// its own.
func varError(err error) error {
	for _, e := range []error{syscall.EROFS, syscall.EPERM, syscall.EACCES, syscall.EINVAL, syscall.ENOSYS} {
		if errors.Is(err, e) {
			return errs.New(errs.Unsupported, "the firmware refuses the boot entry: %w", err)
		}
	}
	return errs.New(errs.KindOf(err), "boot entry: %w", err)
}

// setEntry makes the variable of our entry hold want, puts it first in the
// order, removes further entries of ours, and reads all of it back.
func setEntry(vars efi.Vars, want efi.LoadOption) (uint16, error) {
	names, err := vars.Names()
	if err != nil {
		return 0, err
	}
	slices.Sort(names)
	taken := map[uint16]bool{}
	var ours []uint16
	for _, name := range names {
		n, ok := efi.ParseBootName(name)
		if !ok {
			continue
		}
		taken[n] = true
		b, _, err := vars.Get(name)
		if err != nil {
			continue // taken, and not ours to touch
		}
		if o, err := efi.ParseLoadOption(b); err == nil && o.Description == bootLabel {
			ours = append(ours, n)
		}
	}
	order, err := readOrder(vars)
	if err != nil {
		return 0, err
	}
	for _, n := range order {
		taken[n] = true // named in the order without an entry: not reused
	}
	var num uint16
	if len(ours) > 0 {
		num = ours[0]
	} else {
		for taken[num] {
			if num == 0xffff {
				return 0, errs.New(errs.Busy, "the firmware has no free boot entry")
			}
			num++
		}
	}
	enc := want.Encode()
	if err := setIfOther(vars, efi.BootName(num), enc); err != nil {
		return 0, err
	}
	next := []uint16{num}
	for _, n := range order {
		if !slices.Contains(ours, n) && n != num {
			next = append(next, n)
		}
	}
	if err := setIfOther(vars, "BootOrder", efi.EncodeOrder(next)); err != nil {
		return 0, err
	}
	for _, n := range ours {
		if n != num {
			if err := vars.Delete(efi.BootName(n)); err != nil {
				return 0, err
			}
		}
	}
	return num, checkEntry(vars, num, enc)
}

// checkEntry reads back what was set: firmware has been seen to accept and
// forget.
func checkEntry(vars efi.Vars, num uint16, enc []byte) error {
	b, _, err := vars.Get(efi.BootName(num))
	if err != nil {
		return err
	}
	if !slices.Equal(b, enc) {
		return errs.New(errs.Unsupported, "the firmware changed or dropped %s", efi.BootName(num))
	}
	order, err := readOrder(vars)
	if err != nil {
		return err
	}
	if len(order) == 0 || order[0] != num {
		return errs.New(errs.Unsupported, "the firmware did not keep %s first in its boot order", efi.BootName(num))
	}
	return nil
}

// setIfOther spares the flash when the variable is right already.
func setIfOther(vars efi.Vars, name string, data []byte) error {
	if b, _, err := vars.Get(name); err == nil && slices.Equal(b, data) {
		return nil
	}
	return vars.Set(name, efi.Stored, data)
}

// readOrder is the boot order; a machine may have none.
func readOrder(vars efi.Vars) ([]uint16, error) {
	b, _, err := vars.Get("BootOrder")
	if errors.Is(err, errs.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return efi.ParseOrder(b)
}

// findESP is the first EFI system partition that holds the loader.
func findESP(dev BlockDevice, block int) (partition, error) {
	if block <= 0 {
		block = 512
	}
	parts, err := readPartitions(dev, block)
	if err != nil {
		return partition{}, err
	}
	esps := 0
	var last error
	for _, p := range parts {
		if !p.isESP {
			continue
		}
		esps++
		ok, err := hasLoader(dev, p, block)
		if ok {
			return p, nil
		}
		if err != nil {
			last = fmt.Errorf("partition %d: %w", p.number, err)
		}
	}
	switch {
	case esps == 0:
		return partition{}, errs.New(errs.Invalid, "it has no EFI system partition")
	case last != nil:
		return partition{}, errs.New(errs.Invalid, "no EFI system partition can be read: %w", last)
	}
	return partition{}, errs.New(errs.Invalid, "no EFI system partition has %s", loaderPath())
}

// hasLoader looks for the loader in the FAT file system of p.
func hasLoader(dev BlockDevice, p partition, block int) (ok bool, err error) {
	// The bytes are whatever is on the disk and the library is not ours.
	defer func() {
		if r := recover(); r != nil {
			ok, err = false, errs.New(errs.Invalid, "file system cannot be read: %v", r)
		}
	}()
	start, size := int64(p.start)*int64(block), int64(p.blocks)*int64(block)
	if start < 0 || size <= 0 || start+size > dev.Size() {
		return false, errs.New(errs.Invalid, "it lies outside the disk")
	}
	boot := make([]byte, 512)
	if _, err := dev.ReadAt(boot, start); err != nil {
		return false, fmt.Errorf("read its first sector: %w", err)
	}
	bits, err := checkFAT(dev, boot, start, size)
	if err != nil {
		return false, err
	}
	st := storage{dev, io.NewSectionReader(dev, 0, dev.Size())}
	var files filesystem.FileSystem
	switch bits {
	case 32:
		files, err = fat32.Read(st, size, start, 0)
	case 16:
		files, err = fat16.Read(st, size, start, 0)
	default:
		files, err = fat12.Read(st, size, start, 0)
	}
	if err != nil {
		return false, errs.New(errs.Invalid, "read FAT: %w", err)
	}
	return findPath(files, strings.Split(strings.Trim(loaderPath(), `\`), `\`))
}

// findPath walks the path without regard to case, as firmware does.
func findPath(files filesystem.FileSystem, path []string) (bool, error) {
	dir := "."
	for i, want := range path {
		ents, err := files.ReadDir(dir)
		if err != nil {
			return false, fmt.Errorf("list %s: %w", dir, err)
		}
		k := slices.IndexFunc(ents, func(e iofs.DirEntry) bool {
			return strings.EqualFold(e.Name(), want) && e.IsDir() == (i < len(path)-1)
		})
		if k < 0 {
			return false, nil
		}
		if dir == "." {
			dir = ents[k].Name()
		} else {
			dir += "/" + ents[k].Name()
		}
	}
	return true, nil
}
