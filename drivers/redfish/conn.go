package redfish

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// userTimeout is U of docs/leases.md: how long the kernel keeps trying to deliver
// bytes of ours that the BMC does not acknowledge, also after this process has
// died. Without it a command can arrive minutes late.
const userTimeout = 5 * time.Second

// dialTimeout bounds a connect, below the kernel's two minutes.
const dialTimeout = 5 * time.Second

// conn is a TCP connection with a hard deadline, which a renewed grant moves
// on, and which is cut rather than closed once its context has ended: what the
// kernel still has to send is then thrown away.
type conn struct {
	*net.TCPConn
	ctx   context.Context
	limit func() time.Time // zero: no limit
	stop  func() bool
}

// dial connects to addr for a call.
func dial(ctx context.Context, addr string, limit func() time.Time) (*conn, error) {
	d := net.Dialer{
		Timeout:   dialTimeout,
		KeepAlive: -1,
		Control: func(_, _ string, raw syscall.RawConn) error {
			var optErr error
			if err := raw.Control(func(fd uintptr) {
				optErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
			}); err != nil {
				return err
			}
			return optErr
		},
	}
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &conn{TCPConn: nc.(*net.TCPConn), ctx: ctx, limit: limit}
	if err := c.SetDeadline(limit()); err != nil {
		nc.Close()
		return nil, err
	}
	// Cut without waiting for anybody to notice that the context has ended.
	c.stop = context.AfterFunc(ctx, func() { c.cut() })
	return c, nil
}

func (c *conn) cut() {
	_ = c.SetLinger(0) // fails only on a closed socket
	_ = c.TCPConn.Close()
}

// Close cuts when the context has ended, because whoever closes first decides
// what becomes of the bytes under way.
func (c *conn) Close() error {
	c.stop()
	if c.ctx.Err() != nil {
		_ = c.SetLinger(0)
	}
	return c.TCPConn.Close()
}

// Read waits on when the deadline has passed but the limit has moved later.
func (c *conn) Read(p []byte) (int, error) {
	for {
		n, err := c.TCPConn.Read(p)
		if n > 0 || err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || !c.extend() {
			return n, err
		}
	}
}

// Write re-arms the deadline first; requests are small, so that a write seldom
// waits.
func (c *conn) Write(p []byte) (int, error) {
	c.extend()
	return c.TCPConn.Write(p)
}

// extend sets the deadline to what the limit is now; false when it has passed.
func (c *conn) extend() bool {
	limit := c.limit()
	if c.ctx.Err() != nil || (!limit.IsZero() && !time.Now().Before(limit)) {
		return false
	}
	return c.TCPConn.SetDeadline(limit) == nil
}
