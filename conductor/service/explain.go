package service

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cluster/duties"
	"github.com/ironring/ironring/conductor/bmc"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/node"
)

// Explain implements api.IronringServer: why a node is where it is.
func (s *Service) Explain(ctx context.Context, req *api.ExplainRequest) (*api.ExplainReply, error) {
	v := s.cfg.Cluster.Store().View()
	n, err := v.NodeByRef(req.GetNode())
	if err != nil {
		return nil, err
	}
	id := n.GetId()
	out := &api.ExplainReply{
		Node: masked(n), Flow: maskedFlow(v.Flow(id)), Lock: v.Lock(id), Intent: v.Intent(id), Index: v.Index(),
		SinceMs: n.GetStateSinceMs(),
	}
	if out.Lock != nil {
		out.Lease = v.Lease(out.Lock.GetLeaseId())
	}
	out.Live, out.LiveFrom = s.facts(ctx, id)
	s.mergeFacts(ctx, id, out.Live)
	if f := v.Flow(id); !f.GetStarted() || f.GetStatus() != api.FlowStatus_FLOW_RUNNING || out.GetLive().GetProgress().GetCmdId() != f.GetCmdId() {
		out.Live.Progress = nil // of work that has ended
	}
	if who := keeper(v, id); who != "" && out.LiveFrom == "" {
		role := "owner"
		if out.Lock != nil {
			role = "holder"
		}
		out.Notes = append(out.Notes, fmt.Sprintf("%s %s does not answer: what is said of contacts and progress is what the other peers saw", role, who))
		if out.Lock != nil && out.GetLease().GetState() == api.Lease_LIVE {
			out.WaitsFor = s.silent(out.Lock, out.Lease)
		}
	}
	explain(out, v, s.cfg.Clock.Now())
	if contact, behind := s.cfg.Cluster.LeaderContact(), s.cfg.Cluster.Behind(); contact <= staleAfter && behind > behindAfter {
		out.Notes = append(out.Notes, fmt.Sprintf("this peer has applied no change for %v, although it hears the leader (is its disk full?): what you see is old", behind.Round(time.Second)))
	} else if s.Stale() {
		out.Notes = append(out.Notes, fmt.Sprintf("this peer has had no contact with a leader for %v: what you see may be old", s.cfg.Cluster.LeaderContact().Round(time.Second)))
	}
	return out, nil
}

// silent says of a holder that does not answer how long it may go on, by what
// this peer has seen of its renewals: about, because only the leader judges.
func (s *Service) silent(l *api.Lock, lease *api.Lease) string {
	text := fmt.Sprintf("the holder %s, which does not answer", l.GetConductor())
	seen, known := s.renewals.since(lease)
	if !known {
		return text
	}
	left := time.Duration(lease.GetTiming().GetLeaseMs())*time.Millisecond - seen
	if left <= 0 {
		return text + "; its lease is about to end"
	}
	return fmt.Sprintf("%s; its lease runs out in about %.0f s unless it is renewed", text, left.Seconds())
}

