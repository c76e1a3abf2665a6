package media

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat16"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/netdata"
)

type rig struct {
	*Maker
	files  map[string][]byte
	opened atomic.Int64
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	l := Loader{Shim: filepath.Join(dir, "shim"), GRUB: filepath.Join(dir, "grub")}
	for _, p := range []string{l.Shim, l.GRUB} {
		if err := os.WriteFile(p, bytes.Repeat([]byte(filepath.Base(p)), 50_000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := &rig{files: map[string][]byte{}}
	for i, n := range []string{"k1", "i1", "k2", "k3", "k4"} {
		b := make([]byte, 300_001)
		rand.New(rand.NewSource(int64(i))).Read(b)
		r.files[n] = b
	}
	var err error
	r.Maker, err = New(Config{Dir: filepath.Join(dir, "media"), Loader: l, Open: func(_ context.Context, key string) (io.ReadCloser, error) {
		r.opened.Add(1)
		b, ok := r.files[key]
		if !ok {
			return nil, errs.New(errs.NotFound, "no %s", key)
		}
		return io.NopCloser(bytes.NewReader(b)), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// written reads an image into a file and gives its file system.
func written(t *testing.T, im *Image) (*iso9660.FileSystem, []byte) {
	t.Helper()
	defer im.Close()
	all, err := io.ReadAll(im)
	if err != nil || int64(len(all)) != im.Size() {
		t.Fatalf("%d of %d bytes, %v", len(all), im.Size(), err)
	}
	path := filepath.Join(t.TempDir(), "x.iso")
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
	st, err := file.OpenFromPath(path, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	fs, err := iso9660.Read(st, im.Size(), 0, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return fs, all
}

func content(t *testing.T, fs *iso9660.FileSystem, name string) []byte {
	t.Helper()
	f, err := fs.OpenFile("/"+dirMedia+"/"+name, os.O_RDONLY)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

func TestImage(t *testing.T) {
	r := newRig(t)
	network := []byte(`{"links":[]}`)
	im, err := r.Image(t.Context(), "k1", "i1", Params{KernelLine: "console=ttyS0 ironring.nonce=abc ironring.peers=[fd00::1]:7483", Network: network})
	if err != nil {
		t.Fatal(err)
	}
	fs, _ := written(t, im)
	if !bytes.Equal(content(t, fs, nameKernel), r.files["k1"]) || !bytes.Equal(content(t, fs, nameInitramfs), r.files["i1"]) {
		t.Error("kernel or initramfs differ")
	}
	cfg := content(t, fs, nameConfig)
	if want := "linux /ironring/vmlinuz console=ttyS0 ironring.nonce=abc ironring.peers=[fd00::1]:7483\ninitrd /ironring/initramfs.img /ironring/node.cpio\nboot\n"; strings.TrimRight(string(cfg), "\n")+"\n" != want {
		t.Errorf("config %q", strings.TrimRight(string(cfg), "\n"))
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(content(t, fs, nameNode))))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, rec := range records {
		if "/"+rec.Name == netdata.Path {
			b, err := io.ReadAll(io.NewSectionReader(rec, 0, int64(rec.FileSize)))
			found = err == nil && bytes.Equal(b, network)
		}
	}
	if !found {
		t.Errorf("no network data in %v", records)
	}
	esp := filepath.Join(t.TempDir(), "esp")
	if err := os.WriteFile(esp, content(t, fs, nameESP), 0o600); err != nil {
		t.Fatal(err)
	}
	st, err := file.OpenFromPath(esp, true)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	fat, err := fat16.Read(st, espSize, 0, 512)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"/EFI/BOOT/BOOTX64.EFI": "shimshim", "/EFI/BOOT/grubx64.efi": "grubgrub", "/boot/grub/grub.cfg": "set timeout"} {
		f, err := fat.OpenFile(name, os.O_RDONLY)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if b, err := io.ReadAll(f); err != nil || !strings.HasPrefix(string(b), want) {
			t.Errorf("%s: %.20q, %v", name, b, err)
		}
	}
}

// Two images of one ramdisk differ in nothing but the two places, share one
// template, and reads at any offset agree with the whole.
func TestImagesShareATemplate(t *testing.T) {
	r := newRig(t)
	var images [8][]byte
	var all sync.WaitGroup
	for i := range images {
		all.Go(func() {
			im, err := r.Image(t.Context(), "k1", "i1", Params{KernelLine: "n=" + string(rune('a'+i))})
			if err != nil {
				t.Error(err)
				return
			}
			defer im.Close()
			images[i], err = io.ReadAll(im)
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := r.opened.Load(); n != 2 {
		t.Errorf("the ramdisk was read %d times", n)
	}
	differ := 0
	for i := range images[0] {
		if images[0][i] != images[1][i] {
			differ++
		}
	}
	if differ != 1 {
		t.Errorf("%d bytes differ", differ)
	}
	im, err := r.Image(t.Context(), "k1", "i1", Params{KernelLine: "n=a"})
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	rnd := rand.New(rand.NewSource(1))
	for range 300 {
		at, n := rnd.Int63n(im.Size()), 1+rnd.Intn(100_000)
		if rnd.Intn(2) == 0 { // near a place
			at = max(0, im.spots[rnd.Intn(2)].at+rnd.Int63n(80_000)-40_000)
		}
		n = int(min(int64(n), im.Size()-at))
		got := make([]byte, n)
		if _, err := im.Seek(at, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(im, got); err != nil || !bytes.Equal(got, images[0][at:at+int64(n)]) {
			t.Fatalf("%d bytes at %d differ: %v", n, at, err)
		}
	}
}

func TestTemplatesAreFew(t *testing.T) {
	r := newRig(t)
	for _, k := range []string{"k1", "k2", "k3", "k4", "i1"} {
		im, err := r.Image(t.Context(), k, "i1", Params{KernelLine: "x"})
		if err != nil {
			t.Fatal(err)
		}
		im.Close()
	}
	left, err := os.ReadDir(r.cfg.Dir)
	if err != nil || len(left) != keep {
		t.Errorf("%v, %v", left, err)
	}
}

func TestRefusals(t *testing.T) {
	r := newRig(t)
	for name, p := range map[string]Params{
		"a command":     {KernelLine: "a;reboot"},
		"a variable":    {KernelLine: "a=$prefix"},
		"a quote":       {KernelLine: `a="b"`},
		"a second line": {KernelLine: "a\nreboot"},
		"long line":     {KernelLine: strings.Repeat("a", configSize)},
		"long network":  {KernelLine: "a", Network: make([]byte, nodeSize)},
	} {
		if _, err := r.Image(t.Context(), "k1", "i1", p); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.Image(t.Context(), "nothing", "i1", Params{}); !errors.Is(err, errs.NotFound) {
		t.Errorf("no kernel: %v", err)
	}
	r.files["nothing"] = r.files["k2"]
	im, err := r.Image(t.Context(), "nothing", "i1", Params{})
	if err != nil {
		t.Fatalf("a failure is kept: %v", err)
	}
	im.Close()
	r.cfg.Loader.GRUB = "/nonexistent"
	if _, err := r.Image(t.Context(), "k1", "i1", Params{}); !errors.Is(err, errs.Unsupported) {
		t.Errorf("no loader: %v", err)
	}
}

// No template is written over the bound of the disk, at whichever look it is
// met, and nothing is left of one that was given up.
func TestTemplatesObeyTheDisk(t *testing.T) {
	r := newRig(t)
	r.files["big"] = make([]byte, 3*lookEvery)
	looks, full := 0, 0
	var most int64
	r.cfg.Room = func(bytes int64) error {
		most = max(most, bytes)
		if looks++; looks == full {
			return errs.New(errs.Busy, "the disk is full")
		}
		return nil
	}
	for full = 1; ; full++ {
		looks = 0
		im, err := r.Image(t.Context(), "k1", "big", Params{})
		if err == nil {
			im.Close()
			break
		}
		if left, lerr := os.ReadDir(r.cfg.Dir); !errors.Is(err, errs.Busy) || lerr != nil || len(left) != 0 {
			t.Errorf("look %d: %v, left %v, %v", full, err, left, lerr)
		}
	}
	if full < 5 || most < int64(len(r.files["big"])) {
		t.Errorf("%d looks, for %d bytes at most", full, most)
	}
}
