package harness

import (
	"compress/gzip"
	"context"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// markerInitrd makes the "operating system" of the test image: the program in
// marker/, static, with the kernel modules that it loads.
func (l *Lab) markerInitrd(ctx context.Context, k *Kernel) (string, error) {
	init := filepath.Join(l.Dir, "marker-init")
	if _, err := l.Output(ctx, Cmd{
		Name: "build the marker program", Dir: l.Root, Env: []string{"CGO_ENABLED=0"},
		Args: []string{"go", "build", "-trimpath", "-ldflags=-s -w", "-o", init, "./e2e/harness/marker"},
	}); err != nil {
		return "", err
	}
	modules, err := k.moduleFiles("ipmi_si", "ipmi_devintf", "virtio_pci", "virtio_blk", "isofs")
	if err != nil {
		return "", err
	}
	records := []cpio.Record{
		cpio.Directory("dev", 0o755), cpio.Directory("proc", 0o755), cpio.Directory("sys", 0o755),
		cpio.Directory("etc", 0o755), cpio.Directory("modules", 0o755),
		// The kernel gives init its console before anything is mounted.
		cpio.CharDev("dev/console", 0o600, 5, 1),
	}
	b, err := os.ReadFile(init)
	if err != nil {
		return "", err
	}
	records = append(records, cpio.StaticFile("init", string(b), 0o755))
	var list []string
	for _, m := range modules {
		b, err := os.ReadFile(m)
		if err != nil {
			return "", err
		}
		name := path.Join("modules", filepath.Base(m))
		list = append(list, "/"+name)
		records = append(records, cpio.StaticFile(name, string(b), 0o644))
	}
	records = append(records, cpio.StaticFile("etc/modules", strings.Join(list, "\n"), 0o644))
	out := filepath.Join(l.Dir, "marker.img")
	return out, writeInitrd(out, records)
}

// writeInitrd writes a compressed newc archive with its trailer.
func writeInitrd(file string, records []cpio.Record) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	z := gzip.NewWriter(f)
	w := cpio.Newc.Writer(z)
	for _, r := range records {
		if err := w.WriteRecord(cpio.MakeReproducible(r)); err != nil {
			return err
		}
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return f.Close()
}
