package cli

import (
	"encoding/json"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/sim/lab"
)

func newLabCmd(f *Factory) *cobra.Command {
	opts := lab.Options{}
	var noKill bool
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Run a whole cluster with simulated machines on this host",
		Long: `Run N peers as processes of their own on loopback addresses, and M simulated
machines with a Redfish BMC each; where ipmitool is installed, the last of
several is asked by IPMI. No root is needed, and nothing outside the directory is
touched.

With --once every machine is enrolled, inspected, cleaned and deployed; the peer
that works on one of them is killed with SIGKILL in the middle of its image; then
the lab prints what happened and stops. Exit code 0 means that all went well:
every machine runs its image, and no step ran twice.

With -o json the last line on standard output is one JSON object.`,
		Example: `  ironring lab
  ironring lab --once
  ironring lab --peers 3 --nodes 20 --once -o json
  ironring lab --peers 5 --nodes 100 --dir /tmp/lab`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Kill = !noKill
			var err error
			if opts.Binary, err = os.Executable(); err != nil {
				return err
			}
			opts.Progress = f.Out
			if f.json() {
				opts.Progress = f.Err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			rep, err := lab.Run(ctx, opts)
			if err != nil || rep == nil {
				return err
			}
			if f.json() {
				if rep.TakeoverSeconds == nil {
					rep.TakeoverSeconds = []float64{}
				}
				err = json.NewEncoder(f.Out).Encode(rep)
			} else {
				err = rep.Print(f.Out)
			}
			if err == nil && !rep.Well() {
				err = errs.New(errs.Internal, "the lab did not end well: see the table above")
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&opts.Peers, "peers", 3, "`NUMBER` of peers")
	flags.IntVar(&opts.Nodes, "nodes", 3, "`NUMBER` of simulated machines")
	flags.BoolVar(&opts.Once, "once", false, "deploy all machines, report and stop")
	flags.BoolVar(&noKill, "no-kill", false, "with --once: kill nobody")
	flags.BoolVar(&opts.Term, "term", false, "with --once: stop the peer in order (SIGTERM) instead of killing it")
	flags.StringVar(&opts.Dir, "dir", "", "`DIRECTORY` for everything (default: a temporary one)")
	flags.IntVar(&opts.ImageMiB, "image-mib", 12, "`SIZE` of the image in MiB")
	flags.IntVar(&opts.ImageRate, "image-rate", 1<<20, "`BYTES` a second that each machine gets of the image")
	return cmd
}
