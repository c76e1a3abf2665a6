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
	maxBody     = 4 << 20
	maxRequests = 200
	maxMembers  = 64
)

// call is one operation on one BMC, and the http.RoundTripper of the library
// that carries it out. It decides what may be sent, and remembers what became
// of it, because the library's own errors tell neither what was sent nor
// whether it was answered.
type call struct {
	set       *settings
	trust     drivers.Trust
	node      string        // for messages
	grant     drivers.Grant // nil for a call that only reads
	transport *http.Transport

	mu       sync.Mutex
	ctx      context.Context // guarded by mu; bounds what is sent now
	requests int             // guarded by mu
	token    string          // guarded by mu; of the session
	session  string          // guarded by mu; path of the session
	systems  string          // guarded by mu; path of the collection of systems
	root     root            // guarded by mu
	seen     record          // guarded by mu
}

// record is what a call has seen.
type record struct {
	refusal   error  // of our own: a rule was broken, or the answer is rubbish
	network   error  // the last failure below HTTP
	denied    bool   // the login was refused
	right     bool   // 401 or 403 after a login
	expired   bool   // 401 after a login: the session is gone, or was never enough
	failed    int    // the last status that is a failure, 0: none
	failedURL string // its path
	message   string // what the BMC said to it
	sent      bool   // a change may have left this host
	accepted  bool   // a change was answered with success
	changes   int    // requests that change the machine, let through
	refused   bool   // the last change was refused for its form
}

// change carries out one operation that changes the machine: one connection,
// one session, which is logged out at the end.
func (d *Driver) change(ctx context.Context, t drivers.Target, g drivers.Grant, do func(context.Context, *link) error) error {
	set, err := parse(t.Info)
	if err != nil {
		return err
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(defaultLimit)
	}
	total := time.Until(deadline)
	work, cancel := context.WithDeadline(ctx, deadline.Add(-min(logoutLimit, total/8)))
	defer cancel()
	work, stop, err := drivers.Bind(work, g)
	if err != nil {
		return err
	}
	defer stop()
	done, err := d.governor.Change(work, set.hostport())
	if err != nil {
		return err
	}
	c := &call{set: set, trust: t.Trust, node: t.NodeID, grant: g, ctx: work}
	hc := c.open()
	defer c.transport.CloseIdleConnections()
	l, err := c.enter(work, hc)
	if err == nil {
		err = do(work, l.link(c, hc))
	}
	err = c.outcome(work, err)
	if c.loggedIn() {
		if work.Err() != nil {
			c.transport.CloseIdleConnections() // cut with work
		}
		c.leave(ctx, deadline, hc)
	}
	done(err)
	return err
}

// read carries out one operation that only reads, with the session that is kept
// for it. When the BMC knows the session no more there is one new login.
func (d *Driver) read(ctx context.Context, t drivers.Target, do func(*link) error) error {
	set, err := parse(t.Info)
	if err != nil {
		return err
	}
	if _, ok := ctx.Deadline(); !ok {
		limited, cancel := context.WithTimeout(ctx, defaultLimit)
		defer cancel()
		ctx = limited
	}
	if ctx.Err() != nil {
		return drivers.Ended(ctx)
	}
	done, err := d.governor.Read(ctx, set.hostport())
	if err != nil {
		return err
	}
	again, err := d.readOnce(ctx, set, t, d.sessions.take(ctx, set), do)
	if again {
		_, err = d.readOnce(ctx, set, t, nil, do)
	}
	done(err)
	return err
}

// readOnce reads with a login, or with a new one, which is kept unless the BMC
// does not know it. again says that the login that was given has expired.
func (d *Driver) readOnce(ctx context.Context, set *settings, t drivers.Target, l *login, do func(*link) error) (again bool, err error) {
	c := &call{set: set, trust: t.Trust, node: t.NodeID, ctx: ctx}
	had := l != nil
	if had {
		c.token, c.session, c.root, c.systems = l.token, l.path, l.root, l.root.systems()
	}
	hc := c.open()
	defer c.transport.CloseIdleConnections()
	if !had {
		l, err = c.enter(ctx, hc)
	}
	if err == nil {
		err = do(l.link(c, hc))
	}
	err = c.outcome(ctx, err)
	expired := c.record().expired
	if l != nil && !expired {
		d.sessions.keep(l)
	}
	return had && expired, err
}

// link is a login in use by a call.
func (l *login) link(c *call, hc *http.Client) *link {
	client := *l.client
	client.HTTPClient = hc
	return &link{call: c, client: &client, root: l.root}
}

// open makes the one connection's transport, and the client that uses it.
func (c *call) open() *http.Client {
	c.transport = &http.Transport{
		DialContext:            c.dial,
		TLSClientConfig:        c.tlsConfig(),
		MaxConnsPerHost:        1,
		MaxIdleConnsPerHost:    1,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
		Protocols:              &http.Protocols{},
	}
	c.transport.Protocols.SetHTTP1(true)
	return &http.Client{Transport: c, CheckRedirect: c.redirect}
}

// leave logs out, within what is left of the caller's time, or within a moment
// when the caller has given up. When the grant has ended nothing more may be
// sent: the session is left to the BMC's own time-out.
func (c *call) leave(ctx context.Context, deadline time.Time, hc *http.Client) {
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
	req, err := http.NewRequestWithContext(bound, http.MethodDelete, "https://"+c.set.hostport()+c.session, nil)
	if err != nil {
		return
	}
	req.Header.Set("X-Auth-Token", c.token)
	if resp, err := hc.Do(req); err == nil { // nothing follows from its failure
		resp.Body.Close()
	}
}

func (c *call) record() record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
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
