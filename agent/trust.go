package agent

import (
	"crypto/tls"
	"sync"
	"time"

	"github.com/ironring/ironring/internal/pki"
)

// serverClock is the cluster's time as the agent knows it. A machine's own
// clock may be years off, so validity is judged by what a peer said at
// enrolment plus the time that has passed here since.
type serverClock struct {
	mu   sync.Mutex
	at   time.Time // guarded by mu; what the peer said, zero before that
	mono time.Time // guarded by mu; our clock at that moment, with its monotonic part
}

func (c *serverClock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.mono = t, time.Now()
}

// now is the cluster's time; false when no peer has told it yet.
func (c *serverClock) now() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() {
		return time.Time{}, false
	}
	return c.at.Add(time.Since(c.mono)), true
}

// verify checks that the other side is a peer of the cluster of the kernel
// line. Before a peer has told the time, validity in time is not judged.
func (a *agent) verify(cs tls.ConnectionState) error {
	var at func() time.Time
	if now, ok := a.clock.now(); ok {
		at = func() time.Time { return now }
	}
	return pki.VerifyByDigest(a.cfg.Line.CADigest, at)(cs)
}

// tlsConfig trusts the CA of the kernel line and nothing else. cert is nil
// before enrolment.
func (a *agent) tlsConfig(cert *tls.Certificate) *tls.Config {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         pki.ServerName,
		InsecureSkipVerify: true, // verify does it, by digest and by the cluster's clock
		VerifyConnection:   a.verify,
	}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	return c
}
