package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// A command that acts on nodes takes one, several, or those that an expression
// means. What it may destroy is named before, and a person says yes.

// askCountAbove is how many nodes may be acted on without their number being
// typed.
const askCountAbove = 10

// fleet is what a command line says of the nodes that are meant, and of how
// they are gone through.
type fleet struct {
	f                                    *Factory
	where                                string
	parallel, maxFailures, confirmedSize int
	dryRun, yes                          bool
}

const fleetHelp = "\n\nSeveral NODEs, or --where EXPR, are worked on side by side, and a table says what\nbecame of each; exit code 1 when not all went well.\n\n" + whereHelp

func (s *fleet) register(cmd *cobra.Command) {
	cmd.Long += fleetHelp
	fl := cmd.Flags()
	fl.StringVar(&s.where, "where", "", "the nodes that `EXPR` means, instead of NODE")
	fl.IntVar(&s.parallel, "parallel", 10, "work on at most `N` nodes at a time")
	fl.IntVar(&s.maxFailures, "max-failures", 3, "begin no more after `N` failures; 0: begin all, whatever fails")
	fl.BoolVar(&s.dryRun, "dry-run", false, "say what would be done, and do nothing")
	fl.BoolVar(&s.yes, "yes", false, "do not ask whether what is lost may be lost")
	fl.IntVar(&s.confirmedSize, "confirm-count", 0, fmt.Sprintf("how many nodes are meant: needed above %d where nobody can be asked", askCountAbove))
}

// work is what a command does to a node.
type work struct {
	verb  string // "undeploy"
	loses string // what is lost for good, as a sentence's object; "" when nothing is
	// would says whether the node as it is now would be refused; may be nil.
	would func(*api.Node) error
	// one does it to a single node and prints what people want to know of it. rev
	// is the revision that a person agreed to; 0 when nobody was asked.
	one func(ctx context.Context, c *client.Client, ref string, rev uint64) error
	// each does it to one of several nodes, as it was read just now, and only to
	// that revision; what it returns stands in the table.
	each func(ctx context.Context, c *client.Client, n *api.Node) (string, error)
	// same says whether a node is still what was agreed to; nil: sameNode.
	same func(was, now *api.Node) error
}

// run does the work to the nodes that are meant.
func (s *fleet) run(ctx context.Context, c *client.Client, cmd *cobra.Command, refs []string, w work) error {
	if err := s.check(cmd, refs); err != nil {
		return err
	}
	single := len(refs) == 1 && !s.dryRun
	if single && s.confirmedSize <= 1 && (w.loses == "" || s.yes) {
		return w.one(ctx, c, refs[0], 0) // no question to ask: the cluster says what is wrong
	}
	nodes, filter, err := s.choose(ctx, c, refs)
	if err != nil {
		return err
	}
	if s.dryRun {
		return s.f.report(dry(nodes, w))
	}
	if err := s.confirm(w, nodes); err != nil {
		return err
	}
	if single {
		_, err := again(ctx, c, nodes[0], filter, w, func(ctx context.Context, c *client.Client, n *api.Node) (string, error) {
			return "", w.one(ctx, c, n.GetId(), n.GetRev())
		})
		return err
	}
	return s.f.report(s.all(ctx, c, nodes, filter, w))
}

func (s *fleet) check(cmd *cobra.Command, refs []string) error {
	switch {
	case len(refs) > 0 && s.where != "":
		return errs.New(errs.Invalid, "give nodes or --where, not both: it would not be clear which are meant")
	case len(refs) == 0 && s.where == "":
		return errs.New(errs.Invalid, "%s needs NODE or --where EXPR, but neither was given\nusage: %s; see %s --help", cmd.CommandPath(), cmd.UseLine(), cmd.CommandPath())
	case s.parallel < 1 || s.parallel > 1000:
		return errs.About(errs.Invalid, "parallel", "--parallel %d: must be 1 to 1000", s.parallel)
	case s.maxFailures < 0 || s.confirmedSize < 0:
		return errs.New(errs.Invalid, "--max-failures and --confirm-count must not be negative")
	}
	return nil
}

