package media

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/netdata"
)

// Params are what is of one machine and one boot.
type Params struct {
	KernelLine string // words that GRUB takes as they are, see checkLine
	Network    []byte // the document of package netdata; nil: DHCP
}

// Image is a finished ISO. It belongs to one goroutine.
type Image struct {
	f     *os.File
	size  int64
	off   int64
	spots []spot
}

// spot is what stands at an offset instead of the template's bytes.
type spot struct {
	at    int64
	bytes []byte
}

// fill opens a template with the places filled in.
func (t *template) fill(p Params) (*Image, error) {
	config, err := configOf(p)
	if err != nil {
		return nil, err
	}
	node, err := nodeOf(p)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(t.path)
	if err != nil {
		return nil, err
	}
	return &Image{f: f, size: t.size, spots: []spot{{t.config, config}, {t.node, node}}}, nil
}

// checkLine refuses what GRUB would read in another way than the kernel.
func checkLine(line string) error {
	for _, c := range line {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.ContainsRune(" _.,:/=@+-[]", c):
		default:
			return errs.New(errs.Invalid, "the kernel line has the character %q, which a boot medium cannot carry", c)
		}
	}
	return nil
}

// configOf is what GRUB runs. Both initramfs are unpacked over each other.
func configOf(p Params) ([]byte, error) {
	if err := checkLine(p.KernelLine); err != nil {
		return nil, err
	}
	text := fmt.Sprintf("linux /%[1]s/%[2]s %[3]s\ninitrd /%[1]s/%[4]s /%[1]s/%[5]s\nboot\n", dirMedia, nameKernel, p.KernelLine, nameInitramfs, nameNode)
	if len(text) > configSize {
		return nil, errs.New(errs.Invalid, "the kernel line has %d bytes, which is too long for a boot medium", len(p.KernelLine))
	}
	return append([]byte(text), bytes.Repeat([]byte("\n"), configSize-len(text))...), nil
}

// nodeOf is the second initramfs: an archive with the network data, or with
// nothing. The kernel skips the zeros behind it.
func nodeOf(p Params) ([]byte, error) {
	var records []cpio.Record
	if len(p.Network) > 0 {
		name := strings.TrimPrefix(netdata.Path, "/")
		for _, d := range []string{path.Dir(path.Dir(name)), path.Dir(name)} {
			records = append(records, cpio.Directory(d, 0o755))
		}
		records = append(records, cpio.StaticRecord(p.Network, cpio.Info{Name: name, Mode: cpio.S_IFREG | 0o644}))
	}
	var b bytes.Buffer
	w := cpio.Newc.Writer(&b)
	if err := cpio.WriteRecords(w, records); err != nil {
		return nil, err
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return nil, err
	}
	if b.Len() > nodeSize {
		return nil, errs.New(errs.Invalid, "the network data of %d bytes is too long for a boot medium", len(p.Network))
	}
	return append(b.Bytes(), make([]byte, nodeSize-b.Len())...), nil
}

// Size is the length of the ISO in bytes.
func (im *Image) Size() int64 { return im.size }

// Seek implements io.Seeker.
func (im *Image) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += im.off
	case io.SeekEnd:
		offset += im.size
	}
	if offset < 0 {
		return 0, errors.New("before the beginning of the image")
	}
	im.off = offset
	return offset, nil
}

// Read implements io.Reader.
func (im *Image) Read(p []byte) (int, error) {
	n, err := im.f.ReadAt(p, im.off)
	for _, s := range im.spots {
		from, to := max(s.at, im.off), min(s.at+int64(len(s.bytes)), im.off+int64(n))
		if from < to {
			copy(p[from-im.off:to-im.off], s.bytes[from-s.at:to-s.at])
		}
	}
	im.off += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

// Close implements io.Closer.
func (im *Image) Close() error { return im.f.Close() }
