package power

import (
	"context"
	"maps"
	"time"

	"github.com/google/uuid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/node"
)

// A machine that a flow left in the ramdisk for the next one is switched off
// when nothing has come for it: once its node has been in its state for ten
// minutes of the cluster clock, which whoever owns it then finds in the record.
//
// Rules: nobody has asked for this, so the BMC must be that of the machine. In
// maintenance it is left alone, as all machines are. What fails is tried again,
// later each time; the tries are in the owner's memory, and another owner begins
// anew.

// idleTicks is how long a machine may wait in the ramdisk for the next flow, on
// the cluster clock.
const idleTicks = 10 * 60 * 1000

// offMost is the longest pause before another try to switch an idle machine off.
const offMost = time.Hour

// off are the tries to switch an idle machine off.
type off struct {
	nonce string // of the boot that they are for
	tries int
	next  time.Duration // on Clock.Elapsed: not before
}

// Kept says whether a node's machine is kept on in the ramdisk for its next
// flow, and for how long still on the cluster clock; left is not positive once
// it is due to be switched off.
func Kept(n *api.Node, ticks uint64) (left time.Duration, kept bool) {
	if n.GetBoot().GetTarget() != api.BootTarget_BOOT_RAMDISK {
		return 0, false
	}
	return time.Duration(int64(n.GetStateSinceTick())+idleTicks-int64(ticks)) * time.Millisecond, true
}

// forget drops the tries for nodes that are another owner's now.
func (s *Sync) forget() {
	v := s.cfg.Store.View()
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.offs, func(id string, _ *off) bool { return v.Node(id).GetAssigned() != s.cfg.Member })
}

// idle says whether a machine was left in the ramdisk and nothing came of it.
// The recorded power does not count: who was seen off may have been switched on
// since, and its record is to end all the same.
func (s *Sync) idle(n *api.Node) bool {
	left, kept := Kept(n, s.cfg.Store.View().Globals().GetTicks())
	if kept && left <= 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.offs, n.GetId())
	return false
}

// again says whether an idle machine is to be switched off now: at once, and
// after a try that came to nothing later each time.
func (s *Sync) again(n *api.Node) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.offs[n.GetId()]
	return o == nil || o.nonce != n.GetBoot().GetNonce() || s.cfg.Clock.Elapsed() >= o.next
}

// tried notes a try.
func (s *Sync) tried(n *api.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.offs[n.GetId()]
	if o == nil || o.nonce != n.GetBoot().GetNonce() {
		o = &off{nonce: n.GetBoot().GetNonce()}
		s.offs[n.GetId()] = o
	}
	o.tries++
	o.next = s.cfg.Clock.Elapsed() + min(s.cfg.Every<<min(o.tries, 10), offMost)
}

// switchOff has a flow end the boot of an idle machine. A record that knows no
// BMC cannot tell whose it is: that machine stays on.
func (s *Sync) switchOff(ctx context.Context, n *api.Node) {
	s.tried(n)
	if n.GetBmc() == nil || !s.itsMachine(ctx, n) {
		return
	}
	// As after a tenant: off, then no boot and no medium.
	steps, err := node.Plan(api.FlowKind_FLOW_TEARDOWN, api.PowerAction_POWER_ACTION_NONE)
	if err != nil {
		return
	}
	const reason = "nothing came for the machine in the ramdisk"
	_, err = s.cfg.Propose(ctx, &api.Command{
		Meta: &api.Meta{Principal: "peer:" + s.cfg.Member, Reason: reason, WallMs: s.cfg.Clock.Now().UnixMilli()},
		Ops: []*api.Op{{Op: &api.Op_FlowCreate{FlowCreate: &api.FlowCreate{NodeId: n.GetId(), Rev: n.GetRev(), Flow: &api.Flow{
			Id: uuid.NewString(), NodeId: n.GetId(), Kind: api.FlowKind_FLOW_POWER, Steps: steps,
			Meta: &api.Meta{Principal: "peer:" + s.cfg.Member, Reason: reason},
		}}}}},
	})
	if err != nil {
		s.cfg.Logger.Debug("idle machine not switched off", "node", n.GetId(), "err", err)
	}
}

// itsMachine asks the BMC whether it is that of the node's machine. While the
// node's BMC is verified it must not contradict; after a change of driver_info
// it must be shown.
func (s *Sync) itsMachine(ctx context.Context, n *api.Node) bool {
	facts, err := s.cfg.BMC.Identify(ctx, n.GetId())
	if err != nil {
		s.cfg.Logger.Debug("BMC not asked who it is", "node", n.GetId(), "err", err)
		return false
	}
	like := node.Compare(facts, n.GetBmc())
	if like == node.SameMachine || like == node.Untold && node.Verified(n) {
		return true
	}
	found, _ := node.Machine(facts)
	s.cfg.Logger.Warn("the BMC is not, or not for sure, that of the node's machine: nothing is recorded or switched", "node", n.GetId(), "found", found)
	return false
}
