package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
)

func newNodeFlowCmd(f *Factory) *cobra.Command {
	req := &api.GetFlowRequest{Read: &api.ReadOptions{}}
	cmd := &cobra.Command{
		Use:   "flow NODE",
		Short: "Show the steps of the work on a node, the last or the present one",
		Long: `Show the steps of the work on a node, the present or else the last one: how often
each was started, how long it took, and what came of it.`,
		Example: "  ironring node flow n1\n  ironring node flow n1 -o json",
		Args:    cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			req.Node = args[0]
			rep, err := c.GetFlow(ctx, req)
			if err != nil {
				return err
			}
			return f.print(rep, func() error { return f.printFlow(rep.GetFlow()) })
		}),
	}
	cmd.Flags().BoolVar(&req.Read.Linearizable, "linearizable", false, "ask the leader first, so that nothing committed is missing")
	return cmd
}

func (f *Factory) printFlow(fl *api.Flow) error {
	head := &table{}
	head.add("flow", flowText(fl))
	head.add("asked by", fl.GetMeta().GetPrincipal()+prefixed(" from ", fl.GetMeta().GetSource()))
	head.add("since", f.ago(fl.GetCreatedMs()))
	if fl.GetError() != "" {
		head.add("error", cell{fl.GetError(), red})
	}
	if err := f.printTable(head); err != nil {
		return err
	}
	fmt.Fprintln(f.Out)
	t := newTable("STEP", "IS", "STARTS", "TOOK", "RESULT")
	for i, s := range fl.GetSteps() {
		is, took := "to come", ""
		switch {
		case i < int(fl.GetCursor()):
			is = "done"
			if s.GetStartedMs() > 0 && s.GetDoneMs() >= s.GetStartedMs() {
				took = span(time.Duration(s.GetDoneMs()-s.GetStartedMs()) * time.Millisecond)
			}
		case s.GetError() != "":
			is = "failed"
		case i == int(fl.GetCursor()) && fl.GetStarted():
			is = "begun"
		}
		t.add(stepName(s), is, s.GetStarts(), took, f.clip(string(s.GetResult())+s.GetError(), 100))
	}
	return f.printTable(t)
}
