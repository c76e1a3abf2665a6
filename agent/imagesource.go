package agent

import (
	"compress/gzip"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/ironring/ironring/internal/errs"
)

// zstdWindow bounds the memory of the decoder; it is what `zstd --long` needs
// at most without the reader's consent.
const zstdWindow = 128 << 20

// checksum is "sha256:HEX" or "sha512:HEX", taken apart.
type checksum struct {
	algo string
	want string
	hash hash.Hash
}

func parseChecksum(s string) (*checksum, error) {
	algo, want, _ := strings.Cut(s, ":")
	c := &checksum{algo: strings.ToLower(algo), want: strings.ToLower(want)}
	switch c.algo {
	case "sha256":
		c.hash = sha256.New()
	case "sha512":
		c.hash = sha512.New()
	default:
		return nil, errs.New(errs.Invalid, "checksum %.80q is neither sha256:HEX nor sha512:HEX", s)
	}
	if b, err := hex.DecodeString(c.want); err != nil || len(b) != c.hash.Size() {
		return nil, errs.New(errs.Invalid, "checksum %.80q is not %d hex digits of %s", s, 2*c.hash.Size(), c.algo)
	}
	return c, nil
}

// got is the digest of what went through, in the form of the argument.
func (c *checksum) got() string { return c.algo + ":" + hex.EncodeToString(c.hash.Sum(nil)) }

func (c *checksum) ok() bool { return c.got() == c.algo+":"+c.want }

// checkCompress refuses what decompress does not know.
func checkCompress(kind string) error {
	switch kind {
	case "", "gzip", "zstd":
		return nil
	}
	return errs.New(errs.Unsupported, "compression %q is not supported: gzip and zstd are", kind)
}

// decompress gives the bytes for the disk out of the bytes as served. close
// frees the decoder.
func decompress(r io.Reader, kind string) (out io.Reader, close func(), err error) {
	switch kind {
	case "":
		return r, func() {}, nil
	case "gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, nil, fmt.Errorf("not a gzip file: %w", err)
		}
		return z, func() { z.Close() }, nil
	case "zstd":
		// One at a time: no goroutines, one window of memory.
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return nil, nil, fmt.Errorf("zstd: %w", err)
		}
		return z, z.Close, nil
	}
	return nil, nil, checkCompress(kind)
}
