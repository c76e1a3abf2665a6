package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Cmd is a process to start.
type Cmd struct {
	Name string   // for messages
	NS   string   // network namespace, "" for the host's
	Nice int      // 0: as we are
	Args []string // program and arguments
	Env  []string // added to ours
	Dir  string   // working directory, "" for ours
	Log  string   // file that standard output and error are appended to
}

// Proc is a running process. It dies when the test binary dies.
type Proc struct {
	Name string
	Pid  int
	done chan struct{} // closed when it has ended

	mu  sync.Mutex
	err error // guarded by mu; how it ended
}

// argv is the whole command line. ip and nice replace themselves, so that the
// pid of the child is that of the program.
func (c Cmd) argv() []string {
	var a []string
	if c.NS != "" {
		a = append(a, "ip", "netns", "exec", c.NS)
	}
	if c.Nice != 0 {
		a = append(a, "nice", "-n", strconv.Itoa(c.Nice))
	}
	return append(a, c.Args...)
}

func (c Cmd) command(ctx context.Context) *exec.Cmd {
	a := c.argv()
	cmd := exec.CommandContext(ctx, a[0], a[1:]...)
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Dir = c.Dir
	return cmd
}

// Start starts a process that runs until it ends by itself or is killed.
func (l *Lab) Start(c Cmd) (*Proc, error) {
	out, err := os.OpenFile(c.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := c.command(context.Background())
	cmd.Stdout, cmd.Stderr = out, out
	// The parent is the thread that starts it; Go does not end threads that
	// are not locked to a goroutine, and this one is not.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	p := &Proc{Name: c.Name, Pid: cmd.Process.Pid, done: make(chan struct{})}
	l.mu.Lock()
	l.procs[p.Pid] = struct{}{}
	l.mu.Unlock()
	go func() {
		err := cmd.Wait()
		l.mu.Lock()
		delete(l.procs, p.Pid)
		l.mu.Unlock()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(p.done)
	}()
	return p, nil
}

// Done is closed when the process has ended and was waited for.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Running tells whether the process has not ended yet.
func (p *Proc) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Err is how the process ended; nil while it runs.
func (p *Proc) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Kill ends the process at once and waits until it is gone.
func (p *Proc) Kill() {
	if p.Running() {
		_ = syscall.Kill(p.Pid, syscall.SIGKILL)
	}
	<-p.done
}

// Stop asks the process to end and kills it when it has not after limit. It
// reports whether it ended by itself.
func (p *Proc) Stop(limit time.Duration) bool {
	if p.Running() {
		_ = syscall.Kill(p.Pid, syscall.SIGTERM)
	}
	select {
	case <-p.done:
		return true
	case <-time.After(limit):
		p.Kill()
		return false
	}
}

// killAll ends every process that the lab started and that still runs.
func (l *Lab) killAll() {
	l.mu.Lock()
	var pids []int
	for pid := range l.procs {
		pids = append(pids, pid)
	}
	l.mu.Unlock()
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// Output runs a command to its end and gives its standard output. The error
// holds what it wrote to standard error.
func (l *Lab) Output(ctx context.Context, c Cmd) (string, error) {
	cmd := c.command(ctx)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", c.Name, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// procStart is the start time of a process in ticks since boot, which tells a
// reused pid from the process it once named.
func procStart(pid int) (string, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", false
	}
	// The second field is the name in parentheses and may hold anything.
	_, rest, ok := strings.Cut(string(b[bytes.LastIndexByte(b, ')'):]), " ")
	f := strings.Fields(rest)
	if !ok || len(f) < 20 {
		return "", false
	}
	return f[19], true
}

// Poll calls cond until it is true, the limit passes or ctx ends. what is for
// the error: "the marker on the console of vm1".
func Poll(ctx context.Context, what string, limit time.Duration, cond func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		ok, err := cond()
		if ok && err == nil {
			return nil
		}
		if errors.As(err, new(final)) {
			return fmt.Errorf("no %s: %w", what, err)
		}
		last = err
		select {
		case <-ctx.Done():
			if last != nil {
				return fmt.Errorf("no %s after %s: %w", what, limit, last)
			}
			return fmt.Errorf("no %s after %s: %w", what, limit, ctx.Err())
		case <-tick.C:
		}
	}
}

// Final makes Poll give up: the condition can no longer become true.
func Final(err error) error { return final{err} }

type final struct{ error }

func (f final) Unwrap() error { return f.error }

// errGone says that the other side has ended.
var errGone = errors.New("gone")

// killPids ends processes by pid and waits until they are gone.
func killPids(pids []int) {
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	for _, pid := range pids {
		_ = Poll(context.Background(), fmt.Sprintf("end of process %d", pid), 5*time.Second, func() (bool, error) {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return err != nil || bytes.Contains(b, []byte(") Z ")), nil
		})
	}
}
