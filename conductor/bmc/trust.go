package bmc

import (
	"context"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
	nodes "github.com/ironring/ironring/node"
)

// The certificate that a BMC was first known by is on the node's record: every
// peer trusts the same one. A different one is noted there too; then nobody
// calls that BMC until a person has accepted it.

// trustTimeout bounds the commit of a first certificate, which the handshake
// waits for.
const trustTimeout = 5 * time.Second

// trust is drivers.Trust for one node.
type trust struct {
	a    *Access
	node string
}

// Known implements drivers.Trust.
func (t trust) Known(address string) string {
	return nodes.KnownCertificate(t.a.cfg.Store.View().Node(t.node).GetBmcTls(), address)
}

// First implements drivers.Trust: nothing is sent unless the fingerprint is
// committed. Of two that see different first certificates one is refused.
func (t trust) First(ctx context.Context, address, fingerprint string) error {
	ctx, cancel := context.WithTimeout(ctx, trustTimeout)
	defer cancel()
	err := t.a.propose(ctx, "first certificate of the BMC", &api.Op{Op: &api.Op_BmcTrust{BmcTrust: &api.BmcTrust{
		NodeId: t.node, How: api.BmcTrust_FIRST, Fingerprint: fingerprint, Address: address,
	}}})
	if err == nil {
		t.a.cfg.Logger.Info("first certificate of a BMC is trusted from now on", "node", t.node, "fingerprint", fingerprint)
	}
	return err
}

// changed puts a certificate that is not the trusted one on record, with a
// fault on the node.
func (a *Access) changed(ctx context.Context, node *api.Node, e *drivers.CertificateError) {
	a.cfg.Logger.Error("the certificate of a BMC has changed, no call is made to it", "node", node.GetId(), "address", e.Address, "trusted", e.Want, "seen", e.Seen)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), parkTimeout)
	defer cancel()
	err := a.propose(ctx, "certificate of the BMC has changed", &api.Op{Op: &api.Op_BmcTrust{BmcTrust: &api.BmcTrust{
		NodeId: node.GetId(), How: api.BmcTrust_CHANGED, Fingerprint: e.Seen, Address: e.Address, Trusted: e.Want,
	}}})
	if err != nil {
		a.cfg.Logger.Warn("changed certificate of a BMC not recorded", "node", node.GetId(), "err", err)
	}
}

// distrusted says whether the node's BMC has shown another certificate, as an
// error that says what to do.
func distrusted(node *api.Node) error {
	tls := node.GetBmcTls()
	if tls.GetChangedTo() == "" {
		return nil
	}
	was := "the one that driver_info pins"
	if tls.GetFingerprint() != "" {
		was = tls.GetFingerprint()
	}
	return errs.About(errs.Denied, node.GetId(),
		"the BMC of node %s has another certificate than the trusted one and is left alone: trusted is %s, seen is %s. Find out why; if it is right, "+
			"`ironring node bmc accept-certificate %s --fingerprint %s`, or with a pin `ironring node set %s --driver-info redfish_tls_pin=%s`",
		nodes.Label(node), was, tls.GetChangedTo(), nodes.Label(node), tls.GetChangedTo(), nodes.Label(node), tls.GetChangedTo())
}

func (a *Access) propose(ctx context.Context, reason string, op *api.Op) error {
	_, err := a.cfg.Proposer.Propose(ctx, &api.Command{
		Meta: &api.Meta{Principal: "peer:" + a.cfg.Member, Reason: reason, WallMs: a.cfg.Clock.Now().UnixMilli()},
		Ops:  []*api.Op{op},
	})
	return err
}
