package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/internal/errs"
)

// Names in the data directory. Everything is mode 0600, directories 0700.
const (
	lockFile     = "lock"          // flock of the running process; says who it is
	identityFile = "identity.json" // written last: without it there is no peer yet
	caCertFile   = "ca.crt"        // DER
	caKeyFile    = "ca.key"        // PKCS 8
	certFile     = "peer.crt"      // DER
	keyFile      = "peer.key"      // PKCS 8
	keyringFile  = "keyring"       // package seal
	gossipFile   = "gossip.key"    // 32 bytes
	sealKeyFile  = "seal.key"      // package seal: what new keys are sealed to
	raftDir      = "raft"
	logFile      = "raft.db" // in raftDir
)

// dataDir is a locked data directory.
type dataDir struct {
	path string
	lock *os.File
}

// openDataDir makes the directory if need be and takes its lock.
func openDataDir(path string) (*dataDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, errs.New(errs.Invalid, "data directory: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, unusable(path, "make the data directory", err)
	}
	f, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unusable(path, "lock the data directory", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		who, _ := os.ReadFile(f.Name())
		f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errs.New(errs.Internal, "lock data directory %s: %w", path, err)
		}
		return nil, errs.About(errs.Exists, path, "data directory %s is in use by %s", path, orElse(strings.TrimSpace(string(who)), "another process"))
	}
	d := &dataDir{path: path, lock: f}
	host, _ := os.Hostname()
	who := fmt.Sprintf("process %d on %s since %s\n", os.Getpid(), host, time.Now().UTC().Format(time.RFC3339))
	if err := errors.Join(f.Truncate(0), writeAt0(f, who)); err != nil {
		d.close()
		return nil, unusable(path, "write "+f.Name(), err)
	}
	if err := d.checkOwners(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func writeAt0(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// close gives the lock back; the file stays, or two processes could each lock
// a file of that name.
func (d *dataDir) close() error { return d.lock.Close() }

func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

// has reports whether a file is there.
func (d *dataDir) has(name string) bool {
	_, err := os.Lstat(d.file(name))
	return err == nil
}

// read reads a file that must be there and be nobody else's to read.
func (d *dataDir) read(name string) ([]byte, error) {
	path := d.file(name)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, d.damaged(name, "is missing")
	}
	if err != nil {
		return nil, errs.New(errs.Internal, "read data directory: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, errs.About(errs.Invalid, path, "%s can be read by others (mode %04o): run chmod 600 %s", path, info.Mode().Perm(), path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, errs.New(errs.Internal, "read data directory: %w", err)
	}
	if len(b) == 0 {
		return nil, d.damaged(name, "is empty")
	}
	return b, nil
}

// damaged names the file and says what to do.
func (d *dataDir) damaged(name, what string) error {
	path := d.file(name)
	return errs.About(errs.Invalid, path,
		"%s %s: restore it from a backup, or remove this member from the cluster, empty %s and join again with a new token", path, what, d.path)
}

// write replaces a file so that a crash leaves the old or the new one.
func (d *dataDir) write(name string, data []byte) (err error) {
	tmp, err := os.OpenFile(d.file(name+".new"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return unusable(d.path, "write the data directory", err)
	}
	_, werr := tmp.Write(data)
	if err := errors.Join(werr, tmp.Sync(), tmp.Close()); err != nil {
		return unusable(d.path, "write the data directory", err)
	}
	if err := os.Rename(tmp.Name(), d.file(name)); err != nil {
		return unusable(d.path, "write the data directory", err)
	}
	return d.sync()
}

func (d *dataDir) sync() error {
	dir, err := os.Open(d.path)
	if err != nil {
		return errs.New(errs.Internal, "sync data directory: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return errs.New(errs.Internal, "sync data directory: %w", err)
	}
	return nil
}

// identity is identity.json: who this peer is, and how far it came.
type identity struct {
	ID        string          `json:"id"`
	ClusterID string          `json:"cluster_id"`
	Founder   bool            `json:"founder,omitempty"`    // made the cluster
	Settings  json.RawMessage `json:"settings,omitempty"`   // of the new cluster, until Bootstrap is committed
	Seeds     []seed          `json:"seeds,omitempty"`      // members at the time of joining
	RaftMade  bool            `json:"raft_made,omitempty"`  // the Raft store exists and must not vanish
	Left      bool            `json:"left,omitempty"`       // left or was removed: never to start again
	RemovedMs int64           `json:"removed_ms,omitempty"` // it was removed then
}

// seed is a member that a joiner was told of.
type seed struct {
	ID      string `json:"id"`
	Cluster string `json:"cluster"`
	Gossip  string `json:"gossip"`
}

func (d *dataDir) readIdentity() (*identity, error) {
	b, err := d.read(identityFile)
	if err != nil {
		return nil, err
	}
	var id identity
	if err := json.Unmarshal(b, &id); err != nil || !validID.MatchString(id.ID) || id.ClusterID == "" {
		return nil, d.damaged(identityFile, "is damaged")
	}
	return &id, nil
}

func (d *dataDir) writeIdentity(id *identity) error {
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return errs.New(errs.Internal, "encode identity: %w", err)
	}
	return d.write(identityFile, append(b, '\n'))
}
