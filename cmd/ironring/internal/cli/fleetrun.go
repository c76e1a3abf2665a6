package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// outcome is what became of one node.
type outcome struct {
	Node   string `json:"node"`
	ID     string `json:"id"`
	Result string `json:"result"` // "done", "failed", "not begun", "would be done", "would be refused"
	Text   string `json:"text,omitempty"`
	Error  string `json:"error,omitempty"`
	Kind   string `json:"kind,omitempty"`
}

func (o *outcome) good() bool { return o.Result == "done" || o.Result == "would be done" }

func (o *outcome) fail(result string, err error) {
	o.Result, o.Text, o.Error, o.Kind = result, "", err.Error(), errs.KindOf(err).String()
}

func dry(nodes []*api.Node, w work) []outcome {
	out := make([]outcome, len(nodes))
	for i, n := range nodes {
		out[i] = outcome{Node: node.Label(n), ID: n.GetId(), Result: "would be done", Text: w.verb + ", is " + node.StateName(n.GetState())}
		if w.would == nil {
			continue
		}
		if err := w.would(n); err != nil {
			out[i].fail("would be refused", err)
		}
	}
	return out
}

// all works on the nodes, some at a time, until all are done or too many have
// failed.
func (s *fleet) all(ctx context.Context, c *client.Client, nodes []*api.Node, filter *where, w work) []outcome {
	out := make([]outcome, len(nodes))
	var mu sync.Mutex
	failures := 0
	var group sync.WaitGroup
	slots := make(chan struct{}, s.parallel)
	for i, n := range nodes {
		out[i] = outcome{Node: node.Label(n), ID: n.GetId(), Result: "not begun"}
		slots <- struct{}{}
		mu.Lock()
		enough := s.maxFailures > 0 && failures >= s.maxFailures
		mu.Unlock()
		if enough || ctx.Err() != nil {
			out[i].Error = "too many failures before it"
			if ctx.Err() != nil {
				out[i].Error = "interrupted"
			}
			<-slots
			continue
		}
		group.Go(func() {
			defer func() { <-slots }()
			text, err := again(ctx, c, n, filter, w, w.each)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failures++
				out[i].fail("failed", err)
				return
			}
			out[i].Result, out[i].Text = "done", text
		})
	}
	group.Wait()
	return out
}

// again does the work to a node if it still is the one that was agreed to: it
// may have changed while the person was asked, or while others were worked on.
// It is read over all that is committed, and the work is asked of that revision
// only. A revision also changes by what is observed of a machine; so when the
// node is the same in all that counts it is tried again, some times.
func again(ctx context.Context, c *client.Client, was *api.Node, filter *where, w work, do func(context.Context, *client.Client, *api.Node) (string, error)) (string, error) {
	same := w.same
	if same == nil {
		same = sameNode
	}
	const tries = 5
	flow := ""
	for try := 1; ; try++ {
		rep, err := c.GetNode(ctx, &api.GetNodeRequest{Node: was.GetId(), Read: &api.ReadOptions{Linearizable: true}})
		if err != nil {
			return "", err
		}
		now := rep.GetNode()
		if filter != nil {
			if ok, err := filter.matches(ctx, now); err != nil || !ok {
				return "", errs.About(errs.Conflict, was.GetId(), "has changed meanwhile and is not meant by --where any more; nothing was done to it")
			}
		}
		if err := same(was, now); err != nil {
			return "", err
		}
		if try > 1 && rep.GetFlow().GetId() != flow {
			return "", errs.About(errs.Conflict, was.GetId(), "has changed meanwhile: other work was begun on it; nothing was done to it")
		}
		flow = rep.GetFlow().GetId()
		text, err := do(ctx, c, now)
		var failed *client.WorkFailed // was accepted, and is not asked for again
		if !errors.Is(err, errs.Conflict) || errors.As(err, &failed) || try == tries {
			return text, err
		}
	}
}

// sameNode refuses a node that is not what it was: in its state, or in
// anything that people say of it.
func sameNode(was, now *api.Node) error {
	what := ""
	if was.GetState() != now.GetState() || was.GetStateSinceMs() != now.GetStateSinceMs() {
		what = "its state was " + node.StateName(was.GetState()) + ", is " + node.StateName(now.GetState())
	}
	for _, field := range node.SpecFields {
		a, b := &api.Node{}, &api.Node{}
		if err := errors.Join(node.Apply(a, []string{field}, was), node.Apply(b, []string{field}, now)); err != nil {
			return err
		}
		if what == "" && !proto.Equal(a, b) {
			what = field
		}
	}
	if what == "" {
		return nil
	}
	return errs.About(errs.Conflict, was.GetId(), "has changed meanwhile: %s; nothing was done to it", what)
}

// report prints what became of the nodes; an error ends the program with exit
// code 1.
func (f *Factory) report(all []outcome) error {
	bad := slices.ContainsFunc(all, func(o outcome) bool { return !o.good() })
	if err := f.printOutcomes(all); err != nil {
		return err
	}
	if bad {
		return exitStatus(1)
	}
	return nil
}

func (f *Factory) printOutcomes(all []outcome) error {
	if f.json() {
		return f.encode(map[string]any{"results": all})
	}
	t := newTable("NODE", "RESULT", "WHAT")
	count := map[string]int{}
	for _, o := range all {
		color := green
		if !o.good() {
			color = red
		}
		count[o.Result]++
		t.add(o.Node, cell{o.Result, color}, f.clip(o.Text+o.Error, 200))
	}
	if err := f.printTable(t); err != nil {
		return err
	}
	var sum []string
	for _, r := range []string{"done", "failed", "not begun", "would be done", "would be refused"} {
		if count[r] > 0 {
			sum = append(sum, fmt.Sprintf("%d %s", count[r], r))
		}
	}
	_, err := fmt.Fprintf(f.Err, "%s\n", strings.Join(sum, ", "))
	return err
}