// choose finds the nodes that are meant, each once.
func (s *fleet) choose(ctx context.Context, c *client.Client, refs []string) ([]*api.Node, *where, error) {
	if s.where != "" {
		if _, err := parseWhere(s.where); err != nil {
			return nil, nil, err // before anybody is asked
		}
		all, err := allNodes(ctx, c, &api.ListNodesRequest{Read: &api.ReadOptions{Linearizable: true}})
		if err != nil {
			return nil, nil, err
		}
		nodes, w, err := matching(ctx, s.where, all.GetNodes())
		if err == nil && len(nodes) == 0 {
			err = errs.About(errs.NotFound, "where", "no node of %d matches --where; nothing was done", len(all.GetNodes()))
		}
		return nodes, w, err
	}
	var out []*api.Node
	seen := map[string]string{}
	for _, ref := range refs {
		rep, err := c.GetNode(ctx, &api.GetNodeRequest{Node: ref, Read: &api.ReadOptions{Linearizable: true}})
		if err != nil {
			return nil, nil, fmt.Errorf("%w; nothing was done", err)
		}
		n := rep.GetNode()
		if before, twice := seen[n.GetId()]; twice {
			return nil, nil, errs.About(errs.Invalid, n.GetId(), "%s and %s are the same node; nothing was done", before, ref)
		}
		seen[n.GetId()] = ref
		out = append(out, n)
	}
	return out, nil, nil
}

// confirm names what is about to happen and has a person agree. Nothing has
// been done when it returns an error.
func (s *fleet) confirm(w work, nodes []*api.Node) error {
	n := len(nodes)
	if s.confirmedSize > 0 && s.confirmedSize != n {
		return errs.About(errs.Invalid, "confirm-count", "--confirm-count says %d nodes, but %d are meant: %s; nothing was done", s.confirmedSize, n, named(nodes))
	}
	askCount := n > askCountAbove && s.confirmedSize == 0
	askLoss := w.loses != "" && !s.yes
	switch {
	case !askCount && !askLoss:
		return nil
	case !s.f.interactive():
		var give []string
		if askCount {
			give = append(give, fmt.Sprintf("--confirm-count %d", n))
		}
		if askLoss {
			give = append(give, "--yes")
		}
		return errs.New(errs.Invalid, "%s %s; nobody can be asked here (standard input is no terminal), so nothing was done: look at --dry-run, then give %s",
			w.verb, s.of(w, nodes), strings.Join(give, " and "))
	}
	fmt.Fprintf(s.f.Err, "%s %s\n", w.verb, s.of(w, nodes))
	question, want := "Type the number of nodes to go on: ", strconv.Itoa(n)
	if n == 1 {
		want = node.Label(nodes[0])
		question = fmt.Sprintf("Type the node's name, %s, to go on: ", want)
	}
	got, err := s.f.ask(question)
	if err != nil {
		return err
	}
	if got != want {
		return errs.New(errs.Invalid, "%q is not %s; nothing was done", oneLine(got), want)
	}
	return nil
}

// of says what the work would do to which nodes.
func (s *fleet) of(w work, nodes []*api.Node) string {
	text := fmt.Sprintf("of %d nodes: %s", len(nodes), named(nodes))
	if len(nodes) == 1 {
		text = "of node " + named(nodes)
	}
	if w.loses != "" {
		text += ". Lost for good: " + w.loses
	}
	return text
}

// named lists nodes with their states, so that a wrong one is noticed.
func named(nodes []*api.Node) string {
	const most = 40
	var out []string
	for _, n := range nodes[:min(len(nodes), most)] {
		out = append(out, fmt.Sprintf("%s (%s)", node.Label(n), node.StateName(n.GetState())))
	}
	if more := len(nodes) - most; more > 0 {
		out = append(out, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(out, ", ")
}

// interactive reports whether somebody can be asked.
func (f *Factory) interactive() bool {
	if f.Asked != nil {
		return true
	}
	return terminal(f.In) && terminal(f.Err)
}

// ask reads one line from the person at the terminal.
func (f *Factory) ask(question string) (string, error) {
	fmt.Fprint(f.Err, question)
	if f.Asked != nil {
		return f.Asked(question), nil
	}
	line, err := bufio.NewReader(io.LimitReader(f.In, 1024)).ReadString('\n')
	if err != nil {
		return "", errs.New(errs.Invalid, "no answer; nothing was done")
	}
	return strings.TrimSpace(line), nil
}
