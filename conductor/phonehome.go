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
// returns nil the call is on record, and every further one returns nil at once
// until the node is torn down or deployed anew: an answer can be lost.
// errs.Denied: nobody waits for this token; errs.WrongState: its deploy ended
// without the call. Both are final. errs.Busy: its machine was not switched on
// from the disk yet. Anybody can call, and a token that is not on record asks
// the leader: whoever offers this to the network bounds the calls.
func (c *Conductor) PhoneHome(ctx context.Context, token string, from netip.Addr) error {
	cl, digest := c.cfg.Cluster, node.PhoneHomeDigest(token)
	h := homeOf(cl.Store().View(), digest)
	if h.seen && !c.service.Stale() {
		return nil
	}
	if h.seen || h.err != nil { // perhaps this peer is behind: a token can be given to its node again
		if _, err := cl.ReadIndex(ctx); err != nil {
			return err
		}
		if h = homeOf(cl.Store().View(), digest); h.seen || h.err != nil {
			return h.err
		}
	}
	_, err := cl.Propose(ctx, &api.Command{
		Meta: &api.Meta{Principal: "machine:" + h.node, Source: from.String(), Reason: "phone-home", WallMs: c.cfg.Clock.Now().UnixMilli()},
		Ops:  []*api.Op{{Op: &api.Op_PhoneHome{PhoneHome: &api.PhoneHome{NodeId: h.node, Digest: digest, Source: from.String()}}}},
	})
	switch {
	case err == nil:
		return nil
	case homeOf(cl.Store().View(), digest).seen: // by another call, and the deploy went on meanwhile
		return nil
	}
	return fmt.Errorf("phone-home of node %s: %w", h.node, err)
}

// home is what a view says of the holder of a token.
type home struct {
	node string
	seen bool  // its call is on record
	err  error // why a call does not count
}

// homeOf finds the one node whose system has the token: no two running flows
// have the same, and none has that of another node's evidence.
func homeOf(v *fsm.View, digest []byte) home {
	f, n := v.FlowOfPhoneHome(digest), v.NodeOfPhoneHome(digest)
	if f != nil { // evidence of an earlier deploy with the same token is void
		n = v.Node(f.GetNodeId())
		h := home{node: f.GetNodeId(), seen: n.GetEvidence().GetFlowId() == f.GetId() && n.GetEvidence().GetSeen() != ""}
		if !h.seen && !node.AwaitsSystem(f) {
			h.err = errs.About(errs.Busy, h.node, "node %s was not switched on from its disk yet", h.node)
		}
		return h
	}
	h := home{node: n.GetId(), seen: n.GetEvidence().GetSeen() != ""}
	switch {
	case n == nil:
		h.err = errs.New(errs.Denied, "no deploy waits for this phone-home")
	case !h.seen:
		h.err = errs.About(errs.WrongState, h.node, "the deploy of node %s ended without this phone-home", h.node)
	}
	return h
}
