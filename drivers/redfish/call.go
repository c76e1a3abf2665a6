package redfish

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/ironring/ironring/drivers"
)

// The bounds of one call.
const (
	// defaultLimit is the time that a call may take when the caller sets
	// no deadline.
	defaultLimit = 30 * time.Second
	// logoutLimit is the time at the end of a call that is kept for logging
	// out; a short call keeps an eighth of its time.
	logoutLimit = 2 * time.Second
	maxBody     = 1 << 20
	maxRequests = 64
	maxMembers  = 64
)

// call is one operation on one BMC, and the http.RoundTripper of the libraries
// that carry it out. It decides what may be sent, and remembers what became of
// it, because the libraries' own errors tell neither what was sent nor whether
// it was answered.
type call struct {
	set       *settings
	grant     drivers.Grant // nil for a call that only reads
	transport *http.Transport

	mu       sync.Mutex
	ctx      context.Context // guarded by mu; bounds what is sent now
	requests int             // guarded by mu
	token    string          // guarded by mu; of the session
	session  string          // guarded by mu; path of the session
	systems  string          // guarded by mu; path of the collection of systems
	seen     record          // guarded by mu
}

// record is what a call has seen.
type record struct {
	refusal   error  // of our own: a rule was broken, or the answer is rubbish
	network   error  // the last failure below HTTP
	denied    bool   // 401 or 403
	failed    int    // the last status that is a failure, 0: none
	failedURL string // its path
	message   string // what the BMC said to it
	sent      bool   // a change may have left this host
	accepted  bool   // a change was answered with success
	changes   int    // requests that change the machine, let through
	refused   bool   // the last change was refused for its form
}

// run carries out one operation: it makes a call bound to ctx and, for a
// change, to the grant; do runs with a client that has that call as transport
// and returns what is to be done to log out.
func run(ctx context.Context, set *settings, grant drivers.Grant, change bool,
	do func(ctx context.Context, c *call, hc *http.Client) (logout func(), err error)) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(defaultLimit)
	}
	total := time.Until(deadline)
	work, cancel := context.WithDeadline(ctx, deadline.Add(-min(logoutLimit, total/8)))
	defer cancel()

	c := &call{set: set}
	if change {
		c.grant = grant
		bound, stop, err := drivers.Bind(work, grant)
		if err != nil {
			return err
		}
		defer stop()
		work = bound
	} else if work.Err() != nil {
		return drivers.Ended(work)
	}
	c.ctx = work
	c.transport = &http.Transport{
		DialContext:            c.dial,
		TLSClientConfig:        set.tls,
		MaxConnsPerHost:        1,
		MaxIdleConnsPerHost:    1,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
		Protocols:              &http.Protocols{},
	}
	c.transport.Protocols.SetHTTP1(true)
	defer c.transport.CloseIdleConnections()
	hc := &http.Client{Transport: c, CheckRedirect: c.redirect}

	logout, err := do(work, c, hc)
	err = c.outcome(work, err)
	if logout != nil && c.loggedIn() {
		if work.Err() != nil {
			c.transport.CloseIdleConnections() // cut with work
		}
		c.leave(ctx, deadline, hc, logout)
	}
	return err
}

// leave logs out, within what is left of the caller's time, or within a moment
// when the caller has given up. When the grant has ended nothing more may be
// sent: the session is left to the BMC's own time-out.
func (c *call) leave(ctx context.Context, deadline time.Time, hc *http.Client, logout func()) {
	if ctx.Err() != nil {
		deadline = time.Now().Add(logoutLimit / 4)
	}
	bound, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	if c.grant != nil {
		granted, stop, err := drivers.Bind(bound, c.grant)
		if err != nil {
			return
		}
		defer stop()
		bound = granted
	}
	c.mu.Lock()
	c.ctx = bound
	c.mu.Unlock()
	hc.Timeout = 0 // bmclib has set what was left at its start
	logout()
}

func (c *call) loggedIn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session != ""
}

// bound is the context for what is sent now.
func (c *call) bound() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ctx
}

// dial ignores the address it is asked for: there is only one BMC.
func (c *call) dial(context.Context, string, string) (net.Conn, error) {
	ctx := c.bound()
	if err := c.allowed(ctx); err != nil {
		return nil, err
	}
	return dial(ctx, c.set.hostport(), func() time.Time { return c.limit(ctx) })
}

// limit is the hard deadline of the socket: that of the context or of the
// grant, whichever is first.
func (c *call) limit(ctx context.Context) time.Time {
	limit, _ := ctx.Deadline()
	if c.grant == nil {
		return limit
	}
	if g := c.grant.Deadline(); limit.IsZero() || g.Before(limit) {
		return g
	}
	return limit
}

// allowed is asked before anything is sent.
func (c *call) allowed(ctx context.Context) error {
	if c.grant != nil {
		if err := drivers.CheckGrant(c.grant); err != nil {
			return err
		}
	}
	return drivers.Ended(ctx)
}
