package cli

import (
	"context"
	"slices"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/rpc"
)

// createBatch is how many nodes one call creates.
const createBatch = 128

// carryOut does what was agreed to: first the new nodes, in batches, then the
// changes, some at a time.
func (a *applying) carryOut(ctx context.Context, c *client.Client, changes, todo []*change) error {
	results := make([]outcome, 0, len(todo))
	var fresh, other []*change
	for _, ch := range todo {
		if ch.old == nil {
			fresh = append(fresh, ch)
		} else {
			other = append(other, ch)
		}
	}
	failures := 0
	for batch := range slices.Chunk(fresh, createBatch) {
		out := make([]outcome, len(batch))
		if a.maxFailures > 0 && failures >= a.maxFailures || ctx.Err() != nil {
			for i, ch := range batch {
				out[i] = outcome{Node: ch.entry.label(), ID: ch.entry.id, Result: "not begun"}
			}
		} else {
			a.create(ctx, c, batch, out)
		}
		for _, o := range out {
			if o.Result == "failed" {
				failures++
			}
		}
		results = append(results, out...)
	}
	byID := map[string]*change{}
	var nodes []*api.Node
	for _, ch := range other {
		byID[ch.old.GetId()] = ch
		nodes = append(nodes, ch.old)
	}
	left := a.fleet
	if left.maxFailures > 0 {
		left.maxFailures = max(1, left.maxFailures-failures)
	}
	results = append(results, left.all(ctx, c, nodes, nil, work{verb: "change", same: meant, each: func(ctx context.Context, c *client.Client, n *api.Node) (string, error) {
		return "changed", a.changeOne(ctx, c, byID[n.GetId()], n)
	}})...)
	if a.f.json() {
		if err := a.showPlan(changes, results); err != nil {
			return err
		}
	} else if err := a.f.printOutcomes(results); err != nil {
		return err
	}
	if slices.ContainsFunc(results, func(o outcome) bool { return !o.good() }) {
		return exitStatus(1)
	}
	return nil
}

func (a *applying) create(ctx context.Context, c *client.Client, batch []*change, out []outcome) {
	req := &api.CreateNodesRequest{}
	fail := func(err error) {
		for i, ch := range batch {
			out[i] = outcome{Node: ch.entry.label(), ID: ch.entry.id}
			out[i].fail("failed", err)
		}
	}
	for _, ch := range batch {
		one, err := ch.entry.newNode(a.f)
		if err != nil {
			fail(err)
			return
		}
		req.Nodes = append(req.Nodes, one)
	}
	rep, err := c.CreateNodes(ctx, req)
	if err == nil && len(rep.GetResults()) != len(batch) {
		err = errs.New(errs.Internal, "%d answers for %d nodes", len(rep.GetResults()), len(batch))
	}
	if err != nil {
		fail(err)
		return
	}
	for i, r := range rep.GetResults() {
		out[i] = outcome{Node: batch[i].entry.label(), ID: r.GetCreated().GetNode().GetId(), Result: "done", Text: "created"}
		if f := r.GetFailure(); f != nil {
			out[i].fail("failed", rpc.FromFailure(f))
		}
	}
}

// meant takes a node as it is now: changeOne compares what matters.
func meant(_, _ *api.Node) error { return nil }

// changeOne changes one node, of which n was read just now, if the differences
// still are those that were shown.
func (a *applying) changeOne(ctx context.Context, c *client.Client, ch *change, n *api.Node) error {
	ports, err := c.ListPorts(ctx, &api.ListPortsRequest{Node: ch.old.GetId(), Read: &api.ReadOptions{Linearizable: true}})
	if err != nil {
		return err
	}
	now, err := ch.entry.difference(n, ports.GetPorts(), a.secrets)
	if err != nil {
		return err
	}
	if !slices.Equal(now.lines, ch.lines) {
		return errs.About(errs.Conflict, ch.old.GetId(), "has changed since the differences were shown; nothing was done to it: run the command again")
	}
	if len(now.set)+len(now.unset) > 0 {
		req, err := now.update(a.f)
		if err != nil {
			return err
		}
		if _, err := c.UpdateNode(ctx, req); err != nil {
			return err
		}
	}
	return now.ports.carryOut(ctx, c, ch.old.GetId())
}
