package ramdisk

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/ironring/ironring/internal/errs"
)

// checkKernel compares the version in an x86 kernel image with the one wanted
// and returns it. Images of other kinds must come with their version.
func checkKernel(b []byte, want string) (string, error) {
	got := ""
	// Linux/x86 boot protocol: magic at 0x202, pointer to the version at 0x20e.
	if len(b) > 0x210 && string(b[0x202:0x206]) == "HdrS" {
		off := int(binary.LittleEndian.Uint16(b[0x20e:])) + 0x200
		if off < len(b) {
			text, _, _ := bytes.Cut(b[off:min(len(b), off+256)], []byte{0})
			got, _, _ = strings.Cut(string(text), " ")
		}
	}
	switch {
	case got == "" && want == "":
		return "", errs.New(errs.Invalid, "kernel: this is no x86 kernel image, so its version must be given")
	case got != "" && want != "" && got != want:
		return "", errs.New(errs.Invalid, "kernel: the image is version %s, the modules are for %s", got, want)
	case got == "":
		got = want
	}
	if strings.ContainsAny(got, "/\x00 ") {
		return "", errs.New(errs.Invalid, "kernel: version %q", got)
	}
	return got, nil
}

// readAgent takes only a program that can run alone in a ramdisk.
func readAgent(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, errs.New(errs.Invalid, "agent: %w", err)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, errs.New(errs.Invalid, "agent: %s is not a program: %w", filepath.Base(path), err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return nil, errs.New(errs.Invalid, "agent: %s is not static: build it with CGO_ENABLED=0", filepath.Base(path))
		}
	}
	return b, nil
}

// readModule is a module as the kernel takes it.
func readModule(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, errs.New(errs.Invalid, "module: %w", err)
	}
	name := filepath.Base(path)
	switch filepath.Ext(path) {
	case ".ko":
		return b, nil
	case ".zst":
		z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, errs.New(errs.Invalid, "module %s: %w", name, err)
		}
		defer z.Close()
		b, err = io.ReadAll(z)
		if err != nil {
			return nil, errs.New(errs.Invalid, "module %s: %w", name, err)
		}
		return b, nil
	case ".gz":
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, errs.New(errs.Invalid, "module %s: %w", name, err)
		}
		b, err = io.ReadAll(z)
		if err != nil {
			return nil, errs.New(errs.Invalid, "module %s: %w", name, err)
		}
		return b, nil
	}
	return nil, errs.New(errs.Unsupported, "module %s is compressed in a way that is not supported: .ko, .ko.zst and .ko.gz are (unpack it with xz -d, then run depmod)", name)
}
