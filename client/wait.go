package client

import (
	"context"
	"errors"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// Until is what Wait waits for.
type Until struct {
	// State that the node must reach, with no unfinished flow. Unset: the end
	// of Flow is enough.
	State api.State
	// Flow is the id of a flow, from FlowReply; only used without State.
	Flow string
	// After is the index of the write that asked for the work, from FlowReply.
	// With it, the work has failed when the node comes to rest in any other
	// state; without it Wait waits for as long as ctx lasts.
	After uint64
}

// errDone ends a watch.
var errDone = errors.New("done")

// Wait watches a node until the work on it has ended. progress, which may be
// nil, is called with each event, node and flow filled in. The result is the
// event that ended the wait. *WorkFailed means that the work ended otherwise
// than hoped; other errors, that the end was not seen.
func (c *Client) Wait(ctx context.Context, node string, until Until, progress func(*api.NodeEvent)) (*api.NodeEvent, error) {
	if until.State == api.State_STATE_UNSPECIFIED && until.Flow == "" {
		return nil, errs.New(errs.Invalid, "wait for node %s: neither a state nor a flow to wait for", node)
	}
	var last *api.NodeEvent
	err := c.Watch(ctx, node, 0, func(ev *api.NodeEvent) error {
		last = merged(ev, last)
		if progress != nil {
			progress(last)
		}
		if ev.GetDeleted() {
			return errs.About(errs.NotFound, node, "node %s was deleted", node)
		}
		if last.GetNode() == nil || last.GetIndex() < until.After {
			return nil
		}
		return until.reached(last)
	})
	if errors.Is(err, errDone) {
		err = nil
	}
	return last, err
}

// reached is errDone when the work has ended well, nil while it goes on.
func (u Until) reached(ev *api.NodeEvent) error {
	node, flow := ev.GetNode(), ev.GetFlow()
	running := flow != nil && flow.GetStatus() == api.FlowStatus_FLOW_RUNNING
	if u.State == api.State_STATE_UNSPECIFIED {
		switch {
		case flow.GetId() != u.Flow:
			if u.After > 0 && flow != nil {
				return &WorkFailed{Node: node, Reason: "the flow was followed by another; its end is in the node's history"}
			}
			return nil
		case running:
			return nil
		case flow.GetStatus() == api.FlowStatus_FLOW_DONE:
			return errDone
		}
		return &WorkFailed{Node: node, Flow: flow, Reason: reason(node, flow)}
	}
	switch {
	case running || Working(node.GetState()):
		return nil
	case node.GetState() == u.State:
		return errDone
	case u.After == 0:
		return nil
	}
	return &WorkFailed{Node: node, Flow: flow, Reason: reason(node, flow)}
}

func reason(node *api.Node, flow *api.Flow) string {
	for _, s := range []string{node.GetLastError(), flow.GetError()} {
		if s != "" {
			return s
		}
	}
	if flow.GetStatus() == api.FlowStatus_FLOW_ABORTED {
		return "aborted"
	}
	return "no error is recorded"
}

// Working reports whether a state is one that a node is in only while work is
// under way or on hold.
func Working(s api.State) bool {
	switch s {
	case api.State_VERIFYING, api.State_DEPLOYING, api.State_DEPLOY_WAIT, api.State_DEPLOY_HOLD,
		api.State_DELETING, api.State_CLEANING, api.State_CLEAN_WAIT, api.State_CLEAN_HOLD,
		api.State_INSPECTING, api.State_INSPECT_WAIT, api.State_ADOPTING, api.State_RESCUING,
		api.State_RESCUE_WAIT, api.State_UNRESCUING, api.State_SERVICING, api.State_SERVICE_WAIT,
		api.State_SERVICE_HOLD:
		return true
	}
	return false
}

func stateName(s api.State) string {
	return strings.ReplaceAll(strings.ToLower(s.String()), "_", " ")
}
