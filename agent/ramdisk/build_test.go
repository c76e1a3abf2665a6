package ramdisk

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/ironring/ironring/agent/kmod"
	"github.com/ironring/ironring/internal/errs"
)

// inputs are a small kernel, a tree of modules and a static program.
func inputs(t *testing.T) Options {
	t.Helper()
	dir := t.TempDir()
	put := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	kernel := make([]byte, 4096)
	copy(kernel[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(kernel[0x20e:], 0x400)
	copy(kernel[0x600:], "6.1.0-test (builder@host) #1 SMP\x00")
	z, err := compress("zstd", []byte("module failover"))
	if err != nil {
		t.Fatal(err)
	}
	put("m/kernel/net/failover.ko.zst", z)
	put("m/kernel/drivers/net/virtio_net.ko", []byte("module virtio_net"))
	put("m/kernel/drivers/net/phy/a.ko", []byte("module a"))
	put("m/kernel/drivers/net/phy/b.ko.xz", []byte("xz"))
	put("m/modules.dep", []byte("kernel/net/failover.ko.zst:\nkernel/drivers/net/virtio_net.ko: kernel/net/failover.ko.zst\nkernel/drivers/net/phy/a.ko:\nkernel/drivers/net/phy/b.ko.xz:\n"))
	put("m/modules.alias", []byte("alias virtio:d00000001v* virtio_net\nalias pci:x* a\n"))
	put("m/modules.softdep", []byte("softdep virtio_net pre: a\n"))
	src := put("src/main.go", []byte("package main\n\nfunc main() { println(1) }\n"))
	agent := filepath.Join(dir, "agent")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", agent, src)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	return Options{
		Kernel: put("vmlinuz-x", kernel), ModulesDir: filepath.Join(dir, "m"), Agent: agent, Out: filepath.Join(dir, "out"),
		ExtraFiles: map[string]string{"/etc/ssl/certs/ca-certificates.crt": put("ca.crt", []byte("a CA"))},
	}
}

// unpack reads an initramfs as the kernel does: archive after archive.
func unpack(t *testing.T, b []byte) map[string]cpio.Record {
	t.Helper()
	out := map[string]cpio.Record{}
	read := func(b []byte) {
		recs, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(b)))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range recs {
			out[r.Name] = r
		}
	}
	if bytes.HasPrefix(b, []byte("070701")) {
		read(b)
		i := bytes.Index(b, []byte("TRAILER!!!"))
		b = bytes.TrimLeft(b[i+10:], "\x00")
	}
	var r io.Reader
	var err error
	if bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
		r, err = gzip.NewReader(bytes.NewReader(b))
	} else {
		r, err = zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1))
	}
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	read(plain)
	return out
}

func text(t *testing.T, r cpio.Record) string {
	t.Helper()
	b := make([]byte, r.FileSize)
	if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return string(b)
}

