package ipmi

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// The bounds of one run of ipmitool.
const (
	// defaultLimit is the time that a call may take when the caller sets no
	// deadline.
	defaultLimit = 30 * time.Second
	maxOutput    = 256 << 10
	// interval and retries mean: one request is sent at once and once more
	// after 5 s (-R 1 is one repetition, measured).
	interval = "5"
	retries  = "1"
)

// quiet before a command leaves out -v, with which ipmitool prints lists in
// another form. It does not say why a login is refused then: a command with it
// goes before.
const quiet = "quiet"

// errNoTool says nothing of the BMC.
var errNoTool = errors.New("ipmitool is not installed on this peer")

// tool runs ipmitool: nothing else does.
type tool struct {
	path string
}

// run runs one ipmitool command and returns what it printed on stdout. With a
// grant, the grant is asked before each datagram, and ctx must be bound to it.
func (t tool) run(ctx context.Context, set *settings, g drivers.Grant, args ...string) (string, error) {
	path, err := exec.LookPath(t.path)
	if err != nil {
		return "", errs.New(errs.Unsupported, "%w: %v", errNoTool, err)
	}
	if _, ok := ctx.Deadline(); !ok {
		limited, stop := context.WithTimeout(ctx, defaultLimit)
		defer stop()
		ctx = limited
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	allowed := func() error {
		if g != nil {
			if err := drivers.CheckGrant(g); err != nil {
				return err
			}
		}
		return drivers.Ended(ctx)
	}
	if err := allowed(); err != nil {
		return "", err
	}
	front, err := anyFront()
	if err != nil {
		return "", err
	}
	r, err := newRelay(ctx, front, set.address, allowed, func() { cancel(errRefused) })
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, argv(set, r.at(), args)...)
	cmd.Env = environment(set)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // should a descendant hold our pipes
	var out, diag bounded
	cmd.Stdout, cmd.Stderr = &out, &diag
	err = cmd.Run()
	seen := r.close()
	if err == nil {
		return out.String(), nil
	}
	// stdout first: with -v the reason of a refused login is there.
	return "", outcome(ctx, g, set, seen, err, out.String()+"\n"+diag.String())
}

// environment is all that ipmitool gets of ours.
func environment(set *settings) []string {
	return []string{"LC_ALL=C", "TZ=UTC", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "IPMI_PASSWORD=" + set.pass}
}

// argv has no secret: the password is in the environment.
func argv(set *settings, at *net.UDPAddr, args []string) []string {
	var v []string
	if len(args) > 0 && args[0] == quiet {
		args = args[1:]
	} else {
		v = append(v, "-v") // says why a login is refused; -vv would print its hashes
	}
	v = append(v,
		"-I", "lanplus", "-H", at.IP.String(), "-p", strconv.Itoa(at.Port),
		"-E", "-C", set.cipher, "-L", set.level, "-N", interval, "-R", retries,
	)
	if set.user != "" {
		v = append(v, "-U", set.user)
	}
	return append(v, args...)
}

// bounded is a buffer that throws away what does not fit.
type bounded struct{ buf bytes.Buffer }

// Write implements io.Writer; it takes everything.
func (b *bounded) Write(p []byte) (int, error) {
	if room := maxOutput - b.buf.Len(); room > 0 {
		b.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (b *bounded) String() string { return b.buf.String() }
