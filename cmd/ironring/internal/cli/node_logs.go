package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/journalkind"
)

func newNodeLogsCmd(f *Factory) *cobra.Command {
	req := &api.JournalRequest{}
	var since time.Duration
	cmd := &cobra.Command{
		Use:   "logs NODE",
		Short: "Show what the peers and the agent logged of a node",
		Long: `Show what all live peers saw of a node: boot requests, lines of the agent,
calls to the BMC, steps. With -o json each event is one line.`,
		Example: "  ironring node logs n1 -f\n  ironring node logs n1 --since 1h --kind agent --kind log",
		Args:    cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			req.Node = args[0]
			if since < 0 {
				return errs.About(errs.Invalid, "since", "--since %s: must not be negative", since)
			}
			for _, k := range req.GetKinds() {
				if !slices.Contains(journalkind.All, k) {
					return errs.About(errs.Invalid, "kind", "--kind %q: must be one of %s", k, strings.Join(journalkind.All, ", "))
				}
			}
			if since > 0 {
				req.SinceMs = f.Now().Add(-since).UnixMilli()
			}
			if req.GetFollow() {
				var cancel context.CancelFunc
				ctx, cancel = f.waitContext(ctx)
				defer cancel()
			}
			err := c.Journal(ctx, req, func(ev *api.JournalEvent) error {
				if f.json() {
					return f.printJSONLine(ev)
				}
				_, err := fmt.Fprintf(f.Out, "%s  %-6s %-5s %s\n", stamp(ev.GetAtMs()), ev.GetPeer(), ev.GetKind(), journalText(ev))
				return err
			})
			if req.GetFollow() && ctx.Err() != nil {
				return nil // the person has seen enough
			}
			return err
		}),
	}
	fl := cmd.Flags()
	fl.BoolVarP(&req.Follow, "follow", "f", false, "go on with what comes")
	fl.DurationVar(&since, "since", 0, "only the last `DURATION`")
	fl.StringArrayVar(&req.Kinds, "kind", nil, "only this `KIND`: "+strings.Join(journalkind.All, ", ")+"; repeat it")
	fl.BoolVar(&req.Local, "local", false, "only what the answering peer has")
	return cmd
}

func journalText(ev *api.JournalEvent) string {
	text := oneLine(ev.GetText())
	if ev.GetStage() != "" {
		text = ev.GetStage() + ": " + text
	}
	return text
}

func newNodeTimelineCmd(f *Factory) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "timeline NODE",
		Short: "Show how the machine booted, from the first DHCP packet on",
		Long: `Show every request that the machine made while it booted, with the time since
the request before. Only the last boot of the ramdisk, unless --all is given.
With -o json each event is one line.`,
		Example: "  ironring node timeline n1",
		Args:    cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			var events []*api.JournalEvent
			err := c.Journal(ctx, &api.JournalRequest{Node: args[0], Kinds: journalkind.Boot}, func(ev *api.JournalEvent) error {
				events = append(events, ev)
				return nil
			})
			if err != nil {
				return err
			}
			if !all {
				events = lastBoot(events)
			}
			t := newTable("TIME", "AFTER", "PEER", "KIND", "STAGE", "MAC", "WHAT")
			for i, ev := range events {
				if f.json() {
					if err := f.printJSONLine(ev); err != nil {
						return err
					}
					continue
				}
				after := ""
				if i > 0 {
					after = "+" + span(time.Duration(ev.GetAtMs()-events[i-1].GetAtMs())*time.Millisecond)
				}
				t.add(stamp(ev.GetAtMs()), after, ev.GetPeer(), ev.GetKind(), ev.GetStage(), ev.GetMac(), f.clip(ev.GetText(), 80))
			}
			if f.json() {
				return nil
			}
			return f.printTable(t)
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "all boots that the peers remember")
	return cmd
}

// lastBoot keeps the events from the first one with the last boot nonce on.
func lastBoot(events []*api.JournalEvent) []*api.JournalEvent {
	nonce := ""
	for _, ev := range events {
		if ev.GetBootNonce() != "" {
			nonce = ev.GetBootNonce()
		}
	}
	for i, ev := range events {
		if nonce != "" && ev.GetBootNonce() == nonce {
			return events[i:]
		}
	}
	return events
}
