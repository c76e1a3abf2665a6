package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/errs"
)

// used makes a data directory of a peer that worked: two snapshots, and
// entries after them. With few trailing entries the log begins after the older
// snapshot; with many it has everything.
func used(t *testing.T, trailing uint64) string {
	t.Helper()
	c := alone(t, func(cfg *Config) { cfg.SnapshotThreshold, cfg.TrailingLogs = 1<<20, trailing })
	stop, result := running(t, c)
	propose := func(n int) {
		for range n {
			id := uuid.NewString()
			if _, err := c.Propose(t.Context(), &api.Command{
				Meta: &api.Meta{Principal: "test", Reason: "test", RequestId: id},
				Ops: []*api.Op{{Op: &api.Op_NodeCreate{NodeCreate: &api.NodeCreate{Node: &api.Node{
					Id: id, Name: "n-" + id, Driver: "fake", DriverInfo: []byte("{}"), Description: strings.Repeat("x", 2000),
				}}}}},
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	propose(5)
	for range 2 {
		if err := c.Snapshot(); err != nil {
			t.Fatal(err)
		}
		propose(5)
	}
	stop()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	return c.cfg.DataDir
}

// again is a copy of a data directory.
func again(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	}); err != nil {
		t.Fatal(err)
	}
	return to
}

// contents are the digests of all files that a peer may not touch when it
// refuses to start.
func contents(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == lockFile {
			return err
		}
		b, err := os.ReadFile(path)
		fmt.Fprintf(h, "%s %d %x\n", path, len(b), sha256.Sum256(b))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// try starts a peer as far as Open goes.
func try(dir string, change func(*Config)) error {
	cfg := Config{DataDir: dir, Raft: RaftTimeouts{Heartbeat: 100 * time.Millisecond}}
	if change != nil {
		change(&cfg)
	}
	c, err := Open(context.Background(), cfg)
	if err != nil {
		return err
	}
	return c.Close()
}

// works starts a peer and checks that it serves, with all of its nodes.
func works(t *testing.T, dir string, nodes int) {
	t.Helper()
	c, err := Open(context.Background(), Config{DataDir: dir, Raft: RaftTimeouts{Heartbeat: 100 * time.Millisecond}, PromoteAfter: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	stop, result := running(t, c)
	if n := c.Store().View().NodeCount(); n != nodes {
		t.Errorf("%d nodes, want %d", n, nodes)
	}
	stop()
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// database changes the log as bbolt would, without its checksums.
func database(t *testing.T, dir string, change func(logs, conf *bbolt.Bucket) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, raftDir, logFile), 0o600, &bbolt.Options{NoFreelistSync: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(func(tx *bbolt.Tx) error {
		return change(tx.Bucket([]byte("logs")), tx.Bucket([]byte("conf")))
	}), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// snapshotDirs are the snapshots, oldest first.
func snapshotDirs(t *testing.T, dir string) []string {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(dir, snapshotsDir, "*-*-*"))
	if err != nil || len(dirs) != 2 {
		t.Fatalf("%d snapshots, %v", len(dirs), err)
	}
	a, _ := snapshotIndex(filepath.Base(dirs[0]))
	if b, _ := snapshotIndex(filepath.Base(dirs[1])); a > b {
		dirs[0], dirs[1] = dirs[1], dirs[0]
	}
	return dirs
}

// rewrite replaces a snapshot's content together with its checksum.
func rewrite(t *testing.T, snapshot string, change func([]byte) []byte) {
	t.Helper()
	var sum []byte
	edit(t, filepath.Join(snapshot, "state.bin"), func(b []byte) []byte {
		b = change(b)
		sum = binary.BigEndian.AppendUint64(nil, crc64.Checksum(b, crc64.MakeTable(crc64.ECMA)))
		return b
	})
	edit(t, filepath.Join(snapshot, "meta.json"), func(b []byte) []byte {
		var m map[string]any
		if err := json.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		m["CRC"] = sum
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	})
}

func half(b []byte) []byte  { return b[:len(b)/2] }
func none([]byte) []byte    { return nil }
func flip(b []byte) []byte  { b = bytes.Clone(b); b[len(b)/2] ^= 0x10; return b }
func noise(b []byte) []byte { return bytes.Repeat([]byte("noise"), len(b)/5+1) }

// A damaged data directory stops the peer with one line that names the file,
// the cause and the way out; nothing in it is changed.
func TestDamagedDataDirectory(t *testing.T) {
	t.Parallel()
	short, other := used(t, 1), used(t, 1)
	raftDB := filepath.Join(raftDir, logFile)
	bytesOf := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(other, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	file := func(name string, change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) { edit(t, filepath.Join(dir, name), change) }
	}
	foreign := func(names ...string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			for _, n := range names {
				file(n, func([]byte) []byte { return bytesOf(n) })(t, dir)
			}
		}
	}
	gone := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	newest := func(name string, change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) { edit(t, filepath.Join(snapshotDirs(t, dir)[1], name), change) }
	}
	type damage struct {
		do   func(t *testing.T, dir string)
		kind errs.Kind
		file string // named in the error
		says string
	}
	cases := map[string]damage{
		"log truncated":    {file(raftDB, half), errs.Invalid, raftDB, "truncated"},
		"log empty":        {file(raftDB, none), errs.Invalid, raftDB, "is empty"},
		"log missing":      {gone(raftDB), errs.Invalid, raftDB, "is missing"},
		"log noise":        {file(raftDB, noise), errs.Invalid, raftDB, "meta page"},
		"log of another":   {foreign(raftDB), errs.Invalid, raftDB, "belongs to member p1 of cluster"},
		"log zeroed pages": {file(raftDB, func(b []byte) []byte { clear(b[2*os.Getpagesize():]); return b }), errs.Invalid, raftDB, "page"},
		"log flipped meta": {file(raftDB, func(b []byte) []byte { b[os.Getpagesize()+60] ^= 1; return b }), errs.Invalid, raftDB, "meta page 1"},
		"log entry": {func(t *testing.T, dir string) {
			file(raftDB, func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("xxxx"), []byte("xxyx")) })(t, dir)
		}, errs.Invalid, raftDB, "wrong checksum"},
		"log entry lost": {func(t *testing.T, dir string) {
			database(t, dir, func(logs, _ *bbolt.Bucket) error {
				last, _ := logs.Cursor().Last()
				return logs.Delete(binary.BigEndian.AppendUint64(nil, binary.BigEndian.Uint64(last)-1))
			})
		}, errs.Invalid, raftDB, "is missing"},
		"vote": {func(t *testing.T, dir string) {
			database(t, dir, func(_, conf *bbolt.Bucket) error {
				v := bytes.Clone(conf.Get([]byte("LastVoteCand")))
				v[0] ^= 1
				return conf.Put([]byte("LastVoteCand"), v)
			})
		}, errs.Invalid, raftDB, "LastVoteCand has a wrong checksum"},
		"term lost": {func(t *testing.T, dir string) {
			database(t, dir, func(_, conf *bbolt.Bucket) error { return conf.Delete([]byte("CurrentTerm")) })
		}, errs.Invalid, raftDB, "no term"},
		"strange key": {func(t *testing.T, dir string) {
			database(t, dir, func(_, conf *bbolt.Bucket) error { return conf.Put([]byte("CurrenuTerm"), []byte("12345678")) })
		}, errs.Invalid, raftDB, "CurrenuTerm"},
		"owner lost": {func(t *testing.T, dir string) {
			database(t, dir, func(_, conf *bbolt.Bucket) error { return conf.Delete(ownerKey) })
		}, errs.Invalid, raftDB, "whose it is"},

		"snapshot truncated":           {newest("state.bin", half), errs.Invalid, snapshotsDir, "the log does not have"},
		"snapshot flipped":             {newest("state.bin", flip), errs.Invalid, snapshotsDir, "the log does not have"},
		"snapshot without description": {newest("meta.json", none), errs.Invalid, snapshotsDir, "meta.json"},
		"snapshot newer": {func(t *testing.T, dir string) {
			rewrite(t, snapshotDirs(t, dir)[1], func(b []byte) []byte { b[11]++; return b })
		}, errs.Unsupported, snapshotsDir, "newer version of ironring"},
		"snapshot of another": {func(t *testing.T, dir string) {
			theirs, err := os.ReadFile(filepath.Join(snapshotDirs(t, other)[1], "state.bin"))
			if err != nil {
				t.Fatal(err)
			}
			rewrite(t, snapshotDirs(t, dir)[1], func([]byte) []byte { return theirs })
		}, errs.Invalid, snapshotsDir, "belongs to cluster"},
		"snapshots gone": {func(t *testing.T, dir string) {
			for _, s := range snapshotDirs(t, dir) {
				gone(strings.TrimPrefix(s, dir))(t, dir)
			}
		}, errs.Invalid, snapshotsDir, "has no snapshot of entries 1 to"},

		"certificate of another": {foreign(certFile), errs.Invalid, certFile, "not signed by this cluster's CA"},
		"CA of another":          {foreign(caCertFile, caKeyFile), errs.Invalid, caCertFile, "belongs to cluster"},
		"CA key of another":      {foreign(caKeyFile), errs.Invalid, "ca.crt or ca.key", "does not belong"},
		"key of another":         {foreign(keyFile), errs.Invalid, "peer.crt or peer.key", "does not belong"},
		"identity of another":    {foreign(identityFile), errs.Invalid, caCertFile, "belongs to cluster"},
		"identity missing":       {gone(identityFile), errs.Invalid, identityFile, "is missing although there is a log"},
	}
	for _, name := range []string{identityFile, caCertFile, caKeyFile, certFile, keyFile, keyringFile, gossipFile, sealKeyFile} {
		named := name
		switch name {
		case caCertFile, caKeyFile:
			named = "ca.crt or ca.key"
		case certFile, keyFile:
			named = "peer.crt or peer.key"
		}
		cases[name+" truncated"] = damage{file(name, half), errs.Invalid, named, "is damaged"}
		cases[name+" empty"] = damage{file(name, none), errs.Invalid, name, "is empty"}
		if name != identityFile {
			cases[name+" missing"] = damage{gone(name), errs.Invalid, name, "is missing"}
		}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := again(t, short)
			c.do(t, dir)
			before := contents(t, dir)
			err := try(dir, nil)
			if !errors.Is(err, c.kind) {
				t.Fatalf("%v, want %v", err, c.kind)
			}
			text := err.Error()
			for _, part := range []string{filepath.Join(dir, c.file), c.says} {
				if !strings.Contains(text, part) {
					t.Errorf("%q does not say %q", text, part)
				}
			}
			if c.kind == errs.Invalid && !strings.Contains(text, "join again with a new token") || strings.Contains(text, "\n") {
				t.Errorf("no way out in one line: %q", text)
			}
			if contents(t, dir) != before {
				t.Error("the data directory was changed")
			}
		})
	}
	works(t, again(t, short), 15) // and without damage it starts
}

