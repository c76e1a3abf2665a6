package agent

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"

	diskfsfile "github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"

	"github.com/ironring/ironring/internal/configdrive"
	"github.com/ironring/ironring/internal/errs"
)

// filesDigest names a set of files: an image of them is another one each time
// it is made, because it holds the time.
func filesDigest(files map[string][]byte) string {
	h := sha256.New()
	paths := make([]string, 0, len(files))
	for p := range files {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, p := range paths {
		for _, b := range [][]byte{[]byte(p), files[p]} {
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
			h.Write(b)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// isoPublisher is what an image of ours says of where it is from: the digest
// by which it is known again.
func isoPublisher(digest string) string { return "IRONRING " + strings.ToUpper(digest) }

// isoPVD is where the primary volume descriptor lies, and what is in it.
const (
	isoPVD          = 16 * 2048
	isoPublisherOff = 318
)

// publisherOf is the publisher of an image; b begins with its descriptor.
func publisherOf(b []byte) string {
	if len(b) < isoPublisherOff+128 || string(b[1:6]) != "CD001" {
		return ""
	}
	return strings.TrimRight(string(b[isoPublisherOff:isoPublisherOff+128]), " \x00")
}

// buildISO makes an ISO 9660 image with Rock Ridge names. dir is a directory
// for what is needed on the way, which may be secret; it is emptied again.
func buildISO(dir string, files map[string][]byte, digest string) (image []byte, err error) {
	dir, err = os.MkdirTemp(dir, "config-drive-")
	if err != nil {
		return nil, errs.New(errs.Internal, "config drive: %w", err)
	}
	defer func() {
		if rerr := os.RemoveAll(dir); rerr != nil && err == nil {
			image, err = nil, errs.New(errs.Internal, "config drive: %w", rerr)
		}
	}()
	// The bytes are ours, the library is not.
	defer func() {
		if r := recover(); r != nil {
			image, err = nil, errs.New(errs.Internal, "config drive: %v", r)
		}
	}()
	tree := filepath.Join(dir, "tree")
	size := int64(1 << 20)
	for name, content := range files {
		path := filepath.Join(tree, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, errs.New(errs.Internal, "config drive: %w", err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return nil, errs.New(errs.Internal, "config drive: %w", err)
		}
		size += int64(len(content)) + 4096
	}
	b, err := diskfsfile.CreateFromPath(filepath.Join(dir, "iso"), size)
	if err != nil {
		return nil, errs.New(errs.Internal, "config drive: %w", err)
	}
	defer b.Close()
	fs, err := iso9660.Create(b, size, 0, 2048, tree)
	if err == nil {
		err = fs.Finalize(iso9660.FinalizeOptions{RockRidge: true, VolumeIdentifier: configdrive.Label, PublisherIdentifier: isoPublisher(digest)})
	}
	if err != nil {
		return nil, errs.New(errs.Internal, "config drive: %w", err)
	}
	if image, err = os.ReadFile(filepath.Join(dir, "iso")); err != nil {
		return nil, errs.New(errs.Internal, "config drive: %w", err)
	}
	// The file is as large as it was made; the volume says how much it needs.
	if n := int64(binary.LittleEndian.Uint32(image[isoPVD+80:])) * 2048; n > isoPVD && n < int64(len(image)) {
		image = image[:n]
	}
	// The library ends texts with zeroes where the standard has spaces.
	for _, field := range [][]byte{image[isoPVD+8 : isoPVD+72], image[isoPVD+190 : isoPVD+813]} {
		for i, c := range field {
			if c == 0 {
				field[i] = ' '
			}
		}
	}
	if configdrive.VolumeLabel(image) != configdrive.Label || publisherOf(image[isoPVD:]) != isoPublisher(digest) {
		return nil, errs.New(errs.Internal, "config drive: the image was not made as it should be")
	}
	return image, nil
}
