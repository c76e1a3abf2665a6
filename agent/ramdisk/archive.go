package ramdisk

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"github.com/ironring/ironring/internal/errs"
)

// archive is a cpio archive in the making. Records are in the order of adding,
// with directories before what is in them; inodes count up, all else that
// could differ between two builds is zero.
type archive struct {
	records []cpio.Record
	seen    map[string]bool
}

func (a *archive) add(r cpio.Record) {
	if a.seen == nil {
		a.seen = map[string]bool{}
	}
	if a.seen[r.Name] {
		return
	}
	a.seen[r.Name] = true
	r.Ino = uint64(len(a.records) + 1)
	r.NLink = 1
	a.records = append(a.records, r)
}

// dir adds a directory and those above it.
func (a *archive) dir(name string) {
	name = strings.Trim(path.Clean("/"+name), "/")
	if name == "" || name == "." {
		return
	}
	a.dir(path.Dir(name))
	a.add(cpio.Directory(name, 0o755))
}

func (a *archive) file(name string, perm uint64, content []byte) {
	name = strings.Trim(path.Clean("/"+name), "/")
	a.dir(path.Dir(name))
	a.add(cpio.StaticRecord(content, cpio.Info{Name: name, Mode: cpio.S_IFREG | perm}))
}

// skeleton adds what must be there before /init has mounted anything. The
// kernel opens the console for /init by its name.
func (a *archive) skeleton() {
	for _, d := range []string{"dev", "proc", "sys", "run", "tmp", "etc"} {
		a.dir(d)
	}
	a.add(cpio.CharDev("dev/console", 0o600, 5, 1))
	a.add(cpio.CharDev("dev/null", 0o666, 1, 3))
}

// pack gives the archive's bytes, padded so that another may follow.
func (a *archive) pack(kind string) ([]byte, error) {
	var b bytes.Buffer
	w := cpio.Newc.Writer(&b)
	if err := cpio.WriteRecords(w, a.records); err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	for b.Len()%512 != 0 {
		b.WriteByte(0)
	}
	return compress(kind, b.Bytes())
}

// compress packs b; "" leaves it as it is.
func compress(kind string, b []byte) ([]byte, error) {
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch kind {
	case "":
		return b, nil
	case "gzip":
		w, err = gzip.NewWriterLevel(&out, gzip.BestCompression)
	case "zstd":
		// The kernel takes windows of up to 8 MiB. One goroutine: with more
		// the result could depend on the machine.
		w, err = zstd.NewWriter(&out, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithWindowSize(8<<20), zstd.WithEncoderConcurrency(1))
	default:
		return nil, errs.New(errs.Invalid, "compression %q: zstd and gzip are known", kind)
	}
	if err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if _, err := w.Write(b); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return out.Bytes(), nil
}
