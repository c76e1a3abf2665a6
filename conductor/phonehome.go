package conductor

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// PhoneHome takes the call of a deployed system that knows its token; once it
// returns nil the call is on record. errs.Denied: nobody waits for this token.
// errs.Busy: its machine was not switched on from the disk yet. Anybody can
// call, and an unknown token asks the leader: whoever offers this to the
// network bounds the calls.
func (c *Conductor) PhoneHome(ctx context.Context, token string, from netip.Addr) error {
	cl, digest := c.cfg.Cluster, node.PhoneHomeDigest(token)
	id, err := waitsFor(cl.Store().View(), digest)
	if err != nil { // perhaps this peer is behind
		if _, err := cl.ReadIndex(ctx); err != nil {
			return err
		}
		if id, err = waitsFor(cl.Store().View(), digest); err != nil {
			return err
		}
	}
	_, err = cl.Propose(ctx, &api.Command{
		Meta: &api.Meta{Principal: "machine:" + id, Source: from.String(), Reason: "phone-home", WallMs: c.cfg.Clock.Now().UnixMilli()},
		Ops:  []*api.Op{{Op: &api.Op_PhoneHome{PhoneHome: &api.PhoneHome{NodeId: id, Digest: digest, Source: from.String()}}}},
	})
	if err != nil {
		return fmt.Errorf("phone-home of node %s: %w", id, err)
	}
	return nil
}

// waitsFor is the one node under deployment whose system has the token: no two
// running flows have the same.
func waitsFor(v *fsm.View, digest []byte) (id string, err error) {
	f := v.FlowOfPhoneHome(digest)
	switch {
	case f == nil:
		return "", errs.New(errs.Denied, "no deploy waits for this phone-home")
	case !node.AwaitsSystem(f):
		return "", errs.About(errs.Busy, f.GetNodeId(), "node %s was not switched on from its disk yet", f.GetNodeId())
	}
	return f.GetNodeId(), nil
}
