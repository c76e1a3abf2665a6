package cli

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/node"
)

// completionLimit is how long a shell waits for names of nodes at most.
const completionLimit = 2 * time.Second

// complete gives a command that takes nodes their names, with states, to
// complete, and the words that its usage ends with, such as on|off.
func (f *Factory) complete(cmd *cobra.Command) {
	several := strings.Contains(cmd.Use, " NODE...")
	if !several && !strings.Contains(cmd.Use, " NODE") {
		return
	}
	var words []string
	for part := range strings.FieldsSeq(cmd.Use) {
		if strings.Contains(part, "|") {
			words = strings.Split(strings.Trim(part, "[]"), "|")
		}
	}
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var out []cobra.Completion
		chosen := len(args) > 0 && slices.Contains(words, args[len(args)-1])
		if chosen || !several && len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, w := range words {
			if where := cmd.Flag("where"); strings.HasPrefix(w, begun) && (len(args) > 0 || where != nil && where.Changed) {
				out = append(out, w)
			}
		}
		names, err := f.nodeNames(cmd.Context())
		if err != nil {
			return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveError
		}
		for _, n := range names {
			if label := node.Label(n); strings.HasPrefix(label, begun) && !slices.Contains(args, label) {
				out = append(out, cobra.CompletionWithDesc(label, node.StateName(n.GetState())))
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// nodeNames are the nodes that a peer knows, old answers too. It says nothing
// to the person, who is in the middle of a line.
func (f *Factory) nodeNames(ctx context.Context) ([]*api.Node, error) {
	quiet := *f
	quiet.Err, quiet.timeout = io.Discard, completionLimit
	c, err := quiet.client()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, completionLimit)
	defer cancel()
	all, err := allNodes(ctx, c, &api.ListNodesRequest{})
	return all.GetNodes(), err
}
