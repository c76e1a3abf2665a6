package conductor

import (
	"context"
	"crypto/subtle"
	"fmt"
	"net/netip"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/errs"
)

// PhoneHome takes the call of a deployed system that knows its token; once it
// returns nil the call is on record. errs.Denied: nobody waits for this token.
func (c *Conductor) PhoneHome(ctx context.Context, token string, from netip.Addr) error {
	cl := c.cfg.Cluster
	id := waitsFor(cl.Store().View(), token)
	if id == "" { // perhaps this peer is behind
		if _, err := cl.ReadIndex(ctx); err != nil {
			return err
		}
		if id = waitsFor(cl.Store().View(), token); id == "" {
			return errs.New(errs.Denied, "no deploy waits for this phone-home")
		}
	}
	_, err := cl.Propose(ctx, &api.Command{
		Meta: &api.Meta{Principal: "machine:" + id, Source: from.String(), Reason: "phone-home", WallMs: c.cfg.Clock.Now().UnixMilli()},
		Ops:  []*api.Op{{Op: &api.Op_PhoneHome{PhoneHome: &api.PhoneHome{NodeId: id, Token: token, Source: from.String()}}}},
	})
	if err != nil {
		return fmt.Errorf("phone-home of node %s: %w", id, err)
	}
	return nil
}

// waitsFor is the node under deployment that has the token, "" for none.
func waitsFor(v *fsm.View, token string) (id string) {
	for f := range v.RunningFlows() {
		e := v.Node(f.GetNodeId()).GetEvidence()
		if e.GetToken() != "" && e.GetFlowId() == f.GetId() && subtle.ConstantTimeCompare([]byte(e.GetToken()), []byte(token)) == 1 {
			id = f.GetNodeId()
		}
	}
	return id
}
