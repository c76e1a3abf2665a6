package media

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat16"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"

	"github.com/ironring/ironring/internal/errs"
)

// Names in the ISO. Rock Ridge keeps them as they are.
const (
	dirMedia      = "ironring"
	nameKernel    = "vmlinuz"
	nameInitramfs = "initramfs.img"
	nameConfig    = "node.cfg"
	nameNode      = "node.cpio"
	nameESP       = "efiboot.img"
)

// Sizes of the places for what is of one machine; blocks of an ISO are 2 KiB.
const (
	configSize = 8 << 10
	nodeSize   = 64 << 10
	espSize    = 12 << 20
)

// maxLoader bounds a boot loader's file.
const maxLoader = 4 << 20

// Loader is the boot loader of the media, in the signed files of a
// distribution.
type Loader struct {
	Shim string // "": GRUB is started at once, which Secure Boot refuses
	GRUB string // an image of GRUB that reads FAT, ISO 9660 and grub.cfg
}

// DebianLoader is where Debian's packages shim-signed and grub-efi-amd64-signed
// put their files.
var DebianLoader = Loader{Shim: "/usr/lib/shim/shimx64.efi.signed", GRUB: "/usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"}

// read gives both files; shim is nil when there is none.
func (l Loader) read() (shim, grub []byte, err error) {
	if grub, err = readLoader(l.GRUB); err != nil {
		return nil, nil, err
	}
	if l.Shim == "" {
		return nil, grub, nil
	}
	shim, err = readLoader(l.Shim)
	return shim, grub, err
}

func readLoader(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errs.New(errs.Unsupported, "the boot loader for virtual media is not there (install shim-signed and grub-efi-amd64-signed, or set boot.media_shim and boot.media_grub): %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxLoader+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxLoader {
		return nil, errs.New(errs.Invalid, "%s is larger than %d bytes", path, maxLoader)
	}
	return b, nil
}

// place is filled up to a size with a mark that finds it again.
func place(id, what string, size int) []byte {
	mark := []byte("# ironring " + what + " " + id + "\n")
	return append(mark, bytes.Repeat([]byte("\n"), size-len(mark))...)
}

// grubConfig is in the loader's own volume: it finds ours among all others.
func grubConfig(id string) []byte {
	return []byte(fmt.Sprintf(`set timeout=0
if search --no-floppy --file --set=root /%[1]s/%[2]s.id; then
	source /%[1]s/%[3]s
else
	echo "Ironring: the boot medium is gone"
	sleep 10
	reboot
fi
`, dirMedia, id, nameConfig))
}

// template is an ISO with the two places and where they are.
type template struct {
	path   string
	size   int64
	config int64 // offset of the loader's configuration
	node   int64 // offset of the second initramfs
}

// idOf names a template by all that is in it.
func idOf(kernel, initramfs string, shim, grub []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "ironring media 1\n%s\n%s\n%x\n%x\n", kernel, initramfs, sha256.Sum256(shim), sha256.Sum256(grub))
	return hex.EncodeToString(h.Sum(nil))[:32]
}

