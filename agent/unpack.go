package agent

import (
	"bytes"
	"io"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"

	"github.com/ironring/ironring/agent/qcow2"
)

// unpackWindow bounds the memory of a decoder of single clusters, which have
// 2 MiB at most.
const unpackWindow = 8 << 20

// unpacker decompresses clusters, one after another. It belongs to one
// goroutine.
type unpacker struct {
	kind qcow2.Compression
	out  []byte // one cluster
	zstd *zstd.Decoder
	defl io.ReadCloser
}

// cluster gives one cluster, until it is called again. What stands behind the
// compressed data does not count.
func (u *unpacker) cluster(p []byte) ([]byte, error) {
	in := bytes.NewReader(p)
	var r io.Reader
	switch {
	case u.kind == qcow2.Zstd:
		if u.zstd == nil {
			var err error
			if u.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(unpackWindow)); err != nil {
				return nil, err
			}
		}
		if err := u.zstd.Reset(in); err != nil {
			return nil, err
		}
		r = u.zstd
	case u.defl == nil:
		u.defl = flate.NewReader(in)
		r = u.defl
	default:
		if err := u.defl.(flate.Resetter).Reset(in, nil); err != nil {
			return nil, err
		}
		r = u.defl
	}
	_, err := io.ReadFull(r, u.out)
	return u.out, unexpected(err)
}

func (u *unpacker) close() {
	if u.zstd != nil {
		u.zstd.Close()
	}
	if u.defl != nil {
		_ = u.defl.Close() // of memory: nothing can fail
	}
}
