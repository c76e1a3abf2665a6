package artifact

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ironring/ironring/internal/errs"
)

// incoming is a file on its way into the store. One goroutine writes and then
// calls commit or abort; readers may follow it meanwhile.
type incoming struct {
	store *Store
	path  string
	keep  bool // what was written is of use after an abort
	sum   hash.Hash
	bound int64 // look at the disk once so much is written

	mu    sync.Mutex
	f     *os.File
	n     int64         // guarded by mu; bytes written
	size  int64         // guarded by mu; of the whole, -1: not known
	state incomingState // guarded by mu
	err   error         // guarded by mu; of a failed one
	more  chan struct{} // guarded by mu; closed and replaced when n or state changes
}

type incomingState int

const (
	arriving incomingState = iota
	arrived                // verified and in its place
	failed
)

// receive begins a file whose digest is not proven yet; size -1: not known.
func (s *Store) receive(size int64) (*incoming, error) {
	if err := s.room(size); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Join(s.dir, dirIncoming), "*")
	if err != nil {
		return nil, err
	}
	return &incoming{store: s, path: f.Name(), sum: sha256.New(), bound: boundEvery, f: f, size: size, more: make(chan struct{})}, nil
}

// resume begins a file of known digest and size, or goes on with what is
// there of it. What is there is hashed first, because a crash of the host may
// have left anything in it; a file that is too long is begun anew.
func (s *Store) resume(digest string, size int64) (*incoming, error) {
	f, err := os.OpenFile(s.partial(digest), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	in := &incoming{store: s, path: f.Name(), keep: true, sum: sha256.New(), f: f, size: size, more: make(chan struct{})}
	if in.n, err = io.Copy(in.sum, f); err == nil && in.n > size {
		in.n = 0
		in.sum.Reset()
		if err = f.Truncate(0); err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
	}
	if err == nil {
		err = s.room(size - in.n)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	in.bound = in.n + boundEvery
	return in, nil
}

// Write implements io.Writer.
func (in *incoming) Write(p []byte) (int, error) {
	have, size := in.progress()
	if size >= 0 && have+int64(len(p)) > size {
		return 0, errs.New(errs.Invalid, "more than the %d bytes announced", size)
	}
	if have+int64(len(p)) > in.bound {
		if err := in.store.room(int64(len(p))); err != nil {
			return 0, err
		}
		in.bound = have + boundEvery
	}
	n, err := in.f.Write(p)
	in.sum.Write(p[:n])
	in.mu.Lock()
	in.n += int64(n)
	in.wakeLocked()
	in.mu.Unlock()
	return n, err
}

func (in *incoming) wakeLocked() {
	close(in.more)
	in.more = make(chan struct{})
}

// progress is how many bytes are there, and of how many.
func (in *incoming) progress() (have, size int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.n, in.size
}

// digest is that of what was written so far.
func (in *incoming) digest() string { return hex.EncodeToString(in.sum.Sum(nil)) }

// commit puts the file in its place when it is whole and has the digest. After
// an error the file is gone: what is wrong is not gone on with.
func (in *incoming) commit(digest string) error {
	err := in.place(digest)
	if err != nil {
		in.keep = false
		in.abort(err)
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.state = arrived
	in.wakeLocked()
	return nil
}

func (in *incoming) place(digest string) error {
	have, size := in.progress()
	if size >= 0 && have != size {
		return errs.New(errs.Invalid, "%d bytes came, %d were announced", have, size)
	}
	if got := in.digest(); got != digest {
		return errs.New(errs.Invalid, "the bytes have the digest %s, not %s", got, digest)
	}
	if err := in.f.Sync(); err != nil {
		return fmt.Errorf("store artifact %s: %w", digest[:12], err)
	}
	to := in.store.path(digest)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if err := os.Rename(in.path, to); err != nil {
		return err
	}
	return errors.Join(syncDir(filepath.Dir(to)), syncDir(filepath.Dir(filepath.Dir(to))), in.f.Close())
}

// abort gives the file up. Readers get the error.
func (in *incoming) abort(err error) {
	in.mu.Lock()
	if in.state != arriving {
		in.mu.Unlock()
		return
	}
	in.state, in.err = failed, err
	in.wakeLocked()
	in.mu.Unlock()
	_ = in.f.Close() // what it holds is hashed again before it is used
	if !in.keep {
		_ = os.Remove(in.path) // at the latest the next start removes it
	}
}

// followStall is how long a reader waits for a byte that does not come.
const followStall = 30 * time.Second

// follower reads a file while it arrives. The last byte is held back until the
// file is verified. It belongs to one goroutine.
type follower struct {
	in    *incoming
	f     *os.File
	off   int64
	stall time.Duration
}

// follow opens a reader; the size must be known.
func (in *incoming) follow() (*follower, error) {
	in.mu.Lock()
	path := in.path
	in.mu.Unlock()
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &follower{in: in, f: f, stall: followStall}, nil
}

// Seek implements io.Seeker.
func (r *follower) Seek(offset int64, whence int) (int64, error) {
	_, size := r.in.progress()
	switch whence {
	case io.SeekCurrent:
		offset += r.off
	case io.SeekEnd:
		offset += size
	}
	if offset < 0 {
		return 0, errs.New(errs.Invalid, "before the beginning of the file")
	}
	r.off = offset
	return offset, nil
}

// Read implements io.Reader. It waits for bytes that have not come yet.
func (r *follower) Read(p []byte) (int, error) {
	stalled := time.NewTimer(r.stall)
	defer stalled.Stop()
	for {
		in := r.in
		in.mu.Lock()
		have, size, state, err, more := in.n, in.size, in.state, in.err, in.more
		in.mu.Unlock()
		if r.off >= size {
			return 0, io.EOF
		}
		if state == failed {
			return 0, err
		}
		if state == arriving {
			have = min(have, size-1)
		}
		if r.off < have {
			n, err := r.f.ReadAt(p[:min(int64(len(p)), have-r.off)], r.off)
			r.off += int64(n)
			if n > 0 {
				err = nil
			}
			return n, err
		}
		select {
		case <-more:
		case <-stalled.C:
			return 0, errs.New(errs.Timeout, "no byte of the file came for %s", r.stall)
		}
	}
}

// Close implements io.Closer.
func (r *follower) Close() error { return r.f.Close() }
