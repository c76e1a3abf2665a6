package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/internal/errs"
)

// Main runs the program and gives its exit code.
func Main(ctx context.Context, f *Factory, args []string) int {
	root := NewRoot(f)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.Join(err, exitStatus(interrupted))
		fmt.Fprintln(f.Err, "interrupted")
	}
	var own exitStatus
	if err != nil && !errors.As(err, &own) {
		fmt.Fprintf(f.Err, "error: %v\n", err)
	}
	return ExitCode(err)
}

// NewRoot is the tree of all commands.
func NewRoot(f *Factory) *cobra.Command {
	root := &cobra.Command{
		Use:   "ironring",
		Short: "Provision bare metal with a cluster of equal peers",
		Long: `Ironring provisions bare metal: equal peers form one cluster without a database,
share the machines out, and finish what they began although peers die.

The commands below talk to any peer of a cluster: by --server and TLS, or on a
peer's own host by its unix socket.

` + exitHelp,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			f.timeoutGiven = cmd.Flags().Changed("timeout")
			formats := []string{"json", "table"}
			if own := cmd.Annotations[outputs]; own != "" {
				formats = strings.Split(own, ",")
				if !cmd.Flags().Changed("output") {
					f.output = formats[0]
				}
			}
			if !slices.Contains(formats, f.output) {
				return errs.New(errs.Invalid, "--output %q: must be %s", f.output, strings.Join(formats, " or "))
			}
			if f.timeout <= 0 {
				return errs.New(errs.Invalid, "--timeout %s: must be more than 0", f.timeout)
			}
			return nil
		},
	}
	root.SetIn(f.In)
	root.SetOut(f.Out)
	root.SetErr(f.Err)
	root.SetFlagErrorFunc(flagError)
	flags := root.PersistentFlags()
	flags.StringArrayVar(&f.servers, "server", nil, "API address `HOST:PORT` of a peer; repeat it for more (env IRONRING_SERVER, comma separated; unix:PATH is a socket)")
	flags.StringVar(&f.socket, "socket", "", "unix socket `PATH` of a peer on this host (env IRONRING_SOCKET; default "+defaultSocket+")")
	flags.StringVar(&f.ca, "ca", "", "`FILE` with the cluster's CA certificate (env IRONRING_CA)")
	flags.StringVar(&f.cert, "cert", "", "`FILE` with the client certificate (env IRONRING_CERT)")
	flags.StringVar(&f.key, "key", "", "`FILE` with the client's key (env IRONRING_KEY)")
	flags.StringVarP(&f.output, "output", "o", "table", "`FORMAT` of the output: table or json")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "give up a request after this; with --wait: the wait, which has no limit otherwise")
	flags.BoolVar(&f.noColor, "no-color", false, "no colors (env NO_COLOR)")

	root.AddCommand(
		newServeCmd(f),
		newLabCmd(f),
		newClusterCmd(f),
		newNodeCmd(f),
		newPortCmd(f),
		newNetworkCmd(f),
		newClientCertCmd(f),
		newRamdiskCmd(f),
		newArtifactCmd(f),
		newVersionCmd(f),
	)
	root.InitDefaultCompletionCmd()
	f.finish(root)
	return root
}

// finish gives every command what all commands have: unknown subcommands are
// errors, wrong numbers of arguments are of kind Invalid, nodes are completed.
func (f *Factory) finish(cmd *cobra.Command) {
	f.complete(cmd)
	if args := cmd.Args; args != nil {
		cmd.Args = func(cmd *cobra.Command, a []string) error {
			if args(cmd, a) != nil {
				return wrongArgs(cmd, a)
			}
			return nil
		}
	}
	if cmd.Parent() != nil && cmd.Parent().Name() == "completion" {
		cmd.Example = "  ironring completion " + cmd.Name() + " --help"
	} else if cmd.Name() == "completion" {
		cmd.Example = "  source <(ironring completion bash)"
	}
	if cmd.HasSubCommands() && cmd.RunE == nil && cmd.Run == nil {
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			hint := ""
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				hint = fmt.Sprintf(" (did you mean %q?)", near[0])
			}
			var names []string
			for _, sub := range cmd.Commands() {
				if sub.IsAvailableCommand() {
					names = append(names, sub.Name())
				}
			}
			return errs.New(errs.Invalid, "%s has no command %q%s; there are %s", cmd.CommandPath(), args[0], hint, strings.Join(names, ", "))
		}
	}
	cmd.SuggestionsMinimumDistance = 2
	for _, sub := range cmd.Commands() {
		f.finish(sub)
	}
}
