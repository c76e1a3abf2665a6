package flow

import (
	"context"
	"encoding/json"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// Reuse of a live agent between flows: a boot of a server takes minutes. An
// inspection or a clean leaves its machine in the ramdisk, for a while (package
// power switches it off), and the next flow that needs the ramdisk goes on with
// the agent that is there, without a power cycle. properties/fast_track=false
// switches this off for a node.
//
// Rules: the agent is enrolled for the nonce that the record has, and has a
// stream here at the moment when the flow begins; what it is asked for comes
// under the new flow's token and cmdIDs. Inventory and identity come first as
// after a boot, so that nothing is written to a machine that nobody has looked
// at. If it goes away before it has shown itself, the machine is booted, and so
// it is where the firmware should have another mode than the agent was booted
// in. A failure of a flow that uses the agent ends the boot, and so does a power
// action that has succeeded. The clean that follows an undeploy boots anew,
// because teardown switches the tenant's system off.

// Results of steps that were left out; the first decides for those that follow.
var (
	agentReused = map[string]any{"agent": "reused"}
	agentKept   = map[string]any{"agent": "kept"}
)

// reusedLimit is how long a reused agent may need to come back, when its stream
// has moved to this peer.
const reusedLimit = 30 * time.Second

// keepsAgent is the policy: properties/fast_track, true unless it says false.
func keepsAgent(n *api.Node) bool {
	props := struct {
		FastTrack bool `json:"fast_track"`
	}{FastTrack: true}
	if json.Unmarshal(n.GetProperties(), &props) != nil {
		return false // not a bool: what is meant is not known, and off is safe
	}
	return props.FastTrack
}

// liveAgent says whether the agent of the record's boot has a stream here.
func (r *runner) liveAgent() bool {
	n := r.cfg.Store.View().Node(r.node)
	nonce := n.GetBoot().GetNonce()
	return nonce != "" && n.GetBoot().GetTarget() == api.BootTarget_BOOT_RAMDISK && n.GetAgent().GetNonce() == nonce &&
		r.cfg.Hub.Incarnation(r.node, nonce) != ""
}

// rightMode says whether the agent was booted in the firmware mode that the
// node is said to have: what it would write as the boot entry depends on that.
func (r *runner) rightMode() bool {
	mode := r.bootMode()
	inv, err := r.stored()
	return err == nil && (mode == "" || mode == inv.BootMode)
}

// reuses says whether the step is left out because an agent is there. It is
// decided at the first step into the ramdisk, and what was decided is committed
// with that step's end.
func (r *runner) reuses(p position) bool {
	cursor := int(p.flow.GetCursor())
	start, wait := node.IntoRamdisk(p.flow, cursor)
	switch {
	case wait < 0:
		return false
	case cursor > start:
		return saysOf(p.flow, start, agentReused)
	}
	// A former holder may have begun to switch it off, an earlier agent of this
	// flow may have gone away: then the machine boots.
	return !p.resumed && p.flow.GetRewinds() == 0 && r.intent() == nil && keepsAgent(r.cfg.Store.View().Node(r.node)) && r.liveAgent() && r.rightMode()
}

// keeps says whether the step, of those with which an inspection or a clean
// ends a boot, is left out so that the next flow finds the agent.
func (r *runner) keeps(p position) bool {
	if k := p.flow.GetKind(); k != api.FlowKind_FLOW_INSPECT && k != api.FlowKind_FLOW_CLEAN {
		return false
	}
	cursor, steps := int(p.flow.GetCursor()), p.flow.GetSteps()
	for _, s := range steps[cursor:] {
		if id := node.IDOf(s); id != node.StepBootNothing && id != node.StepPowerOff {
			return false
		}
	}
	if cursor > 0 && node.IDOf(steps[cursor-1]) == node.StepBootNothing {
		return saysOf(p.flow, cursor-1, agentKept)
	}
	return node.IDOf(p.step) == node.StepBootNothing && keepsAgent(r.cfg.Store.View().Node(r.node)) && r.liveAgent()
}

// saysOf says whether a step that is done has a result.
func saysOf(f *api.Flow, i int, result map[string]any) bool {
	var got map[string]any
	if json.Unmarshal(f.GetSteps()[i].GetResult(), &got) != nil {
		return false
	}
	return got["agent"] == result["agent"]
}

// leftOut is the outcome of a step that an agent makes needless; ok is false
// for steps that must run.
func (r *runner) leftOut(ctx context.Context, p position) (out outcome, ok bool, err error) {
	switch {
	case r.reuses(p):
		if node.IDOf(p.step) != node.StepAgentWait {
			return outcome{result: agentReused}, true, nil
		}
		return r.reunite(ctx, p)
	case r.keeps(p):
		return outcome{result: agentKept}, true, nil
	}
	return outcome{}, false, nil
}

// reunite waits for the agent that was there when the flow began.
func (r *runner) reunite(ctx context.Context, p position) (outcome, bool, error) {
	wctx, cancel := context.WithTimeoutCause(ctx, reusedLimit, errs.New(errs.Timeout, "gone"))
	defer cancel()
	err := r.cfg.Hub.Wait(wctx, r.node, r.cfg.Store.View().Node(r.node).GetBoot().GetNonce())
	switch {
	case err == nil:
		return outcome{result: agentReused}, true, nil
	case ctx.Err() != nil:
		return outcome{}, true, context.Cause(ctx)
	}
	start, _ := node.IntoRamdisk(p.flow, int(p.flow.GetCursor()))
	return outcome{}, true, &rewind{to: uint32(start), reason: "the agent of the last boot has gone away: the machine is booted"}
}

// shownLimit is how long a reused agent may take for the inventory.
const shownLimit = 90 * time.Second

// untilShown is the context of an inventory. A reused agent that does not give
// it soon has gone away after all; giveUp turns the error that follows into the
// order to boot the machine.
func (r *runner) untilShown(ctx context.Context, p position) (_ context.Context, giveUp func(error) error, stop func()) {
	cursor := int(p.flow.GetCursor())
	start, wait := node.IntoRamdisk(p.flow, cursor-1)
	if wait != cursor-1 || wait < 0 || !saysOf(p.flow, start, agentReused) {
		return ctx, func(err error) error { return err }, func() {}
	}
	ictx, cancel := context.WithTimeout(ctx, shownLimit)
	return ictx, func(err error) error {
		if ctx.Err() != nil || ictx.Err() == nil {
			return err
		}
		return &rewind{to: uint32(start), reason: "the agent of the last boot does not answer: the machine is booted"}
	}, cancel
}

// endsBoot is what a change of the power commits besides: a machine that was
// left in the ramdisk is not to come back into it after a power action, and
// whether our medium is still in its drive.
func (r *runner) endsBoot(p position, medium bool) []*api.Op {
	boot := r.cfg.Store.View().Node(r.node).GetBoot()
	switch {
	case r.powersLeftBoot(p):
		boot = &api.Boot{Target: api.BootTarget_BOOT_NOTHING, Medium: medium}
	case boot.GetMedium() && !medium:
		boot = proto.CloneOf(boot)
		boot.Medium = false
	default:
		return nil
	}
	return []*api.Op{r.write(p.flow, []string{"boot"}, &api.Node{Boot: boot})}
}

// powersLeftBoot says whether a power action meets a machine that was left in
// the ramdisk.
func (r *runner) powersLeftBoot(p position) bool {
	return p.flow.GetKind() == api.FlowKind_FLOW_POWER && r.cfg.Store.View().Node(r.node).GetBoot().GetTarget() == api.BootTarget_BOOT_RAMDISK
}

// agesBoot is what a change commits besides that the machine takes up when it
// boots next: the agent that runs is not gone on with. The record still says
// ramdisk, so that the machine is switched off when nothing comes.
func (r *runner) agesBoot(p position) []*api.Op {
	boot := r.cfg.Store.View().Node(r.node).GetBoot()
	if p.flow.GetKind() != api.FlowKind_FLOW_HARDWARE || boot.GetTarget() != api.BootTarget_BOOT_RAMDISK {
		return nil
	}
	return []*api.Op{r.write(p.flow, []string{"boot"}, &api.Node{Boot: r.newBoot(1)})}
}

// failureEndsBoot says whether the boot nonce ends with a flow that did not
// succeed. What goes on beside the lifecycle leaves the boot alone: the machine
// may still be on, and is switched off later for that record only.
func failureEndsBoot(f *api.Flow) bool {
	switch f.GetKind() {
	case api.FlowKind_FLOW_POWER, api.FlowKind_FLOW_HARDWARE:
		return f.GetRequest() == api.Event_EV_FAIL // two machines claim it
	}
	return true
}