// A damaged snapshot does no harm while an older one and the log have all that
// it had.
func TestDamagedSnapshotThatIsNotNeeded(t *testing.T) {
	t.Parallel()
	long := used(t, 1000)
	for name, damage := range map[string]func(t *testing.T, dir string){
		"newest":      func(t *testing.T, dir string) { edit(t, filepath.Join(snapshotDirs(t, dir)[1], "state.bin"), half) },
		"description": func(t *testing.T, dir string) { edit(t, filepath.Join(snapshotDirs(t, dir)[1], "meta.json"), none) },
		"oldest":      func(t *testing.T, dir string) { edit(t, filepath.Join(snapshotDirs(t, dir)[0], "state.bin"), half) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := again(t, long)
			damage(t, dir)
			works(t, dir, 15)
		})
	}
	t.Run("all", func(t *testing.T) {
		dir := again(t, long)
		for _, s := range snapshotDirs(t, dir) {
			edit(t, filepath.Join(s, "state.bin"), half)
		}
		if err := try(dir, nil); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), snapshotsDir) {
			t.Error(err)
		}
	})
}

// Directories and files that others may use are refused with the command that
// puts them right; nothing is repaired behind the operator's back.
func TestModesAndOwners(t *testing.T) {
	t.Parallel()
	c := alone(t, nil)
	base := c.cfg.DataDir
	c.Close()
	for name, mode := range map[string]fs.FileMode{
		".": 0o777, caKeyFile: 0o644, keyFile: 0o640, keyringFile: 0o604, gossipFile: 0o666, sealKeyFile: 0o660,
		certFile: 0o666, identityFile: 0o622, raftDir: 0o755, filepath.Join(raftDir, logFile): 0o644, snapshotsDir: 0o777,
	} {
		dir := again(t, base)
		path := filepath.Clean(filepath.Join(dir, name))
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		err := try(dir, nil)
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "run `chmod ") || !strings.Contains(err.Error(), " "+path+"`") {
			t.Errorf("%s %v: %v", name, mode, err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s was changed: %v %v", name, info.Mode(), err)
		}
	}
	if err := checkOwner("/x", uint32(os.Geteuid())); err != nil {
		t.Error(err)
	}
	if err := checkOwner("/x", 4242); !errors.Is(err, errs.Denied) || !strings.Contains(err.Error(), "/x belongs to uid 4242, but this process runs as ") ||
		!strings.Contains(err.Error(), "run it as uid 4242") {
		t.Error(err)
	}
}

