package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/node"
)

func newNodeExplainCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "explain NODE",
		Short: "Say on one screen why a node is where it is",
		Long: `Say why a node is where it is: who owns and who holds it, which step is being
done, what it waits for, since when and until when, and when its BMC, its
firmware and its agent were last heard of.`,
		Example: "  ironring node explain n1",
		Args:    cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			rep, err := c.Explain(ctx, &api.ExplainRequest{Node: args[0]})
			if err != nil {
				return err
			}
			return f.print(rep, func() error { return f.printTable(f.explain(rep)) })
		}),
	}
}

// explain is one screen. Lines that have nothing to say are left out, those of
// the contacts excepted: that something was never heard of is worth knowing.
func (f *Factory) explain(r *api.ExplainReply) *table {
	n, t := r.GetNode(), &table{}
	line := func(key, format string, args ...any) {
		if s := fmt.Sprintf(format, args...); s != "" {
			t.add(key, s)
		}
	}
	line("node", "%s (%s)", node.Label(n), n.GetId())
	line("summary", "%s", r.GetSummary())
	state := stateCell(n)
	if to := node.StateName(n.GetTargetState()); to != "" {
		state.text += ", on the way to " + to
	}
	t.add("state", state)
	line("waits for", "%s", r.GetWaitsFor())
	since := r.GetSinceMs()
	if since == 0 {
		since = n.GetStateSinceMs()
	}
	line("since", "%s", f.ago(since))
	if d := r.GetDeadlineInMs(); d > 0 {
		line("deadline", "in %s", span(time.Duration(d)*time.Millisecond))
	} else if node.Transient(n.GetState()) {
		line("deadline", "passed or not known here")
	}
	line("owner", "%s", ownerText(n))
	if l := r.GetLock(); l != nil {
		breaking := ""
		if l.GetState() == api.Lock_BREAKING {
			breaking = ", being broken"
		}
		line("holder", "%s, token %d, %s (%s) since %s%s", l.GetConductor(), l.GetToken(), l.GetPurpose(), l.GetClass(), f.ago(l.GetAcquiredMs()), breaking)
	} else {
		line("holder", "nobody")
	}
	if l := r.GetLease(); l != nil {
		line("lease", "%s, %s, renewal %d%s", l.GetId(), strings.ToLower(l.GetState().String()), l.GetRenewSeq(), prefixed(", ", l.GetFencedCause()))
	}
	if q := n.GetQuarantine(); q.GetClass() != api.Quarantine_NONE {
		line("quarantine", "%s, since log index %d: the last holder may still act", strings.ToLower(q.GetClass().String()), q.GetFenceIndex())
	}
	if i := r.GetIntent(); i != nil {
		line("intent", "%s announced under token %d and perhaps under way", i.GetKind(), i.GetToken())
	}
	line("flow", "%s", flowText(r.GetFlow()))
	if fl := r.GetFlow(); fl.GetStatus() == api.FlowStatus_FLOW_RUNNING && fl.GetId() != "" {
		line("asked by", "%s", fl.GetMeta().GetPrincipal())
		if n := fl.GetRewinds(); n > 0 {
			line("rewinds", "%d: earlier steps were done again", n)
		}
	}
	if p := r.GetLive().GetProgress(); p != nil {
		line("progress", "%.1f %%%s%s, %s", p.GetPercent(), prefixed(" of ", p.GetStep()), prefixed(": ", p.GetMessage()), f.ago(p.GetAtMs()))
	}
	f.contacts(t, r)
	if e := n.GetLastError(); e != "" {
		t.add("last error", cell{e, red})
	}
	line("fault", "%s", n.GetFault())
	if n.GetMaintenance() {
		t.add("maintenance", cell{"yes" + prefixed(": ", n.GetMaintenanceReason()), yellow})
	}
	line("disks", "%s", erasureText(n))
	for _, note := range r.GetNotes() {
		if e := erasureText(n); e == "" || !strings.Contains(note, e) { // said already
			line("note", "%s", note)
		}
	}
	var verbs []string
	for _, v := range node.PossibleNow(n.GetState(), r.GetFlow()) {
		verbs = append(verbs, node.VerbName(v))
	}
	if fl := r.GetFlow(); len(verbs) == 0 && fl.GetStatus() == api.FlowStatus_FLOW_RUNNING && fl.GetId() != "" {
		verbs = []string{"nothing now: work is under way"}
	}
	line("allowed", "%s", strings.Join(verbs, ", "))
	line("advice", "%s", r.GetAdvice())
	return t
}

func (f *Factory) contacts(t *table, r *api.ExplainReply) {
	l := r.GetLive()
	if r.GetLiveFrom() == "" {
		t.add("contacts", cell{"not known: neither holder nor owner could be asked", yellow})
		return
	}
	contact := func(key string, ms int64, more string) {
		if ms == 0 && more == "" {
			t.add(key, "never, as far as "+r.GetLiveFrom()+" knows")
			return
		}
		t.add(key, strings.TrimPrefix(f.ago(ms)+prefixed(", ", more), ", "))
	}
	power := "power " + powerText(r.GetNode())
	contact("bmc", l.GetBmcContactMs(), power+prefixed(", ", l.GetBmcError()))
	contact("dhcp", l.GetDhcpContactMs(), "")
	contact("boot", l.GetBootContactMs(), prefixed("stage ", l.GetBootStage()))
	stream := prefixed("stream ends at ", l.GetAgentPeer())
	if stream == "" && l.GetAgentContactMs() > 0 {
		stream = "no stream now"
	}
	contact("agent", l.GetAgentContactMs(), stream)
}

// prefixed is s with a prefix, "" when s is empty.
func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func newNodeHistoryCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "history NODE",
		Short: "Show what happened to a node, and who wanted it",
		Long: `Show what happened to a node: when, in which state, who wanted it (WHO: a client
certificate's name, the socket of a peer's host, or a peer), from where (FROM),
why (WHY: the request that it was part of), and the request's id, by which lines
that belong together can be found.`,
		Example: "  ironring node history n1",
		Args:    cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			rep, err := c.History(ctx, &api.HistoryRequest{Node: args[0]})
			if err != nil {
				return err
			}
			return f.print(rep, func() error {
				t := newTable("WHEN", "STATE", "KIND", "WHO", "FROM", "WHY", "REQUEST", "WHAT")
				for _, h := range rep.GetEntries() {
					t.add(f.ago(h.GetAtMs()), node.StateName(h.GetState()), h.GetKind(), h.GetMeta().GetPrincipal(), h.GetMeta().GetSource(), h.GetMeta().GetReason(), f.clip(h.GetMeta().GetRequestId(), 13), f.clip(h.GetText(), 100))
				}
				return f.printTable(t)
			})
		}),
	}
}

func newNodeInventoryCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:     "inventory NODE",
		Short:   "Show what the agent found in the machine, as JSON",
		Example: "  ironring node inventory n1",
		Args:    cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			rep, err := c.GetInventory(ctx, &api.GetInventoryRequest{Node: args[0]})
			if err != nil {
				return err
			}
			return f.printJSON(rep)
		}),
	}
}
