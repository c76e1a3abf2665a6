package node

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
)

var update = flag.Bool("update", false, "write the generated document")

const lifecycleDoc = "../docs/lifecycle.md"

// TestLifecycleDoc is both the generator of docs/lifecycle.md (go generate)
// and the check that it is up to date.
func TestLifecycleDoc(t *testing.T) {
	want := renderLifecycle()
	if *update {
		if err := os.WriteFile(lifecycleDoc, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(lifecycleDoc)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/lifecycle.md is not up to date: run go generate ./node")
	}
}

func renderLifecycle() []byte {
	var b strings.Builder
	b.WriteString(`# Lifecycle of a node

Generated from package node by ` + "`go generate ./node`" + `; do not edit.

State names are those of Ironic. Solid lines are verbs that a user asks for, dotted lines
are what a conductor, an agent or a timer reports. Each part of the life has a diagram of its own;
the tables below are complete.
`)
	for _, part := range parts {
		fmt.Fprintf(&b, "\n## %s\n\n", part.title)
		renderDiagram(&b, part.from)
	}
	renderStates(&b)
	renderEdges(&b)
	return []byte(b.String())
}

// parts divides the states by what the machine is going through; every state
// is in exactly one, and each edge is drawn in the part of its first state.
var parts = []struct {
	title string
	from  []api.State
}{
	{"Enrolment, inspection, adoption", []api.State{enroll, verifying, manageable, inspecting, inspectWait, inspectFailed, adopting, adoptFailed}},
	{"Deployment", []api.State{available, deploying, deployWait, deployHold, deployFailed, active}},
	{"Tear-down and cleaning", []api.State{deleting, errorState, cleaning, cleanWait, cleanHold, cleanFailed}},
	{"Rescue", []api.State{rescuing, rescueWait, rescueFailed, rescue, unrescuing, unrescueFailed}},
	{"Service", []api.State{servicing, serviceWait, serviceHold, serviceFailed}},
}

func renderDiagram(b *strings.Builder, from []api.State) {
	b.WriteString("```mermaid\nflowchart LR\n")
	seen := map[api.State]bool{}
	declare := func(s api.State) {
		if !seen[s] {
			seen[s] = true
			fmt.Fprintf(b, "  %s%s\n", s, shape(s))
		}
	}
	for _, s := range from {
		declare(s)
		for _, e := range Table {
			if e.From == s {
				declare(e.To)
			}
		}
	}
	for _, s := range from {
		for _, e := range Table {
			switch {
			case e.From != s:
			case e.Who&ByAPI != 0:
				fmt.Fprintf(b, "  %s -->|%s| %s\n", e.From, VerbName(e.Event), e.To)
			default:
				fmt.Fprintf(b, "  %s -.->|%s| %s\n", e.From, VerbName(e.Event), e.To)
			}
		}
	}
	b.WriteString("```\n")
}

func shape(s api.State) string {
	switch {
	case Working(s):
		return fmt.Sprintf("[[%s]]", StateName(s))
	case Waiting(s):
		return fmt.Sprintf("[/%s/]", StateName(s))
	case Failed(s), s == errorState:
		return fmt.Sprintf("{{%s}}", StateName(s))
	case Held(s):
		return fmt.Sprintf("[(%s)]", StateName(s))
	}
	return fmt.Sprintf("([%s])", StateName(s))
}

func renderStates(b *strings.Builder) {
	b.WriteString(`
## States

Transient states (working, waiting) have an owner and a deadline on the cluster clock; a flow may name another
deadline. When it has passed, ` + "`fail`" + ` is fired. "Patch" is whether spec fields may be changed, "delete" whether the record may be
deleted; in maintenance it may be deleted in every state, while protected in none.

| State | Group | Longest stay | Patch | Delete | Verbs |
|---|---|---|---|---|---|
`)
	for _, s := range States() {
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s | %s |\n", StateName(s), groupName(s), stay(Deadline(s)),
			yes(Updatable(s)), yes(Deletable(s)), joinVerbs(Allowed(s)))
	}
}

func renderEdges(b *strings.Builder) {
	b.WriteString(`
## Transitions

"Target" is the target state afterwards: "kept" is the one before, "-" is none. Ironic calls deploy ` + "`active`" + ` and undeploy ` + "`deleted`" + `.
A conductor that reports ` + "`done`" + ` for a clean whose target is manageable takes the edge ` + "`manage`" + `.
A verb on a node whose work is unfinished is committed by the holder of the node's lock.

| From | Event | To | Target | Who | Guard |
|---|---|---|---|---|---|
`)
	for _, e := range Table {
		target := StateName(e.Target)
		switch e.Target {
		case KeepTarget:
			target = "kept"
		case none:
			target = "-"
		}
		fmt.Fprintf(b, "| `%s` | %s | `%s` | %s | %s | %s |\n",
			StateName(e.From), VerbName(e.Event), StateName(e.To), target, e.Who, e.Guard)
	}
}

func groupName(s api.State) string {
	switch {
	case Stable(s):
		return "stable"
	case Failed(s):
		return "failed"
	case Held(s):
		return "held"
	case Working(s):
		return "working"
	}
	return "waiting"
}

func stay(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d%time.Hour == 0:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d min", d/time.Minute)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func TestEveryStateIsDrawnOnce(t *testing.T) {
	count := map[api.State]int{}
	for _, p := range parts {
		for _, s := range p.from {
			count[s]++
		}
	}
	for _, s := range States() {
		if count[s] != 1 {
			t.Errorf("%s is drawn %d times", StateName(s), count[s])
		}
	}
}
