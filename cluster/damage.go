package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/internal/errs"
)

// A data directory that is not as this peer left it stops the peer before it
// says a word to another one: a vote that was forgotten, or an entry that was
// acknowledged and is gone, can cost the cluster what it promised. Nothing is
// repaired or deleted here: the error names the file, the cause, and what to
// do. Each case is a row of docs/operating.md, "When a peer does not start".

// lostState is the error for damage of what Raft keeps. A backup of it must
// not be put back: it would not know its later votes.
func (d *dataDir) lostState(id *identity, name, what string) error {
	path := d.file(name)
	return errs.About(errs.Invalid, path,
		"%s %s: move %s away, run `ironring cluster remove %s` on another peer, and join again with a new token",
		path, what, d.path, id.ID)
}

// unusable is the error for what the host does not let this peer do in its
// data directory.
func unusable(path, what string, err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return errs.About(errs.Busy, path, "%s: the disk that holds %s is full (%s free): free space, then start again: %w", what, path, freeText(path), err)
	case errors.Is(err, unix.EROFS):
		return errs.About(errs.Denied, path, "%s: %s is on a file system that is mounted read-only: mount it writable (the kernel's log says if it did that itself), then start again: %w", what, path, err)
	case errors.Is(err, fs.ErrPermission):
		return errs.About(errs.Denied, path, "%s: this process runs as %s and may not write %s: run it as the owner, or give it the files with `chown -R`: %w", what, userName(uint32(os.Geteuid())), path, err)
	case errors.Is(err, unix.EIO):
		return errs.About(errs.Internal, path, "%s: the disk that holds %s fails, as the kernel's log says: move this peer to another disk: %w", what, path, err)
	}
	return errs.About(errs.Invalid, path, "%s: %w", what, err)
}

func freeText(path string) string {
	var st unix.Statfs_t
	for unix.Statfs(path, &st) != nil {
		up := filepath.Dir(path)
		if up == path {
			return "unknown"
		}
		path = up
	}
	return sizeText(st.Bavail * uint64(st.Bsize))
}

func userName(uid uint32) string {
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", uid)
}

// checkOwners refuses a data directory that others may change, parts of which
// others may read, or that belongs to somebody else: this process would leave
// files there that its owner cannot use, or follow what others put there.
func (d *dataDir) checkOwners() error {
	for _, c := range []struct {
		name    string
		foreign fs.FileMode // what nobody but the owner may have
		chmod   string
	}{
		{".", 0o022, "chmod 700"},
		{raftDir, 0o077, "chmod 700"},
		{filepath.Join(raftDir, "snapshots"), 0o022, "chmod 700"},
		{filepath.Join(raftDir, logFile), 0o077, "chmod 600"},
		{identityFile, 0o022, "chmod 600"},
		{caCertFile, 0o022, "chmod 600"},
		{certFile, 0o022, "chmod 600"},
		{caKeyFile, 0o077, "chmod 600"},
		{keyFile, 0o077, "chmod 600"},
		{keyringFile, 0o077, "chmod 600"},
		{gossipFile, 0o077, "chmod 600"},
		{sealKeyFile, 0o077, "chmod 600"},
	} {
		path := filepath.Clean(d.file(c.name))
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // whoever needs it says so
		}
		if err != nil {
			return unusable(path, "look at the data directory", err)
		}
		if mode := info.Mode().Perm(); mode&c.foreign != 0 {
			can := "changed"
			if mode&c.foreign&0o044 != 0 {
				can = "read"
			}
			return errs.About(errs.Invalid, path, "%s can be %s by others (mode %04o): run `%s %s`, and ask who could have done so meanwhile", path, can, mode, c.chmod, path)
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			if err := checkOwner(path, st.Uid); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkOwner(path string, uid uint32) error {
	if self := uint32(os.Geteuid()); uid != self {
		return errs.About(errs.Denied, path, "%s belongs to %s, but this process runs as %s: run it as %[2]s, or give it the whole directory with `chown -R`", path, userName(uid), userName(self))
	}
	return nil
}