// A data directory in which somebody else's file stands is refused: root gives
// some away, others take one of root's, by a link.
func TestForeignFile(t *testing.T) {
	t.Parallel()
	c := alone(t, nil)
	base := c.cfg.DataDir
	c.Close()
	for _, name := range []string{identityFile, keyringFile, filepath.Join(raftDir, logFile), "."} {
		dir := again(t, base)
		path := filepath.Clean(filepath.Join(dir, name))
		owner := "uid 4242"
		switch {
		case os.Geteuid() == 0:
			if err := os.Chown(path, 4242, -1); err != nil {
				t.Fatal(err)
			}
		case name != identityFile:
			continue // root's files that others may read do not do for these
		default:
			owner = "root"
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("/etc/passwd", path); err != nil {
				t.Fatal(err)
			}
		}
		err := try(dir, nil)
		if !errors.Is(err, errs.Denied) || !strings.Contains(err.Error(), path+" belongs to "+owner+", but this process runs as ") || !strings.Contains(err.Error(), "chown -R") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What the host does not allow is not called damage.
func TestUnusable(t *testing.T) {
	t.Parallel()
	for cause, want := range map[error]struct {
		kind errs.Kind
		says string
	}{
		unix.ENOSPC: {errs.Busy, "is full"},
		unix.EDQUOT: {errs.Busy, "free space"},
		unix.EROFS:  {errs.Denied, "mounted read-only"},
		unix.EACCES: {errs.Denied, "chown -R"},
		unix.EPERM:  {errs.Denied, "may not write"},
		unix.EIO:    {errs.Internal, "kernel's log"},
		unix.EISDIR: {errs.Invalid, "is a directory"},
	} {
		err := unusable("/no/such/dir", "open the log", &fs.PathError{Op: "open", Path: "/no/such/dir/x", Err: cause})
		if !errors.Is(err, want.kind) || !errors.Is(err, cause) || !strings.Contains(err.Error(), want.says) || !strings.Contains(err.Error(), "/no/such/dir") {
			t.Errorf("%v: %v", cause, err)
		}
	}
}

// The wall clock is years off: it is said, and what a wrong clock made is
// replaced when the clock is right.
func TestClockYearsOff(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	c := alone(t, nil)
	dir := c.cfg.DataDir
	c.Close()
	for _, off := range []time.Duration{-20 * year, 40 * year} {
		err := try(dir, func(c *Config) { c.Clock = later{by: off} })
		if !errors.Is(err, errs.WrongState) || !strings.Contains(err.Error(), "set the clock, then start again") ||
			!strings.Contains(err.Error(), time.Now().Add(off).UTC().Format("2006-01-02")) {
			t.Errorf("%v off: %v", off, err)
		}
	}
	var log bytes.Buffer
	at := func(off time.Duration) (notBefore time.Time) {
		log.Reset()
		c, err := Open(context.Background(), Config{DataDir: dir, Clock: later{by: off}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.TLS().Leaf().NotBefore
	}
	if made := at(10 * year); made.Before(time.Now()) || !strings.Contains(log.String(), "certificate has ended") {
		t.Errorf("10 years ahead: %v, %s", made, log.String())
	}
	if made := at(0); made.After(time.Now()) || !strings.Contains(log.String(), "begins in the future") {
		t.Errorf("and back: %v, %s", made, log.String())
	}
	if at(0); log.Len() > 0 {
		t.Errorf("without reason: %s", log.String())
	}
}

// Entries and values come back as they were stored, and only so.
func TestCheckedStore(t *testing.T) {
	t.Parallel()
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(t.TempDir(), "db"), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer bolt.Close()
	s := checkedStore{bolt}
	entries := []*raft.Log{{Index: 1, Term: 1, Data: []byte("a")}, {Index: 2, Term: 1, Type: raft.LogNoop}, {Index: 3, Term: 2, Data: []byte("c"), Extensions: []byte("ext")}}
	if err := s.StoreLogs(entries); err != nil {
		t.Fatal(err)
	}
	if entries[0].Extensions != nil || string(entries[2].Extensions) != "ext" {
		t.Error("the caller's entries were changed")
	}
	for _, want := range entries {
		is := raft.Log{Extensions: []byte("left over")}
		if err := s.GetLog(want.Index, &is); err != nil || is.Term != want.Term || is.Type != want.Type ||
			!bytes.Equal(is.Data, want.Data) || !bytes.Equal(is.Extensions, want.Extensions) {
			t.Errorf("%+v, want %+v: %v", is, want, err)
		}
	}
	if err := bolt.StoreLog(&raft.Log{Index: 4, Term: 2}); err != nil {
		t.Fatal(err)
	}
	if err := s.GetLog(4, new(raft.Log)); err == nil {
		t.Error("an entry without a checksum")
	}
	if err := s.GetLog(5, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
		t.Error(err)
	}
	if err := s.SetUint64([]byte("CurrentTerm"), 7); err != nil {
		t.Fatal(err)
	}
	if v, err := s.GetUint64([]byte("CurrentTerm")); err != nil || v != 7 {
		t.Error(v, err)
	}
	if _, err := s.GetUint64([]byte("LastVoteTerm")); !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		t.Error(err)
	}
}

// Before a snapshot that was sent, the log may have a gap; after it, not.
func TestGapsInTheLog(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		entries []uint64
		says    string
	}{
		"before the snapshot": {[]uint64{1, 2, 5_000_000_000, 5_000_000_001}, ""},
		"after it":            {[]uint64{4_999_999_999, 5_000_000_000, 5_000_000_002}, "entry 5000000001 is missing"},
		"between":             {[]uint64{5_000_000_005}, "has no snapshot of entries 5000000001 to 5000000004"},
		"nothing":             {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := &dataDir{path: dir}
			snaps, err := raft.NewFileSnapshotStore(filepath.Join(dir, raftDir), snapshotsKept, io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			sink, err := snaps.Create(1, 5_000_000_000, 1, raft.Configuration{}, 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fsm.New().Snapshot().WriteTo(sink); err != nil {
				t.Fatal(err)
			}
			if err := sink.Close(); err != nil {
				t.Fatal(err)
			}
			bolt, err := openBolt(filepath.Join(dir, raftDir, logFile), false)
			if err != nil {
				t.Fatal(err)
			}
			defer bolt.Close()
			store := checkedStore{bolt}
			for _, i := range c.entries {
				if err := store.StoreLog(&raft.Log{Index: i, Term: 1}); err != nil {
					t.Fatal(err)
				}
			}
			err = d.checkHistory(&identity{ID: "p1", ClusterID: "c1"}, store, snaps, slog.New(slog.DiscardHandler))
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}
