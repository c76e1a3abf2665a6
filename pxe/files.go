package pxe

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ironring/ironring/internal/errs"
)

// maxProgram bounds a boot program: they are read into memory.
const maxProgram = 16 << 20

// programs are the boot programs that TFTP and HTTP give out, by the names
// that clients ask for. The values are the names of the files in IPXEDir; no
// other name is ever opened.
var programs = map[string]string{
	"snponly.efi":   "snponly.efi",   // UEFI x86-64, uses the firmware's driver
	"undionly.kpxe": "undionly.kpxe", // BIOS, uses the NIC's PXE driver
	"ipxe.efi":      "ipxe.efi",      // UEFI x86-64 with drivers of its own
	"ipxe.pxe":      "ipxe.pxe",      // BIOS with drivers of its own

	// As iPXE's own build for ARM names them; Debian has no package of them.
	"snponly-arm64.efi": "snponly-arm64.efi",
	"ipxe-arm64.efi":    "ipxe-arm64.efi",
}

// ramdiskFiles are the parts of the ramdisk by HTTP path: file and stage.
var ramdiskFiles = map[string]struct{ file, stage string }{
	pathKernel:    {"vmlinuz", stageKernel},
	pathInitramfs: {"initramfs.img", stageInitramfs},
}

// programFiles keeps the boot programs that were asked for in memory: many
// machines ask for the same one at once.
type programFiles struct {
	dir string
	mu  sync.Mutex
	by  map[string]program // guarded by mu; by name, as many as there are in the table
}

// program is a file as it was when it was read. The bytes are never changed.
type program struct {
	size    int64
	changed time.Time
	data    []byte
}

// read gives the boot program that a client's name stands for. The bytes must
// not be changed.
func (f *programFiles) read(name string) ([]byte, error) {
	file, ok := programs[name]
	if !ok {
		return nil, errs.New(errs.NotFound, "no such boot program")
	}
	r, st, err := openRegular(filepath.Join(f.dir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "boot program %s is not installed", file)
	}
	if err != nil {
		return nil, errs.New(errs.Internal, "boot program %s cannot be read: %w", file, err)
	}
	defer r.Close()
	f.mu.Lock()
	defer f.mu.Unlock() // the second of two that ask at once finds it in memory
	if was, ok := f.by[name]; ok && was.size == st.Size() && was.changed.Equal(st.ModTime()) {
		return was.data, nil
	}
	if st.Size() > maxProgram {
		return nil, errs.New(errs.Internal, "boot program %s is larger than %d bytes", file, maxProgram)
	}
	data := make([]byte, st.Size())
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, errs.New(errs.Internal, "boot program %s cannot be read: %w", file, err)
	}
	if f.by == nil {
		f.by = map[string]program{}
	}
	f.by[name] = program{st.Size(), st.ModTime(), data}
	return data, nil
}

// openRegular opens a file of the operator's, which must be a regular one.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errs.New(errs.Invalid, "%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, st, nil
}

// missing lists the files that the configured directories lack, for a warning
// at the start.
func (c Config) missing() []string {
	var out []string
	look := func(dir, file string) {
		f, _, err := openRegular(filepath.Join(dir, file))
		if err != nil {
			out = append(out, filepath.Join(dir, file))
			return
		}
		f.Close()
	}
	if c.HTTPListen != "" && len(c.Store.View().Ramdisks()) == 0 {
		for _, p := range []string{pathKernel, pathInitramfs} {
			if c.RamdiskDir == "" {
				out = append(out, ramdiskFiles[p].file+" (no ramdisk directory is configured)")
				continue
			}
			look(c.RamdiskDir, ramdiskFiles[p].file)
		}
	}
	if c.TFTPListen != "" || c.HTTPListen != "" {
		for _, p := range []string{"snponly.efi", "undionly.kpxe"} {
			look(c.IPXEDir, programs[p])
		}
	}
	return out
}
