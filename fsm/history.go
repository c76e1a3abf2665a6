package fsm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ironring/ironring/api"
)

// Bounds of what is kept of the past.
const (
	historyKept = 300   // lines a node
	auditKept   = 10000 // lines in all
	textMax     = 512   // bytes of one line's text
)

// Kinds of history lines.
const (
	pastState = "state"
	pastFlow  = "flow"
	pastPatch = "patch"
	pastLock  = "lock"
	pastFence = "fence"
	pastStep  = "step"
)

// past is the history of one node. entries is only ever appended to, and by
// flush alone, so that readers may keep older, shorter slices of one array.
// The audit (head.audits) is kept in the same way.
type past struct {
	node    string
	entries []*api.History
}

// note records a line of a node's past.
func (w *work) note(n *api.Node, kind, format string, args ...any) {
	w.c.nextHistory++
	w.lines = append(w.lines, &api.History{
		Seq: w.c.nextHistory, NodeId: n.GetId(), AtMs: w.meta.GetWallMs(), Index: w.index, Meta: w.meta,
		Kind: kind, Text: clip(fmt.Sprintf(format, args...), textMax), State: n.GetState(),
	})
}

// forget drops a node's past.
func (w *work) forget(nodeID string) {
	w.lines = slices.DeleteFunc(w.lines, func(h *api.History) bool { return h.GetNodeId() == nodeID })
	w.forgotten = append(w.forgotten, nodeID)
}

func (w *work) flushHistory() {
	for _, id := range w.forgotten {
		if old, err := w.db.First(tableHistory, byID, id); err == nil && old != nil {
			must(w.db.Delete(tableHistory, old))
		}
	}
	for _, h := range w.lines {
		var entries []*api.History
		old, err := w.db.First(tableHistory, byID, h.GetNodeId())
		must(err)
		if old != nil {
			entries = old.(*past).entries
		}
		entries = append(entries, h)
		if len(entries) > historyKept {
			entries = entries[len(entries)-historyKept:]
		}
		must(w.db.Insert(tableHistory, &past{node: h.GetNodeId(), entries: entries}))
	}
}

// audited reports whether a command came from a person or a client.
func audited(m *api.Meta) bool {
	return !strings.HasPrefix(m.GetPrincipal(), "peer:") && !strings.HasPrefix(m.GetPrincipal(), "system")
}

// audit records the accepted operations of the command.
func (w *work) audit(cmd *api.Command) {
	if !audited(w.meta) {
		return
	}
	for _, op := range cmd.GetOps() {
		name, subject := describe(op)
		w.c.nextAudit++
		w.audits = append(w.audits, &api.Audit{Seq: w.c.nextAudit, Index: w.index, Meta: w.meta, Op: name, Subject: subject})
	}
}

func (w *work) flushAudit() {
	all := append(w.head.audits, w.audits...)
	w.head.audits = all[max(0, len(all)-auditKept):]
}
