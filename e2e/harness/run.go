package harness

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Lab is one run: its directory, its namespaces, its processes.
type Lab struct {
	Prefix string  // of all namespaces of this run: "ir" and four hex digits
	ID     string  // of the run: date, time and Prefix
	Dir    string  // of its logs, consoles and timelines: e2e-out/ID
	Cache  string  // of what is expensive to get: kernels, packages
	Root   string  // of the repository
	Scale  float64 // how much slower than the reference this host is, at least 1

	mu       sync.Mutex
	log      io.WriteCloser   // guarded by mu
	cleanups []func() error   // guarded by mu; run last to first
	procs    map[int]struct{} // guarded by mu; pids of running children
	start    time.Time

	v6 bool // see UseIPv6; cases run one after the other
}

// record is what Sweep needs to tidy up after a run that died.
type record struct {
	Prefix string `json:"prefix"`
	Pid    int    `json:"pid"`
	Start  string `json:"start"` // start time of the process, see procStart
}

// Open makes the directories of a run and tidies up after runs that died. root
// is the repository; Close ends what the lab started.
func Open(root string) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the end-to-end tests need root: they make network namespaces")
	}
	var b [2]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	l := &Lab{
		Prefix: "ir" + hex.EncodeToString(b[:]),
		Cache:  cache,
		Root:   root,
		Scale:  1,
		procs:  map[int]struct{}{},
		start:  time.Now(),
	}
	l.ID = l.start.Format("20060102-150405-") + l.Prefix
	out := filepath.Join(root, "e2e-out")
	l.Dir = filepath.Join(out, l.ID)
	if err := os.MkdirAll(l.Dir, 0o755); err != nil {
		return nil, err
	}
	latest := filepath.Join(out, "latest")
	_ = os.Remove(latest)
	_ = os.Symlink(l.ID, latest)
	if l.log, err = os.Create(filepath.Join(l.Dir, "harness.log")); err != nil {
		return nil, err
	}
	if err := l.sweep(); err != nil {
		return nil, err
	}
	if err := l.writeRecord(); err != nil {
		return nil, err
	}
	l.Logf("run %s, output in %s, cache in %s", l.ID, l.Dir, l.Cache)
	return l, nil
}

// cacheDir is IRONRING_CACHE, or ironring in the user's cache directory.
func cacheDir() (string, error) {
	dir := os.Getenv("IRONRING_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			base = "/var/cache" // root without HOME, as in some CI systems
		}
		dir = filepath.Join(base, "ironring")
	}
	return dir, os.MkdirAll(filepath.Join(dir, "runs"), 0o755)
}

// Logf writes a line with the time since the start to the run's log and to
// standard output. The log is the timeline of the run.
func (l *Lab) Logf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := fmt.Sprintf("%7.1fs %s\n", time.Since(l.start).Seconds(), fmt.Sprintf(format, args...))
	if l.log != nil {
		_, _ = io.WriteString(l.log, line)
	}
	_, _ = io.WriteString(os.Stdout, line)
}

// Limit is the time that something may take here which takes at most base on
// the reference host. It is a limit for failures: nothing waits it out.
func (l *Lab) Limit(base time.Duration) time.Duration {
	return time.Duration(float64(base) * l.Scale)
}

// Defer has f called by Close, before what was deferred earlier.
func (l *Lab) Defer(f func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cleanups = append(l.cleanups, f)
}

// Close ends what the run started and removes its namespaces. Its directory
// stays.
func (l *Lab) Close() error {
	l.mu.Lock()
	fs := slices.Clone(l.cleanups)
	l.cleanups = nil
	l.mu.Unlock()
	var all []error
	for _, f := range slices.Backward(fs) {
		all = append(all, f())
	}
	l.killAll()
	all = append(all, removeNamespaces(l.Prefix), os.Remove(l.recordPath()))
	err := errors.Join(all...)
	l.Logf("closed: %v", err)
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.log.Close()
	l.log = nil
	return err
}

func (l *Lab) recordPath() string { return filepath.Join(l.Cache, "runs", l.ID+".json") }

func (l *Lab) writeRecord() error {
	start, _ := procStart(os.Getpid())
	b, err := json.Marshal(record{Prefix: l.Prefix, Pid: os.Getpid(), Start: start})
	if err != nil {
		return err
	}
	return os.WriteFile(l.recordPath(), b, 0o644)
}

// sweep removes the namespaces and sockets of runs whose test process is gone. Processes
// that are left in them belong to that run, because only it entered them.
func (l *Lab) sweep() error {
	files, err := filepath.Glob(filepath.Join(l.Cache, "runs", "*.json"))
	if err != nil {
		return err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // another run has just swept it
		}
		var r record
		if json.Unmarshal(b, &r) != nil || r.Prefix == "" {
			_ = os.Remove(f)
			continue
		}
		if start, ok := procStart(r.Pid); ok && start == r.Start {
			continue // still running
		}
		l.Logf("tidying up after the run %s, which died", filepath.Base(f))
		if err := removeNamespaces(r.Prefix); err != nil {
			return err
		}
		_ = os.RemoveAll(socketDir(r.Prefix))
		_ = os.Remove(f)
	}
	return nil
}
