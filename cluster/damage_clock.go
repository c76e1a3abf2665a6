package cluster

import (
	"log/slog"
	"sync"
	"time"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
)

// checkClock refuses a wall clock at which this cluster cannot exist: no other
// peer would be believed, and certificates would be made that none believes.
// Leases do not look at the wall clock (package internal/clock).
func checkClock(ca *pki.CA, now time.Time) error {
	cert := ca.Certificate()
	says := now.UTC().Format(time.RFC3339)
	switch {
	case now.Before(cert.NotBefore):
		return errs.About(errs.WrongState, "clock", "this host's clock says %s, but the cluster was founded after %s: set the clock, then start again",
			says, cert.NotBefore.UTC().Format(time.RFC3339))
	case now.After(cert.NotAfter):
		return errs.About(errs.WrongState, "clock", "this host's clock says %s, but the cluster's authority is valid until %s: set the clock, then start again",
			says, cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// certificateNotice is what an operator should hear of a certificate that is
// not valid now, "" when it is. It is replaced at once; but it is also what a
// clock that is years off looks like from inside.
func certificateNotice(h *pki.Holder, now time.Time) string {
	leaf := h.Leaf()
	switch {
	case now.Before(leaf.NotBefore):
		return "this peer's certificate begins in the future: was the clock wrong when it was made, or is it now? It is replaced"
	case now.After(leaf.NotAfter):
		return "this peer's certificate has ended: was this host off for so long, or is its clock wrong? It is replaced; with a wrong clock no other peer is believed"
	}
	return ""
}

// troubleEvery is how often a peer says that clocks differ: Raft dials many
// times a second.
const troubleEvery = time.Minute

// clockTrouble tells of connections that fail because clocks differ.
type clockTrouble struct {
	mu   sync.Mutex
	last time.Time // guarded by mu
}

// explain hands on why a handshake with a peer failed, and logs it now and
// then when the wall clock is the reason.
func (c *clockTrouble) explain(log *slog.Logger, peer string, err error) error {
	why := pki.ExplainTime(err)
	if why == err { //nolint:errorlint // the very same: the clock is not the reason
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.last) >= troubleEvery || c.last.IsZero() {
		c.last = now
		log.Warn("cannot talk to a peer", "peer", peer, "err", why)
	}
	return why
}
