package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
)

func newNodeApplyCmd(f *Factory) *cobra.Command {
	a := &applying{fleet: fleet{f: f, maxFailures: 3}}
	var path string
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Make nodes what a file says",
		Long: `Make nodes what a file says: create those that are missing, change what differs,
leave alone what is as it should be. Nodes that are not in the file are never
touched, and no node is ever deleted. Fields that the file does not give stay.

The whole file is checked first, against its own lines and the cluster; then the
differences are shown, and a person is asked. What was cut off is completed by
the same command again.

The file is YAML (.yaml, .yml), JSON (.json) or CSV (.csv), as "ironring node export"
writes it. Secrets stand in it by reference, {env: NAME} or {file: PATH}, of which a
relative one is beside the file; a secret that is left out stays what it is. Stored
secrets cannot be compared: references are read for new secrets only, and for all
with --update-secrets. A port that differs is removed and added again; one that holds
secrets is not: a file that would have it otherwise is refused.

A file that was exported from another cluster is refused: two clusters that have
the same machines take them from each other.`,
		Example: "  ironring node apply -f fleet.yaml --dry-run\n  ironring node export -o csv > fleet.csv && ironring node apply -f fleet.csv",
		Args:    cobra.NoArgs,
		RunE: f.with(func(ctx context.Context, c *client.Client, _ []string) error {
			if path == "" {
				return errs.About(errs.Invalid, "file", "give the file with -f")
			}
			if a.parallel < 1 || a.parallel > 1000 {
				return errs.About(errs.Invalid, "parallel", "--parallel %d: must be 1 to 1000", a.parallel)
			}
			return a.run(ctx, c, path)
		}),
	}
	fl := cmd.Flags()
	fl.StringVarP(&path, "file", "f", "", "the `FILE`: .yaml, .yml, .json or .csv")
	fl.BoolVar(&a.dryRun, "dry-run", false, "check the file and show the differences, and do nothing")
	fl.BoolVar(&a.yes, "yes", false, "do not ask")
	fl.BoolVar(&a.secrets, "update-secrets", false, "write the secrets that the file refers to, also where one is stored")
	fl.BoolVar(&a.otherCluster, "from-other-cluster", false, "take a file that was exported from another cluster, which has these machines no more")
	fl.IntVar(&a.parallel, "parallel", 10, "change at most `N` nodes at a time")
	fl.IntVar(&a.maxFailures, "max-failures", 3, "begin no more after `N` failures; 0: begin all, whatever fails")
	return cmd
}

// applying is one run of apply.
type applying struct {
	fleet
	secrets      bool
	otherCluster bool
}

func (a *applying) run(ctx context.Context, c *client.Client, path string) error {
	entries, err := a.f.readFleet(path)
	if err != nil {
		return err
	}
	changes, err := a.plan(ctx, c, path, entries)
	if err != nil {
		return err
	}
	todo := slices.DeleteFunc(slices.Clone(changes), func(ch *change) bool { return ch.kind() == "unchanged" })
	if a.dryRun || len(todo) == 0 {
		return a.showPlan(changes, nil)
	}
	if !a.f.json() {
		if err := a.showPlan(changes, nil); err != nil {
			return err
		}
	}
	if err := a.agree(todo); err != nil {
		return err
	}
	return a.carryOut(ctx, c, changes, todo)
}

func (a *applying) agree(todo []*change) error {
	switch {
	case a.yes:
		return nil
	case !a.f.interactive():
		return errs.New(errs.Invalid, "nobody can be asked here (standard input is no terminal), so nothing was done: look at --dry-run, then give --yes")
	}
	got, err := a.f.ask(fmt.Sprintf("Type yes to create and change these %d nodes: ", len(todo)))
	if err == nil && got != "yes" {
		err = errs.New(errs.Invalid, "%q is not yes; nothing was done", oneLine(got))
	}
	return err
}

// showPlan prints what differs, and with -o json what became of it.
func (a *applying) showPlan(changes []*change, results []outcome) error {
	if a.f.json() {
		type row struct {
			Node   string   `json:"node"`
			Change string   `json:"change"`
			Diff   []string `json:"diff"`
		}
		plan := []row{}
		for _, ch := range changes {
			plan = append(plan, row{ch.entry.label(), ch.kind(), append([]string{}, ch.lines...)})
		}
		doc := map[string]any{"plan": plan}
		if results != nil {
			doc["results"] = results
		}
		return a.f.encode(doc)
	}
	var b strings.Builder
	count := map[string]int{}
	for _, ch := range changes {
		count[ch.kind()]++
		if ch.kind() == "unchanged" {
			continue
		}
		fmt.Fprintf(&b, "%s %s\n", ch.kind(), ch.entry.label())
		for _, l := range ch.lines {
			fmt.Fprintf(&b, "  %s\n", l)
		}
	}
	fmt.Fprintf(&b, "%d to create, %d to change, %d unchanged\n", count["create"], count["change"], count["unchanged"])
	_, err := fmt.Fprint(a.f.Out, b.String())
	return err
}
