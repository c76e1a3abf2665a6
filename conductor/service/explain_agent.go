package service

import (
	"fmt"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/flow"
	"github.com/ironring/ironring/node"
)

// agentSilent is after how long an agent that has work counts as not heard of:
// it sends its progress several times a second.
const agentSilent = 15 * time.Second

// waitsForAgent says what the agent says of its work, such as that an image
// server refuses the connection, or for how long it has said nothing.
func waitsForAgent(st *api.Step, live *api.LiveFacts, now time.Time) string {
	p := live.GetProgress()
	text := "the agent"
	heard := max(live.GetAgentContactMs(), p.GetAtMs(), st.GetStartedMs())
	if quiet := now.Sub(time.UnixMilli(heard)); heard > 0 && quiet >= agentSilent {
		text += fmt.Sprintf(": not heard of for %.0f s", quiet.Seconds())
		if limit := flow.StallLimit(st); limit > 0 {
			text += fmt.Sprintf(" (its step fails after %.0f s of silence)", limit.Seconds())
		}
		if p.GetPercent() > 0 || p.GetMessage() != "" {
			text += "; its last word"
		}
	}
	if p.GetPercent() > 0 {
		text += fmt.Sprintf(": %.0f %%", p.GetPercent())
	}
	switch {
	case p.GetMessage() == "":
	case p.GetPercent() > 0:
		text += " " + p.GetMessage()
	default:
		text += ": " + p.GetMessage()
	}
	return text
}

// deadline is what ends the step first: its time, or that nothing moves in it.
// Between steps it is the state's time.
func deadline(out *api.ExplainReply, ticks uint64) {
	n, f, l := out.Node, out.Flow, out.Lock
	left := func(at uint64) {
		if at > ticks && (out.DeadlineInMs == 0 || at-ticks < out.DeadlineInMs) {
			out.DeadlineInMs = at - ticks
		}
	}
	if !f.GetStarted() || f.GetStepDeadlineTick() <= ticks {
		left(n.GetStateDeadlineTick())
		return
	}
	left(f.GetStepDeadlineTick())
	if limit := flow.StallLimit(f.GetSteps()[f.GetCursor()]); l != nil && limit > 0 {
		left(l.GetProgressTick() + uint64(limit.Milliseconds()))
	}
}

// requestNote says what was asked of the flow, and when an abort is possible.
func requestNote(n *api.Node, f *api.Flow) string {
	switch f.GetRequest() {
	case api.Event_EV_ABORT:
		return "abort was asked for: the flow is about to end"
	case api.Event_EV_DELETE:
		return "undeploy was asked for: the flow is about to end, and a teardown follows"
	case api.Event_EV_FAIL:
		return "two machines claim this boot: the flow is about to fail"
	}
	if err := node.CheckVerb(n, api.Event_EV_ABORT); err != nil && node.Waits(n.GetState()) {
		return err.Error()
	}
	return ""
}
