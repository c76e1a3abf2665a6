package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
)

// Folders of a store.
const (
	dirFiles      = "sha256"
	dirIncoming   = "incoming"
	dirPartial    = "partial"
	dirQuarantine = "quarantine"
)

// DefaultDiskPercent is how full a disk may get through artifacts.
const DefaultDiskPercent = 80

// boundEvery is how many bytes are written between two looks at the disk.
const boundEvery = 32 << 20

var validDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// validPartial is the names of files that are here in part: the checksum that
// is known of them, which for an image may be of SHA-512.
var validPartial = regexp.MustCompile(`^([0-9a-f]{64}|[0-9a-f]{128})$`)

// Store is the files of one peer. The caller makes sure that no other process
// uses the directory.
type Store struct {
	dir     string
	percent int
	usage   func(dir string) (used, total uint64, err error)
}

// OpenStore makes the folders and removes what an earlier process left half
// received. percent is how full the disk may get, 0: DefaultDiskPercent. usage
// tells how full it is, nil: as the file system says.
func OpenStore(dir string, percent int, usage func(string) (used, total uint64, err error)) (*Store, error) {
	if percent == 0 {
		percent = DefaultDiskPercent
	}
	if usage == nil {
		usage = statfs
	}
	s := &Store{dir: dir, percent: percent, usage: usage}
	if err := os.RemoveAll(filepath.Join(dir, dirIncoming)); err != nil {
		return nil, fmt.Errorf("artifacts: %w", err)
	}
	for _, d := range []string{dirFiles, dirIncoming, dirPartial, dirQuarantine} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("artifacts: %w", err)
		}
	}
	return s, syncDir(dir)
}

// statfs counts as df does: what is reserved for root is not there.
func statfs(dir string) (used, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	size := uint64(st.Bsize) //nolint:gosec // a block size is positive
	used = (st.Blocks - st.Bfree) * size
	return used, used + st.Bavail*size, nil
}

// Room refuses bytes that would fill the disk above the bound; errs.Busy.
func (s *Store) Room(bytes int64) error {
	used, total, err := s.usage(s.dir)
	if err != nil {
		return fmt.Errorf("look at the disk of %s: %w", s.dir, err)
	}
	most := total / 100 * uint64(s.percent)
	if need := uint64(max(bytes, 0)); used > most || need > most-used {
		return errs.New(errs.Busy, "the disk of this peer's artifacts would be used to more than %d %%: %d MiB of %d MiB are used and %d MiB are to come; remove artifacts or add space",
			s.percent, used>>20, total>>20, need>>20)
	}
	return nil
}

func (s *Store) path(digest string) string {
	return filepath.Join(s.dir, dirFiles, digest[:2], digest)
}

func (s *Store) partial(name string) string { return filepath.Join(s.dir, dirPartial, name) }

// Size is the size of a file that is here in full.
func (s *Store) Size(digest string) (size int64, ok bool) {
	if !validDigest.MatchString(digest) {
		return 0, false
	}
	st, err := os.Lstat(s.path(digest))
	if err != nil || !st.Mode().IsRegular() {
		return 0, false
	}
	return st.Size(), true
}

// Open opens a file that is here in full; errs.NotFound.
func (s *Store) Open(digest string) (*os.File, error) {
	if !validDigest.MatchString(digest) {
		return nil, errs.New(errs.NotFound, "no such artifact")
	}
	f, err := os.Open(s.path(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.About(errs.NotFound, digest, "artifact %s is not on this peer", digest[:12])
	}
	return f, err
}

// Digests are the files that are here in full, and the names of those that are
// in part.
func (s *Store) Digests() (full, partial []string, err error) {
	folders, err := os.ReadDir(filepath.Join(s.dir, dirFiles))
	if err != nil {
		return nil, nil, err
	}
	for _, d := range folders {
		if full, err = namesIn(filepath.Join(s.dir, dirFiles, d.Name()), validDigest, full); err != nil {
			return nil, nil, err
		}
	}
	partial, err = namesIn(filepath.Join(s.dir, dirPartial), validPartial, nil)
	return full, partial, err
}

func namesIn(dir string, valid *regexp.Regexp, out []string) ([]string, error) {
	list, err := os.ReadDir(dir)
	for _, e := range list {
		if e.Type().IsRegular() && valid.MatchString(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, err
}

// Remove deletes a file that is here in full.
func (s *Store) Remove(digest string) error {
	if !validDigest.MatchString(digest) {
		return errs.New(errs.NotFound, "no such artifact")
	}
	if err := os.Remove(s.path(digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(filepath.Dir(s.path(digest)))
}

// removePartial deletes what there is of a file in part.
func (s *Store) removePartial(name string) error {
	if err := os.Remove(s.partial(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil // one that comes back after a crash of the host is found again
}

// quarantine moves a damaged file away, where the last one of its digest is
// kept to be looked at.
func (s *Store) quarantine(digest string) error {
	to := filepath.Join(s.dir, dirQuarantine, digest)
	if err := os.Rename(s.path(digest), to); err != nil {
		return err
	}
	return errors.Join(syncDir(filepath.Dir(s.path(digest))), syncDir(filepath.Dir(to)))
}

// errDamaged is what Verify says of a file that is not what its name says.
var errDamaged = errors.New("damaged")

// Verify reads a file and compares its digest, bytesPerSecond fast, 0: as fast
// as it goes.
func (s *Store) Verify(ctx context.Context, digest string, bytesPerSecond int64) error {
	f, err := s.Open(digest)
	if err != nil {
		return err
	}
	defer f.Close()
	h, buf, start, n := sha256.New(), make([]byte, 256<<10), time.Now(), int64(0)
	for {
		k, err := f.Read(buf)
		h.Write(buf[:k])
		n += int64(k)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("artifact %s: %w: %w", digest[:12], errDamaged, err)
		}
		ahead := time.Duration(0)
		if bytesPerSecond > 0 {
			ahead = time.Duration(float64(n)/float64(bytesPerSecond)*float64(time.Second)) - time.Since(start)
		}
		if err := clock.Pause(ctx, ahead); err != nil {
			return err
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != digest {
		return fmt.Errorf("artifact %s: %w: its bytes have the digest %s", digest[:12], errDamaged, got[:12])
	}
	return nil
}

// syncDir makes the entries of a folder survive a crash of the host. A folder
// that is not there has no entries.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