// build writes a template at path. work is an empty directory of ours. room is
// asked before all of it is written a second time, into the ISO.
func build(path, work, id string, shim, grub []byte, kernel, initramfs io.Reader, room func() error) error {
	dir := filepath.Join(work, "iso", dirMedia)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, content := range map[string]io.Reader{
		nameKernel: kernel, nameInitramfs: initramfs, id + ".id": bytes.NewReader([]byte(id)),
		nameConfig: bytes.NewReader(place(id, "config", configSize)), nameNode: bytes.NewReader(place(id, "node", nodeSize)),
	} {
		if err := copyTo(filepath.Join(dir, name), content); err != nil {
			return err
		}
	}
	// GRUB may take the whole medium for the volume that it was started from.
	if err := os.MkdirAll(filepath.Join(work, "iso", "boot", "grub"), 0o700); err != nil {
		return err
	}
	if err := copyTo(filepath.Join(work, "iso", "boot", "grub", "grub.cfg"), bytes.NewReader(grubConfig(id))); err != nil {
		return err
	}
	esp := filepath.Join(work, "iso", dirMedia, nameESP)
	if err := buildESP(esp, id, shim, grub); err != nil {
		return fmt.Errorf("loader's volume: %w", err)
	}
	sums := map[string][]byte{}
	for _, name := range []string{nameKernel, nameInitramfs, nameESP} {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		sums[name], err = sumOf(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	if err := room(); err != nil {
		return err
	}
	// This removes the tree.
	if err := buildISO(path, filepath.Join(work, "iso")); err != nil {
		return fmt.Errorf("iso: %w", err)
	}
	if err := readBack(path, sums); err != nil {
		return fmt.Errorf("iso: %w", err)
	}
	return nil
}

// readBack compares files of an ISO with those that it was made of: the
// library does not report every error of writing, such as a full disk.
func readBack(path string, sums map[string][]byte) error {
	st, err := file.OpenFromPath(path, true)
	if err != nil {
		return err
	}
	defer st.Close()
	info, err := st.Stat()
	if err != nil {
		return err
	}
	fs, err := iso9660.Read(st, info.Size(), 0, 2048)
	if err != nil {
		return err
	}
	for name, want := range sums {
		f, err := fs.OpenFile("/"+dirMedia+"/"+name, os.O_RDONLY)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		got, err := sumOf(f)
		if err != nil || !bytes.Equal(got, want) {
			return errs.New(errs.Internal, "%s is not as it was written, is the disk full? %w", name, errors.Join(err, errDiffers))
		}
	}
	return nil
}

var errDiffers = errors.New("other bytes")

func sumOf(r io.Reader) ([]byte, error) {
	h := sha256.New()
	_, err := io.Copy(h, r)
	return h.Sum(nil), err
}

func copyTo(path string, from io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

// buildESP makes the FAT volume that the firmware starts the loader from.
func buildESP(path, id string, shim, grub []byte) error {
	st, err := file.CreateFromPath(path, espSize)
	if err != nil {
		return err
	}
	defer st.Close()
	fs, err := fat16.Create(st, espSize, 0, 512, "IRONRING", true)
	if err != nil {
		return err
	}
	for _, d := range []string{"/EFI", "/EFI/BOOT", "/boot", "/boot/grub"} {
		if err := fs.Mkdir(d); err != nil {
			return err
		}
	}
	files := map[string][]byte{"/EFI/BOOT/BOOTX64.EFI": grub, "/boot/grub/grub.cfg": grubConfig(id), "/EFI/BOOT/grub.cfg": grubConfig(id)}
	if shim != nil {
		files["/EFI/BOOT/BOOTX64.EFI"], files["/EFI/BOOT/grubx64.efi"] = shim, grub
	}
	for name, content := range files {
		f, err := fs.OpenFile(name, os.O_CREATE|os.O_RDWR)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if _, err := f.Write(content); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func buildISO(path, tree string) error {
	st, err := file.CreateFromPath(path, 1<<20) // it grows
	if err != nil {
		return err
	}
	defer st.Close()
	fs, err := iso9660.Create(st, 0, 0, 2048, tree)
	if err != nil {
		return err
	}
	return fs.Finalize(iso9660.FinalizeOptions{
		RockRidge: true, VolumeIdentifier: "IRONRING",
		ElTorito: &iso9660.ElTorito{
			BootCatalog: dirMedia + "/boot.cat",
			Entries:     []*iso9660.ElToritoEntry{{Platform: iso9660.EFI, Emulation: iso9660.NoEmulation, BootFile: dirMedia + "/" + nameESP}},
		},
	})
}

// open finds the places of a template.
func open(path, id string) (*template, error) {
	b, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	st, err := b.Stat()
	if err != nil {
		return nil, err
	}
	t := &template{path: path, size: st.Size(), config: -1, node: -1}
	config, node := place(id, "config", configSize), place(id, "node", nodeSize)
	block := make([]byte, nodeSize)
	for off := int64(0); off < t.size; off += 2048 { // files begin at blocks
		if _, err := b.ReadAt(block[:64], off); err != nil {
			break
		}
		for _, p := range []struct {
			want []byte
			at   *int64
		}{{config, &t.config}, {node, &t.node}} {
			if !bytes.HasPrefix(p.want, block[:64]) {
				continue
			}
			if n, _ := b.ReadAt(block[:len(p.want)], off); n == len(p.want) && bytes.Equal(block[:n], p.want) {
				*p.at = off
			}
		}
	}
	if t.config < 0 || t.node < 0 {
		return nil, errs.New(errs.Internal, "the template %s has no places for what is of one machine", filepath.Base(path))
	}
	return t, nil
}
