package redfish

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/stmcginnis/gofish"

	"github.com/ironring/ironring/drivers"
)

// idleLimit is how long a session for reading is kept unused: a little longer
// than the power of a machine is left unread, and far less than BMCs wait
// before they give its place away.
const idleLimit = 3 * time.Minute

// sessions are the logins kept for reading: one for each BMC and user. A login
// has at most one user at a time, because the governor lets one read at a time
// to a BMC.
type sessions struct {
	idle time.Duration

	mu      sync.Mutex
	kept    map[string]*login // guarded by mu; those not in use
	leaving sync.WaitGroup    // logouts of idle logins
}

// login is a session at a BMC.
type login struct {
	set    *settings
	trust  drivers.Trust
	digest [sha256.Size]byte // of what it was made with
	client *gofish.APIClient // with the session's token
	root   root
	token  string
	path   string
	idle   *time.Timer // set while it is kept
}

func newSessions(idle time.Duration) *sessions {
	return &sessions{idle: idle, kept: map[string]*login{}}
}

func (s *settings) lineKey() string { return s.hostport() + "\x00" + s.user }

// digest tells whether a login was made with these very settings.
func (s *settings) digest() [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q", s.hostport(), s.user, s.pass, s.tlsText))
}

// take gives the login kept for these settings, or nil. One that was made with
// other credentials is given up at once, within ctx.
func (s *sessions) take(ctx context.Context, set *settings) *login {
	s.mu.Lock()
	l := s.kept[set.lineKey()]
	delete(s.kept, set.lineKey())
	if l != nil {
		l.idle.Stop()
	}
	s.mu.Unlock()
	if l != nil && l.digest != set.digest() {
		l.logout(ctx)
		return nil
	}
	return l
}

// keep gives a login back, to be logged out when nobody has taken it for a
// while.
func (s *sessions) keep(l *login) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := l.set.lineKey()
	s.kept[key] = l
	l.idle = time.AfterFunc(s.idle, func() {
		s.mu.Lock()
		mine := s.kept[key] == l
		if mine {
			delete(s.kept, key)
			s.leaving.Add(1)
		}
		s.mu.Unlock()
		if mine {
			defer s.leaving.Done()
			l.logout(context.Background())
		}
	})
}

// close logs all out and waits, until ctx has ended.
func (s *sessions) close(ctx context.Context) {
	s.mu.Lock()
	all := s.kept
	s.kept = map[string]*login{}
	for _, l := range all {
		l.idle.Stop()
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	for _, l := range all {
		wg.Go(func() { l.logout(ctx) })
	}
	wg.Wait()
	s.leaving.Wait() // each is bounded by logoutLimit
}

// logout ends the session at the BMC, within a moment. A BMC that does not
// answer keeps it until its own time-out.
func (l *login) logout(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, logoutLimit)
	defer cancel()
	c := &call{set: l.set, trust: l.trust, token: l.token, session: l.path, ctx: ctx}
	hc := c.open()
	defer c.transport.CloseIdleConnections()
	if resp, err := l.link(c, hc).client.Delete(l.path); err == nil { // nothing follows from its failure
		resp.Body.Close()
	}
}

// systems is the path of the collection of systems.
func (r root) systems() string { return strings.TrimRight(r.Systems.ID, "/") }

// enter logs in with the call's own connection.
func (c *call) enter(ctx context.Context, hc *http.Client) (*login, error) {
	// RoundTrip puts each request under the call's own context: the one given
	// here would end the logout as well. The number of requests at the same
	// time is bounded by the one connection, under their contexts.
	client, err := gofish.ConnectContext(context.WithoutCancel(ctx), gofish.ClientConfig{
		Endpoint: "https://" + c.set.bracketed() + ":" + c.set.port, Username: c.set.user, Password: c.set.pass,
		HTTPClient: hc, MaxConcurrentRequests: maxRequests,
	})
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return &login{
		set: c.set, trust: c.trust, digest: c.set.digest(), client: client, root: c.root, token: c.token, path: c.session,
	}, nil
}