// explain fills in the sentences. Pure.
func explain(out *api.ExplainReply, v *fsm.View, now time.Time) {
	n, f := out.Node, out.Flow
	running := f != nil && f.GetStatus() == api.FlowStatus_FLOW_RUNNING
	state := node.StateName(n.GetState())
	if n.GetErasure().GetLevel() == api.Erasure_METADATA {
		out.Notes = append(out.Notes, "last clean: metadata only, data remains")
	}
	if n.GetMaintenance() {
		out.Notes = append(out.Notes, "in maintenance: "+orNone(n.GetMaintenanceReason()))
	}
	if note := evidenceNote(n); note != "" {
		out.Notes = append(out.Notes, note)
	}
	if f.GetPowerOns() > 0 {
		out.Notes = append(out.Notes, fmt.Sprintf("power-ons for the %s flow: %d", strings.ToLower(strings.TrimPrefix(f.GetKind().String(), "FLOW_")), f.GetPowerOns()))
	}
	out.Notes = append(out.Notes, machineNotes(v.Node(n.GetId()), f, out.GetLive(), v.Globals().GetTicks(), now)...)
	out.Notes = append(out.Notes, reachNotes(v, v.Node(n.GetId()))...)
	// The record as it is stored: parking is bound to the sealed credentials.
	if err := bmc.Parked(v.Node(n.GetId())); err != nil {
		out.Advice = err.Error()
	}
	if n.GetAssigned() == "" {
		out.WaitsFor = "a conductor: " + orNone(n.GetUnassignedReason())
		out.Advice = "start a peer that has the driver and serves the group, or change the node's driver or group"
	}
	if !running {
		out.Summary = fmt.Sprintf("%s: nothing is being done", state)
		if n.GetLastError() != "" {
			out.Summary = fmt.Sprintf("%s: %s", state, n.GetLastError())
			if out.Advice == "" {
				out.Advice = "possible now: " + verbs(n)
			}
		}
		return
	}
	ticks := v.Globals().GetTicks()
	deadline(out, ticks)
	if note := requestNote(n, f); note != "" {
		out.Notes = append(out.Notes, note)
	}
	step := "its end"
	if int(f.GetCursor()) < len(f.GetSteps()) {
		st := f.GetSteps()[f.GetCursor()]
		step = node.IDOf(st).String()
		if f.GetStarted() {
			out.SinceMs = st.GetStartedMs()
		}
	}
	out.Summary = fmt.Sprintf("%s: step %d of %d (%s)", state, min(int(f.GetCursor())+1, len(f.GetSteps())), len(f.GetSteps()), step)
	switch {
	case out.WaitsFor != "":
	case out.Lock == nil && out.GetLive().GetWaits() != "":
		out.WaitsFor = out.GetLive().GetWaits()
	case out.Lock == nil && duties.ReachOf(v).HandsOver(n):
		out.WaitsFor = fmt.Sprintf("a new owner: %s does not reach its BMC, and another peer does", n.GetAssigned())
	case out.Lock == nil:
		out.WaitsFor = fmt.Sprintf("its owner %s to take the lock", n.GetAssigned())
		if v.LiveLease(n.GetAssigned()) == nil {
			out.WaitsFor = fmt.Sprintf("a new owner: %s has no live lease", n.GetAssigned())
		}
	case n.GetQuarantine().GetClass() != api.Quarantine_NONE && out.Intent != nil:
		out.WaitsFor = "the quarantine: the former holder's last call to the BMC may still take effect"
	case !f.GetStarted():
		out.WaitsFor = "the step to be started"
	default:
		out.WaitsFor = waits(f.GetSteps()[f.GetCursor()], out.Live, now)
	}
}

// waits says what a started step waits for.
func waits(st *api.Step, live *api.LiveFacts, now time.Time) string {
	step := node.IDOf(st)
	switch step.Interface {
	case "power", "management":
		if live.GetBmcError() != "" {
			return "the BMC: " + live.GetBmcError()
		}
		return "the BMC"
	case "agent", "deploy", "clean":
		if step == node.StepEvidence {
			return "the deployed system to show that it runs"
		}
		if step == node.StepAgentWait {
			return "the machine to boot the ramdisk; last stage seen: " + orNone(live.GetBootStage())
		}
		return waitsForAgent(st, live, now)
	}
	return "the conductor"
}

func verbs(n *api.Node) string {
	out := ""
	for i, ev := range node.Possible(n.GetState()) {
		if i > 0 {
			out += ", "
		}
		out += node.VerbName(ev)
	}
	return orNone(out)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// reachNotes say who does not reach the node's BMC.
func reachNotes(v *fsm.View, n *api.Node) []string {
	recs := v.Reaches()
	if len(recs) == 0 {
		return nil
	}
	subnet := node.BMCSubnet(n)
	var missed, reached []string
	for _, r := range recs {
		switch {
		case r.GetSubnet() != subnet:
		case r.GetReachable():
			reached = append(reached, r.GetMember())
		default:
			missed = append(missed, r.GetMember()+" since "+time.UnixMilli(r.GetSinceMs()).UTC().Format(time.RFC3339))
		}
	}
	switch {
	case len(missed) == 0:
		return nil
	case len(reached) == 0:
		return []string{fmt.Sprintf("BMC subnet %s is known to be reached by no peer (%s): nothing is moved", subnet, strings.Join(missed, ", "))}
	}
	return []string{fmt.Sprintf("BMC subnet %s is not reached by %s; it is by %s", subnet, strings.Join(missed, ", "), strings.Join(reached, ", "))}
}

// evidenceNote says what was seen of the deployed system.
func evidenceNote(n *api.Node) string {
	e := n.GetEvidence()
	at := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
	switch {
	case e.GetSeen() != "":
		return fmt.Sprintf("evidence of the deployed system: %s from %s at %s", e.GetSeen(), e.GetSource(), at(e.GetSeenMs()))
	case e.GetBootEntry() == "":
		return ""
	case e.GetPolicy() == "none":
		return fmt.Sprintf("evidence of the deployed system: boot entry %q, read back at %s", e.GetBootEntry(), at(e.GetBootEntryMs()))
	}
	return fmt.Sprintf("evidence of the deployed system: nothing yet, %s is waited for", e.GetPolicy())
}
