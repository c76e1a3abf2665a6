package bmc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
	nodes "github.com/ironring/ironring/node"
)

// Failed logins after which a BMC is parked. More could lock the account.
const maxLoginFailures = 2

// parkTimeout bounds the write of a failed login to the record.
const parkTimeout = 2 * time.Second

// logins are those of one node that were refused since the last good one. The
// record says the same to other conductors and to the next process.
type logins struct {
	digest   []byte // of the credentials
	failures uint32
	recorded bool          // the record has them: it decides from then on
	turn     chan struct{} // one call at a time, once one was refused
}

// enter asks whether the node's BMC may be called. After a refused login only
// one call at a time may try again.
func (a *Access) enter(ctx context.Context, node *api.Node) (leave func(), err error) {
	if err := a.Parked(node); err != nil {
		return nil, err
	}
	l := a.refused(node)
	if l == nil {
		return func() {}, nil
	}
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, errs.About(errs.Timeout, node.GetId(), "waiting for another login to the BMC of node %s: %w", nodes.Label(node), context.Cause(ctx))
	}
	if err := a.Parked(node); err != nil {
		<-l.turn
		return nil, err
	}
	return func() { <-l.turn }, nil
}

// refused is what is known of refused logins with the node's credentials, nil
// when there was none.
func (a *Access) refused(node *api.Node) *logins {
	digest := credentials(node)
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refusedLocked(node.GetId(), digest)
}

func (a *Access) refusedLocked(id string, digest []byte) *logins {
	var failures uint32
	if p := a.cfg.Store.View().Node(id).GetBmcPark(); bytes.Equal(p.GetCredentialsDigest(), digest) {
		failures = p.GetFailures()
	}
	l := a.logins[id]
	if l != nil && (!bytes.Equal(l.digest, digest) || l.recorded && failures == 0) {
		l = nil // other credentials, or another conductor got in
		delete(a.logins, id)
	}
	if l == nil && failures > 0 {
		l = &logins{digest: digest, recorded: true, turn: make(chan struct{}, 1)}
		a.logins[id] = l
	}
	if l != nil {
		l.failures = max(l.failures, failures)
	}
	return l
}

// count notes a refused login and gives how many there were in a row.
func (a *Access) count(node *api.Node) uint32 {
	digest := credentials(node)
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.refusedLocked(node.GetId(), digest)
	if l == nil {
		l = &logins{digest: digest, turn: make(chan struct{}, 1)}
		a.logins[node.GetId()] = l
	}
	l.failures++
	l.recorded = false
	return l.failures
}

// clear notes a good login and says whether there is something to take back.
func (a *Access) clear(node *api.Node) bool {
	digest := credentials(node)
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.refusedLocked(node.GetId(), digest)
	delete(a.logins, node.GetId())
	return l != nil
}

// note records the contact and, after a refused login, counts towards parking.
func (a *Access) note(ctx context.Context, node *api.Node, what string, err error) {
	now := a.cfg.Clock.Now().UnixMilli()
	a.cfg.Journal.Update(node.GetId(), func(f *api.LiveFacts) {
		f.BmcError = ""
		if err != nil {
			f.BmcError = what + ": " + err.Error()
		} else {
			f.BmcContactMs = now
		}
	})
	if a.cfg.Contact != nil && !errors.Is(ctx.Err(), context.Canceled) {
		a.cfg.Contact(node, err)
	}
	var cert *drivers.CertificateError
	switch {
	case errors.As(err, &cert):
		a.changed(ctx, node, cert)
	case errors.Is(err, drivers.ErrRight):
		// The login was taken: that says nothing against the credentials.
	case errors.Is(err, errs.Denied):
		a.setPark(ctx, node, &api.BmcPark{CredentialsDigest: credentials(node), Failures: a.count(node), Message: err.Error()})
	case err == nil && a.clear(node):
		a.setPark(ctx, node, nil)
	}
}

// setPark writes what is known of refused logins to the record, also when the
// call's own time is over.
func (a *Access) setPark(ctx context.Context, node *api.Node, park *api.BmcPark) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), parkTimeout)
	defer cancel()
	v := a.cfg.Store.View()
	n := v.Node(node.GetId())
	if n == nil || !bytes.Equal(credentials(n), credentials(node)) {
		return // of credentials that are no longer the node's
	}
	patch := &api.Node{Id: n.GetId(), BmcPark: park}
	fields := []string{"bmc_park"}
	op := &api.Op{Op: &api.Op_NodeObserve{NodeObserve: &api.NodeObserve{NodeId: n.GetId(), AssignEpoch: n.GetAssignEpoch(), Fields: fields, Node: patch}}}
	if l := v.Lock(n.GetId()); l.GetConductor() == a.cfg.Member {
		op = &api.Op{Op: &api.Op_NodeWrite{NodeWrite: &api.NodeWrite{NodeId: n.GetId(), Token: l.GetToken(), Fields: fields, Node: patch}}}
	}
	reason := "the BMC refused our login"
	if park == nil {
		reason = "the BMC took our login again"
	}
	_, err := a.cfg.Proposer.Propose(ctx, &api.Command{
		Meta: &api.Meta{Principal: "peer:" + a.cfg.Member, Reason: reason, WallMs: a.cfg.Clock.Now().UnixMilli()},
		Ops:  []*api.Op{op},
	})
	if err != nil {
		a.cfg.Logger.Warn("logins to a BMC not recorded", "node", n.GetId(), "err", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if l := a.logins[n.GetId()]; l != nil && park.GetFailures() == l.failures {
		l.recorded = true
	}
}

// Parked is Parked, and also knows of refused logins that are not on record,
// and of a certificate that has changed.
func (a *Access) Parked(node *api.Node) error {
	if err := distrusted(node); err != nil {
		return err
	}
	if err := Parked(node); err != nil {
		return err
	}
	if l := a.refused(node); l != nil {
		a.mu.Lock()
		failures := l.failures
		a.mu.Unlock()
		if failures >= maxLoginFailures {
			return errParked(node, failures)
		}
	}
	return nil
}

// Parked says whether the node's BMC is parked, as an error that says what to
// do. The record must not be masked.
func Parked(node *api.Node) error {
	p := node.GetBmcPark()
	if p.GetFailures() < maxLoginFailures || !bytes.Equal(p.GetCredentialsDigest(), credentials(node)) {
		return nil
	}
	return errParked(node, p.GetFailures())
}

func errParked(node *api.Node, failures uint32) error {
	return errs.About(errs.Denied, node.GetId(),
		"the BMC of node %s refused our credentials %d times and is left alone until they change: set the right ones with `ironring node set %s --driver-info ...`",
		nodes.Label(node), failures, nodes.Label(node))
}

// credentials is a digest of driver and driver_info as stored: sealed, so that
// it tells nothing.
func credentials(node *api.Node) []byte {
	h := sha256.New()
	h.Write([]byte(node.GetDriver() + "\x00"))
	h.Write(node.GetDriverInfo())
	return h.Sum(nil)
}
