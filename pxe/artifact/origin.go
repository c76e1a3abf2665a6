package artifact

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"strings"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/fetch"
)

// checksum is a parsed "sha256:HEX" or "sha512:HEX".
type checksum struct {
	algo string
	hex  string
}

func (c checksum) String() string { return c.algo + ":" + c.hex }

func parseChecksum(s string) (checksum, error) {
	algo, sum, _ := strings.Cut(s, ":")
	want := map[string]int{"sha256": sha256.Size, "sha512": sha512.Size}[algo]
	if b, err := hex.DecodeString(sum); want == 0 || err != nil || len(b) != want || strings.ToLower(sum) != sum {
		return checksum{}, errs.About(errs.Invalid, "checksum", "checksum %.160q is neither sha256: nor sha512: with lower-case hex digits", s)
	}
	return checksum{algo, sum}, nil
}

func (c checksum) hash() hash.Hash {
	if c.algo == "sha512" {
		return sha512.New()
	}
	return sha256.New()
}

// fromOrigin gets what is missing of a file from where it comes from. What it
// returns is the last word: package fetch has tried again where that may help.
func (k *Keeper) fromOrigin(ctx context.Context, in *incoming, urls []string) error {
	have, _ := in.progress()
	src, err := fetch.Open(ctx, fetch.Config{URLs: urls, Offset: have, Transport: k.cfg.Origin, Logger: k.log})
	if err == nil {
		err = errors.Join(receiveFrom(in, src), src.Close())
	}
	if errors.Is(err, errs.Conflict) {
		in.keep = false // the origin has another file now: the beginning is of no use
	}
	return err
}

func receiveFrom(in *incoming, src *fetch.Stream) error {
	if size := src.Size(); size >= 0 {
		if err := in.announce(size); err != nil {
			return errs.New(errs.KindOf(err), "%s: %w", src.Source(), err)
		}
	}
	_, err := io.CopyBuffer(in, src, make([]byte, chunk))
	return err
}
