package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/agents"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// Steps that wait for the agent or have it do something.

// agentWait waits for the agent of the current boot. A machine of which
// nothing new is seen for the stall limit is switched off and on again, a
// bounded number of times.
func (r *runner) agentWait(ctx context.Context, p position) (outcome, error) {
	n := r.cfg.Store.View().Node(r.node)
	nonce := n.GetBoot().GetNonce()
	found := make(chan error, 1)
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { found <- r.cfg.Hub.Wait(wctx, r.node, nonce) }()
	set := r.cfg.Store.View().Settings()
	limit := time.Duration(set.GetBootStallMs()) * time.Millisecond
	sight := r.watchBoot(wctx)
	defer sight.stop()
	last, since := sight.now(), r.cfg.Clock.Elapsed()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case err := <-found:
			if err != nil {
				return outcome{}, err
			}
			return outcome{result: map[string]any{"boot_tries": n.GetBoot().GetTries()}}, nil
		case <-look.C:
		}
		if now := sight.now(); now != last {
			last, since = now, r.cfg.Clock.Elapsed()
		}
		quiet := r.cfg.Clock.Elapsed() - since
		if limit <= 0 || quiet < limit {
			continue
		}
		cancel()
		if err := <-found; err == nil {
			return outcome{result: map[string]any{"boot_tries": n.GetBoot().GetTries()}}, nil
		}
		why := "nothing was heard of the machine since power-on: is it wired to the provisioning network, and are its ports' MAC addresses right?"
		if last.stage != "" {
			why = fmt.Sprintf("the machine was last seen at stage %q", last.stage)
		}
		if p.flow.GetRewinds()+1 >= set.GetBootTries() {
			return outcome{}, errs.About(errs.Internal, r.node, "the agent did not call in %d boots; %s", p.flow.GetRewinds()+1, why)
		}
		return outcome{}, &rewind{to: uint32(node.RamdiskStart(p.flow, int(p.flow.GetCursor()))), reason: fmt.Sprintf("%v without a sign: %s", limit, why)}
	}
}

