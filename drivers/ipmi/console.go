package ipmi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// banner is what ipmitool prints on stdout when the console is open; what
// comes before it is about the login, what comes after it is the console.
const banner = "[SOL Session operational.  Use ~? for help]\n"

// closeLimit is how long ipmitool may take to give the session back.
const closeLimit = 2 * time.Second

// errTaken is the BMC's answer while somebody has its one session.
const errTaken = "the BMC's console is open in another session"

// consoles are the BMCs whose console this driver has open.
type consoles struct {
	mu   sync.Mutex
	open map[string]bool // guarded by mu; by address
}

// take reserves a BMC's console.
func (c *consoles) take(address string) (leave func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[address] {
		return nil, errs.New(errs.Busy, "this peer reads the BMC's console already")
	}
	if c.open == nil {
		c.open = map[string]bool{}
	}
	c.open[address] = true
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.open, address)
	}, nil
}

// ReadConsole implements drivers.ConsoleReader by serial over LAN. A session
// that the BMC finds open is ended, once: it may be that of a peer that died,
// which a BMC keeps for minutes.
func (d *Driver) ReadConsole(ctx context.Context, t drivers.Target, g drivers.Grant, opened func(), w io.Writer) error {
	set, err := parse(t.Info)
	if err != nil {
		return err
	}
	leave, err := d.consoles.take(set.address)
	if err != nil {
		return err
	}
	defer leave()
	ctx, stop, err := drivers.Bind(ctx, g)
	if err != nil {
		return err
	}
	defer stop()
	err = d.tool.follow(ctx, set, g, opened, w)
	if errs.KindOf(err) != errs.Busy || err.Error() != errTaken {
		return err
	}
	if _, err := d.tool.run(ctx, set, g, "sol", "deactivate"); err != nil && !errors.Is(err, errs.Busy) {
		return err
	}
	return d.tool.follow(ctx, set, g, opened, w)
}

// follow runs `sol activate` until ctx ends, which must be bound to the grant.
// It gets no input: the end of its input is how it is told to give the session
// back. Once the grant has ended it is killed instead.
func (t tool) follow(ctx context.Context, set *settings, g drivers.Grant, opened func(), w io.Writer) error {
	path, err := exec.LookPath(t.path)
	if err != nil {
		return errs.New(errs.Unsupported, "ipmitool is not installed on this peer: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	front, err := sameFront(set.address)
	if err != nil {
		return err
	}
	// Not until ctx ends: giving the session back takes a few datagrams.
	r, err := newRelay(ctx, front, set.address, func() error { return drivers.CheckGrant(g) }, func() { cancel(errRefused) })
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, argv(set, r.at(), []string{"sol", "activate"})...)
	cmd.Env = environment(set)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	screen := &screen{opened: opened, w: w}
	var diag bounded
	cmd.Stderr = &diag
	err = attend(ctx, cmd, screen, g)
	seen := r.close()
	switch {
	case screen.open.Load() && ctx.Err() != nil && !errors.Is(context.Cause(ctx), errRefused):
		return drivers.Ended(ctx)
	case screen.open.Load():
		return errs.New(errs.Unreachable, "the BMC has ended the console's session")
	case err == nil:
		err = errors.New("it ended by itself")
	}
	return outcome(ctx, g, set, seen, err, screen.head.String()+"\n"+diag.String())
}

// attend runs cmd with a terminal as its stdout until it or ctx ends, and
// returns when what it printed is on the screen.
func attend(ctx context.Context, cmd *exec.Cmd, screen *screen, g drivers.Grant) error {
	outer, inner, err := openTerminal()
	if err != nil {
		return err
	}
	defer outer.Close()
	defer inner.Close() // once more: that is no harm
	cmd.Stdout = inner
	in, err := cmd.StdinPipe()
	if err != nil {
		return errs.New(errs.Internal, "ipmitool: %w", err)
	}
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	var late *time.Timer
	cmd.Cancel = func() error {
		if drivers.CheckGrant(g) != nil || errors.Is(context.Cause(ctx), errRefused) || !screen.open.Load() {
			kill() // nothing may be sent, nobody is there, or it would not notice
			return nil
		}
		late = time.AfterFunc(closeLimit, kill)
		return in.Close()
	}
	cmd.WaitDelay = closeLimit + time.Second // should a descendant hold our pipes
	if err := cmd.Start(); err != nil {
		return errs.New(errs.Internal, "ipmitool: %w", err)
	}
	inner.Close() // the terminal ends with the last process that has it
	var reader sync.WaitGroup
	reader.Go(func() { _, _ = io.Copy(screen, outer) })
	err = cmd.Wait()
	if late != nil {
		late.Stop()
	}
	_ = outer.SetReadDeadline(time.Now().Add(time.Second)) // should a descendant have it
	reader.Wait()
	return err
}

// screen is ipmitool's stdout. Only one goroutine writes.
type screen struct {
	opened func()
	w      io.Writer
	head   bytes.Buffer // before the banner
	open   atomic.Bool
}

// Write implements io.Writer; it takes everything.
func (s *screen) Write(p []byte) (int, error) {
	if s.open.Load() {
		return s.w.Write(p)
	}
	s.head.Write(p[:min(len(p), max(0, maxOutput-s.head.Len()))]) // what is more, is not ipmitool
	at := bytes.Index(s.head.Bytes(), []byte(banner))
	if at < 0 {
		return len(p), nil
	}
	rest := bytes.Clone(s.head.Bytes()[at+len(banner):])
	s.head.Truncate(at)
	s.open.Store(true)
	s.opened()
	if len(rest) > 0 {
		if _, err := s.w.Write(rest); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