func TestBuild(t *testing.T) {
	for _, kind := range []string{"zstd", "gzip"} {
		t.Run(kind, func(t *testing.T) {
			o := inputs(t)
			o.Compress = kind
			o.Modules = []string{"virtio-net"}
			man, err := Build(o)
			if err != nil {
				t.Fatal(err)
			}
			if man.KernelVersion != "6.1.0-test" || !slices.Equal(man.Modules, []string{"a", "failover", "virtio_net"}) || man.BaseSize >= man.Initramfs.Size {
				t.Errorf("%+v", man)
			}
			image, err := os.ReadFile(filepath.Join(o.Out, InitramfsFile))
			if err != nil {
				t.Fatal(err)
			}
			files := unpack(t, image)
			lib := "lib/modules/6.1.0-test/"
			if r := files["init"]; r.Mode != cpio.S_IFREG|0o755 || r.FileSize == 0 {
				t.Errorf("init: %+v", r.Info)
			}
			if r := files["dev/console"]; r.Mode != cpio.S_IFCHR|0o600 || r.Rmajor != 5 || r.Rminor != 1 {
				t.Errorf("console: %+v", r.Info)
			}
			if got := text(t, files["etc/ssl/certs/ca-certificates.crt"]); got != "a CA" {
				t.Errorf("extra file %q", got)
			}
			for _, m := range []string{"kernel/net/failover", "kernel/drivers/net/virtio_net", "kernel/drivers/net/phy/a"} {
				z := text(t, files[lib+m+".ko.zst"])
				r, err := zstd.NewReader(strings.NewReader(z), zstd.WithDecoderConcurrency(1))
				if err != nil {
					t.Fatal(err)
				}
				if b, err := io.ReadAll(r); err != nil || string(b) != "module "+filepath.Base(m) {
					t.Errorf("%s: %q %v", m, b, err)
				}
				if _, ok := files[filepath.Dir(lib+m)]; !ok {
					t.Errorf("%s has no directory", m)
				}
			}
			// The lists must work for what is in the ramdisk.
			fs := fstest.MapFS{}
			for n, r := range files {
				if s, ok := strings.CutPrefix(n, lib); ok && strings.HasPrefix(s, "modules.") {
					fs[s] = &fstest.MapFile{Data: []byte(text(t, r))}
				}
			}
			idx, err := kmod.Load(fs)
			if err != nil {
				t.Fatal(err)
			}
			order := idx.Order(idx.Match("virtio:d00000001v00001AF4")...)
			if !slices.Equal(order, []string{"kernel/drivers/net/phy/a.ko.zst", "kernel/net/failover.ko.zst", "kernel/drivers/net/virtio_net.ko.zst"}) {
				t.Error(order)
			}
			if _, ok := files[lib+"kernel/drivers/net/phy/b.ko.zst"]; ok {
				t.Error("a module that nobody asked for")
			}

			o.Out = filepath.Join(t.TempDir(), "again")
			if _, err := Build(o); err != nil {
				t.Fatal(err)
			}
			for _, f := range []string{KernelFile, InitramfsFile, ManifestFile} {
				a, _ := os.ReadFile(filepath.Join(o.Out, f))
				b, _ := os.ReadFile(filepath.Join(filepath.Dir(o.Kernel), "out", f))
				if len(a) == 0 || !bytes.Equal(a, b) {
					t.Errorf("%s differs between two builds", f)
				}
			}
		})
	}
}

func TestBuildRefuses(t *testing.T) {
	good := inputs(t)
	for name, c := range map[string]struct {
		change func(o *Options)
		kind   errs.Kind
		text   string
	}{
		"no kernel":        {func(o *Options) { o.Kernel = "" }, errs.Invalid, "Kernel"},
		"missing kernel":   {func(o *Options) { o.Kernel += "x" }, errs.Invalid, "kernel"},
		"not a kernel":     {func(o *Options) { o.Kernel = o.Agent }, errs.Invalid, "version must be given"},
		"other version":    {func(o *Options) { o.KernelVersion = "6.1.0-other" }, errs.Invalid, "6.1.0-other"},
		"not a program":    {func(o *Options) { o.Agent = o.Kernel }, errs.Invalid, "not a program"},
		"dynamic program":  {func(o *Options) { o.Agent = "/bin/true" }, errs.Invalid, "static"},
		"no modules":       {func(o *Options) { o.ModulesDir = t.TempDir() }, errs.Invalid, "depmod"},
		"unknown module":   {func(o *Options) { o.Modules = []string{"zork"} }, errs.Invalid, "zork"},
		"unknown folder":   {func(o *Options) { o.Modules = []string{"kernel/zork/"} }, errs.Invalid, "kernel/zork/"},
		"xz":               {func(o *Options) { o.Modules = []string{"kernel/drivers/net/phy/"} }, errs.Unsupported, "xz -d"},
		"compression":      {func(o *Options) { o.Compress = "lzma" }, errs.Invalid, "lzma"},
		"extra file":       {func(o *Options) { o.ExtraFiles = map[string]string{"a": "/nonexistent"} }, errs.Invalid, "extra file"},
		"no output folder": {func(o *Options) { o.Out = "" }, errs.Invalid, "Out"},
	} {
		o := good
		c.change(&o)
		if _, err := Build(o); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDefaultModulesHaveNoDoubles(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range DefaultModules() {
		if seen[m] {
			t.Error(m)
		}
		seen[m] = true
	}
}