// command has the agent carry out the command of this step and decodes its
// result into out. The cmdID makes it safe to ask again after a takeover.
// secrets are texts in args that the agent's messages must not show.
func (r *runner) command(ctx context.Context, p position, name string, args, out any, secrets ...string) error {
	body, err := json.Marshal(args)
	if err != nil {
		return fmt.Errorf("arguments of %s: %w", name, err)
	}
	var moved progress
	ctx, alive, stop := r.watchStall(ctx, p.step, "the agent made no progress for %v: is the machine still on, and does it reach the peers?")
	defer stop()
	reply, err := r.cfg.Hub.Run(ctx, agents.Call{
		Node: r.node, Nonce: r.cfg.Store.View().Node(r.node).GetBoot().GetNonce(), Token: r.token,
		CmdID: p.flow.GetCmdId(), Name: name, Args: body, Incarnation: p.flow.GetAgentIncarnation(), Secrets: secrets,
		Check: func() error { return r.grant().Check() },
		OnStatus: func(st *api.CommandStatus) {
			if moved.by(st) {
				r.gate.Progress(r.token)
				alive()
			}
			r.cfg.Journal.Update(r.node, func(f *api.LiveFacts) {
				if f.Progress != nil {
					f.Progress.Step = node.IDOf(p.step).String()
				}
			})
		},
	})
	if errors.Is(err, agents.ErrReborn) {
		return r.reborn(p, err)
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(reply, out); err != nil {
		return errs.New(errs.Internal, "result of %s: %w", name, err)
	}
	return nil
}

// reborn is the restart rule of steps that an agent does: what a forgotten
// command has done is not known, as after another boot. The flow goes back to
// the inventory, so that it is proven once more which machine this is and which
// disk is meant before anything is written. What ran once runs again, under
// another cmdID.
func (r *runner) reborn(p position, cause error) error {
	if most := r.cfg.Store.View().Settings().GetBootTries(); p.flow.GetRewinds()+1 >= most {
		return errs.About(errs.Internal, r.node, "%w, for the %d. time in this flow: look at the machine's memory and at the agent's log", cause, p.flow.GetRewinds()+1)
	}
	for i := int(p.flow.GetCursor()); i >= 0; i-- {
		if node.IDOf(p.flow.GetSteps()[i]) == node.StepInventory {
			return &rewind{to: uint32(i), reason: cause.Error()}
		}
	}
	return cause
}

// StallLimit is for how long the agent may make no progress in a step before
// the step fails, 0: not watched.
func StallLimit(step *api.Step) time.Duration {
	limit := time.Duration(step.GetStallLimitMs()) * time.Millisecond
	return limit - ahead(limit)
}

// watchStall ends the context of a step in which there is no progress for a
// little less than the lock allows: the machine may be gone. alive must be
// called at each progress. text is who makes none, with %v for how long.
func (r *runner) watchStall(ctx context.Context, step *api.Step, text string) (_ context.Context, alive, stop func()) {
	limit := StallLimit(step)
	if limit == 0 {
		return ctx, func() {}, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	t := time.AfterFunc(limit, func() {
		cancel(errs.About(errs.Internal, r.node, text, limit))
	})
	return ctx, func() { t.Reset(limit) }, func() { t.Stop(); cancel(nil) }
}

// progress tells movement from repetition.
type progress struct {
	bytes   uint64
	percent float64
	text    string
}

func (p *progress) by(st *api.CommandStatus) bool {
	now := progress{st.GetDoneBytes(), st.GetPercent(), st.GetMessage()}
	moved := now != *p
	*p = now
	return moved
}

// maxInventory bounds the stored inventory.
const maxInventory = 128 << 10

// inventory asks the agent what the machine is made of and stores it.
func (r *runner) inventory(ctx context.Context, p position) (outcome, error) {
	var inv agentproto.Inventory
	ctx, giveUp, stop := r.untilShown(ctx, p)
	defer stop()
	if err := r.command(ctx, p, agentproto.CmdInventory, struct{}{}, &inv); err != nil {
		return outcome{}, giveUp(err)
	}
	doc, err := json.Marshal(inv)
	if err != nil {
		return outcome{}, err
	}
	if len(doc) > maxInventory {
		return outcome{}, errs.New(errs.Unsupported, "the inventory has %d bytes, more than the %d that are stored", len(doc), maxInventory)
	}
	return outcome{
		result: map[string]any{"disks": len(inv.Disks), "interfaces": len(inv.Interfaces), "memory_bytes": inv.MemoryBytes, "cpus": inv.CPUs},
		ops: []*api.Op{{Op: &api.Op_InventorySet{InventorySet: &api.InventorySet{Token: r.token, Inventory: &api.Inventory{
			NodeId: r.node, Json: doc, CollectedMs: r.cfg.Clock.Now().UnixMilli(),
		}}}}},
	}, nil
}

// stored is the inventory of the current flow.
func (r *runner) stored() (*agentproto.Inventory, error) {
	rec := r.cfg.Store.View().Inventory(r.node)
	if rec == nil {
		return nil, errs.About(errs.NotFound, r.node, "node %s has no inventory", r.node)
	}
	var inv agentproto.Inventory
	if err := json.Unmarshal(rec.GetJson(), &inv); err != nil {
		return nil, errs.New(errs.Internal, "stored inventory: %w", err)
	}
	return &inv, nil
}

// checkIdentity proves, before anything is written, that the machine that runs
// the agent is the one whose BMC we switched.
func (r *runner) checkIdentity(ctx context.Context, p position) (outcome, error) {
	facts, err := r.cfg.BMC.Identify(ctx, r.node)
	if err != nil {
		return outcome{}, r.loginError(err)
	}
	inv, err := r.stored()
	if err != nil {
		return outcome{}, err
	}
	v := r.cfg.Store.View()
	proof, err := sameMachine(inv, v.Node(r.node), facts, v.PortsOf(r.node))
	if err != nil {
		return outcome{}, err
	}
	return outcome{result: map[string]any{"proof": proof}, ops: []*api.Op{r.write(p.flow, []string{"bmc"}, &api.Node{Bmc: facts})}}, nil
}
