package pxe

import (
	"io"
	"net"
	"net/netip"
	"sync"
)

// Bounds of TCP connections.
const (
	maxConns     = 1024
	connsPerHost = 32 // a machine needs one or two
)

// bounded holds at most maxConns connections; more of them wait in the
// kernel's queue. Those that one host opens beyond its share are closed, so
// that it cannot take those of all.
type bounded struct {
	net.Listener
	slots  chan struct{} // one token for each open connection
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex
	open map[netip.Addr]int // guarded by mu
}

func newBounded(l net.Listener) *bounded {
	return &bounded{Listener: l, slots: make(chan struct{}, maxConns), closed: make(chan struct{}), open: map[netip.Addr]int{}}
}

// Accept implements net.Listener.
func (l *bounded) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			<-l.slots
			return nil, err
		}
		ap, _ := netip.ParseAddrPort(c.RemoteAddr().String())
		host := ap.Addr().Unmap()
		if !l.enter(host) {
			c.Close()
			continue
		}
		return &boundedConn{Conn: c, leave: sync.OnceFunc(func() {
			l.leave(host)
			<-l.slots
		})}, nil
	}
}

// Close implements net.Listener.
func (l *bounded) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

func (l *bounded) enter(host netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[host] >= connsPerHost {
		return false
	}
	l.open[host]++
	return true
}

func (l *bounded) leave(host netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[host]--; l.open[host] <= 0 {
		delete(l.open, host)
	}
}

// boundedConn gives its place back when it is closed.
type boundedConn struct {
	net.Conn
	leave func()
}

var _ io.ReaderFrom = (*boundedConn)(nil)

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// ReadFrom implements io.ReaderFrom: it is how net/http finds out that the
// kernel can copy a file to this connection.
func (c *boundedConn) ReadFrom(r io.Reader) (int64, error) {
	if rf, ok := c.Conn.(io.ReaderFrom); ok {
		return rf.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{c.Conn}, r)
}
