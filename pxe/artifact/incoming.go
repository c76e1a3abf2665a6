package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ironring/ironring/internal/errs"
)

// incoming is a file on its way into the store. One goroutine writes and then
// calls commit or abort; readers may follow it meanwhile.
type incoming struct {
	store *Store
	path  string
	keep  bool // what was written is of use after an abort
	want  checksum
	sum   hash.Hash // SHA-256
	other hash.Hash // of want's algorithm, nil when that is SHA-256
	old   int64     // bytes of an earlier try that it began with
	bound int64     // look at the disk once so much is written

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

func newIncoming(s *Store, f *os.File, want checksum, size int64) *incoming {
	in := &incoming{store: s, path: f.Name(), want: want, sum: sha256.New(), f: f, size: size, more: make(chan struct{})}
	if want.algo != "sha256" {
		in.other = want.hash()
	}
	return in
}

// receive begins a file, of which nothing is kept when it does not come in
// full.
func (s *Store) receive(want checksum, size int64) (*incoming, error) {
	if err := s.Room(size); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Join(s.dir, dirIncoming), "*")
	if err != nil {
		return nil, err
	}
	in := newIncoming(s, f, want, size)
	in.bound = boundEvery
	return in, nil
}

// resume begins a file, or goes on with what is there of it; size -1: not
// known yet. What is there is hashed first, because a crash of the host may
// have left anything in it; a file that is too long is begun anew. checked is
// how far that is.
func (s *Store) resume(want checksum, size int64, checked *atomic.Int64) (*incoming, error) {
	f, err := os.OpenFile(s.partial(want.hex), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	in := newIncoming(s, f, want, size)
	in.keep = true
	st, err := f.Stat()
	if err == nil {
		err = s.Room(size - st.Size()) // before all is read in vain
	}
	if err == nil {
		in.n, err = io.Copy(writerFunc(func(p []byte) (int, error) {
			checked.Add(int64(len(p)))
			return in.hashed(p)
		}), f)
	}
	if err == nil && size >= 0 && in.n > size {
		err = in.anew()
	}
	if err != nil {
		in.abort(err)
		return nil, err
	}
	in.old, in.bound = in.n, in.n+boundEvery
	return in, nil
}

// anew throws away what there is.
func (in *incoming) anew() error {
	in.n = 0
	in.sum.Reset()
	if in.other != nil {
		in.other.Reset()
	}
	if err := in.f.Truncate(0); err != nil {
		return err
	}
	_, err := in.f.Seek(0, io.SeekStart)
	return err
}

type writerFunc func(p []byte) (int, error)

func (w writerFunc) Write(p []byte) (int, error) { return w(p) }

// hashed takes bytes into the hashes.
func (in *incoming) hashed(p []byte) (int, error) {
	in.sum.Write(p)
	if in.other != nil {
		in.other.Write(p)
	}
	return len(p), nil
}

// announce says how many bytes the whole has, where that was not known.
func (in *incoming) announce(size int64) error {
	have, known := in.progress()
	switch {
	case size > MaxSize:
		return errs.New(errs.Invalid, "it has %d bytes, an artifact at most %d", size, int64(MaxSize))
	case known >= 0 && size != known:
		return errs.New(errs.Invalid, "it has %d bytes, not %d", size, known)
	case known >= 0:
		return nil
	}
	if err := in.store.Room(size - have); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.size = size
	in.wakeLocked()
	return nil
}

// sized waits until the size of the whole is known; -1 when that will not be.
func (in *incoming) sized(ctx context.Context) int64 {
	for {
		in.mu.Lock()
		size, state, more := in.size, in.state, in.more
		in.mu.Unlock()
		if size >= 0 || state != arriving {
			return size
		}
		select {
		case <-more:
		case <-ctx.Done():
			return -1
		}
	}
}

// Write implements io.Writer.
func (in *incoming) Write(p []byte) (int, error) {
	have, size := in.progress()
	if size < 0 {
		size = MaxSize
	}
	if have+int64(len(p)) > size {
		return 0, errs.New(errs.Invalid, "more than the %d bytes announced, or than an artifact may have", size)
	}
	if have+int64(len(p)) > in.bound {
		if err := in.store.Room(int64(len(p))); err != nil {
			return 0, err
		}
		in.bound = have + boundEvery
	}
	n, err := in.f.Write(p)
	_, _ = in.hashed(p[:n]) // hashes do not fail
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

// whole reports whether what was written has the checksum that it should have.
func (in *incoming) whole() bool {
	if in.other != nil {
		return hex.EncodeToString(in.other.Sum(nil)) == in.want.hex
	}
	return in.digest() == in.want.hex
}

// commit puts the file in its place when it is whole and has the checksum.
// After an error the file is gone: what is wrong is not gone on with. The
// error is Conflict when bytes of an earlier try may be what is wrong: another
// try is worth it.
func (in *incoming) commit() error {
	err := in.place()
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

func (in *incoming) place() error {
	have, size := in.progress()
	if size >= 0 && have != size {
		return errs.New(errs.Invalid, "%d bytes came, %d were announced", have, size)
	}
	digest := in.digest()
	if !in.whole() {
		got, kind := checksum{"sha256", digest}, errs.Invalid
		if in.other != nil {
			got = checksum{in.want.algo, hex.EncodeToString(in.other.Sum(nil))}
		}
		if in.old > 0 {
			kind = errs.Conflict
		}
		return errs.About(kind, "checksum", "the bytes have the checksum %s, not %s", got, in.want)
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
	st, serr := in.f.Stat()
	empty := serr == nil && st.Size() == 0
	_ = in.f.Close() // what it holds is hashed again before it is used
	if !in.keep || empty {
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
	ended <-chan struct{} // of the reader's context
}

// follow opens a reader, for as long as ctx lasts; the size must be known.
func (in *incoming) follow(ctx context.Context) (*follower, error) {
	if _, size := in.progress(); size < 0 {
		return nil, errs.New(errs.NotFound, "the size of the file is not known yet")
	}
	f, err := os.Open(in.path)
	if err != nil {
		return nil, err
	}
	return &follower{in: in, f: f, stall: followStall, ended: ctx.Done()}, nil
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
		case <-r.ended:
			return 0, context.Canceled
		case <-stalled.C:
			return 0, errs.New(errs.Timeout, "no byte of the file came for %s", r.stall)
		}
	}
}

// Close implements io.Closer.
func (r *follower) Close() error { return r.f.Close() }
