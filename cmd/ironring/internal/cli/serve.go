package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/cmd/ironring/internal/serve"
	"github.com/ironring/ironring/internal/config"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/version"
)

// defaultConfig is where the configuration is when --config is not given.
const defaultConfig = "/etc/ironring/ironring.yaml"

func newServeCmd(f *Factory) *cobra.Command {
	var path, joinFile string
	var found, printConfig bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a peer",
		Long: `Run a peer: the API, the conductor, DHCP, TFTP and HTTP boot, agents, the cluster.

The first peer of a cluster starts with --init, once. Each further one joins,
once, with a token of its own: by --join-file, or in the environment variable
` + tokenEnv + `. Later starts need neither.

The configuration is one YAML file; every key has a default but data_dir.
SIGTERM stops the peer in order; a second one at once.`,
		Example: `  ironring serve --config /etc/ironring/ironring.yaml --init
  ironring serve --config /etc/ironring/ironring.yaml --join-file /root/token
  ironring serve --config /etc/ironring/ironring.yaml
  ironring serve --print-config`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if printConfig {
				return f.printConfig(path, cmd.Flags().Changed("config"), config.System())
			}
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			if found && joinFile != "" {
				return errs.New(errs.Invalid, "--init founds a new cluster and --join-file joins one: give one of them")
			}
			opts := serve.Options{Config: cfg, Init: found, Logger: serve.NewLogger(f.Err, cfg.Log)}
			if !found {
				if opts.JoinToken, err = f.joinToken(joinFile); err != nil {
					return err
				}
			}
			return serve.Run(cmd.Context(), opts)
		},
	}
	fl := cmd.Flags()
	configFlag(cmd, &path)
	fl.BoolVar(&found, "init", false, "found a new cluster in an empty data directory")
	fl.StringVar(&joinFile, "join-file", "", "`FILE` with a join token, - for standard input")
	fl.BoolVar(&printConfig, "print-config", false, "print the configuration with all defaults and stop; without a file, the defaults")
	return cmd
}

// printConfig shows a configuration complete. Where nobody named a file and
// there is none yet, it is what to begin with.
func (f *Factory) printConfig(path string, named bool, host config.Host) error {
	if _, err := os.Stat(path); !named && errors.Is(err, fs.ErrNotExist) {
		out, err := config.Defaults(host)
		if err != nil {
			return err
		}
		return f.writeConfig(append(fmt.Appendf(nil, "# There is no %s: these are the defaults on this host.\n", path), out...))
	}
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	out, err := cfg.YAML()
	if err != nil {
		return err
	}
	return f.writeConfig(out)
}

// writeConfig writes YAML, or the same as JSON.
func (f *Factory) writeConfig(out []byte) (err error) {
	if f.json() {
		if out, err = yaml.YAMLToJSON(out); err != nil {
			return errs.New(errs.Internal, "print configuration: %w", err)
		}
	}
	_, err = f.Out.Write(out)
	return err
}

func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "config", defaultConfig, "configuration `FILE`")
}

func newClusterJoinCmd(f *Factory) *cobra.Command {
	var path, tokenFile string
	cmd := &cobra.Command{
		Use:   "join",
		Short: "Make this host a member, without starting it",
		Long: `Join a cluster with a token and write what it gives into the data directory of
the configuration; nothing is started. "serve --join-file" does both in one.`,
		Example: "  ironring cluster join --config /etc/ironring/ironring.yaml --token-file /root/token\n  systemctl start ironring",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			token, err := f.joinToken(tokenFile)
			if err != nil {
				return err
			}
			if token == "" {
				return errs.New(errs.Invalid, "no join token: give --token-file FILE, --token-file - or set %s; `ironring cluster token` on a member makes one", tokenEnv)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
			defer cancel()
			id, err := serve.Join(ctx, serve.Options{Config: cfg, JoinToken: token, Logger: serve.NewLogger(f.Err, cfg.Log)})
			if err != nil {
				return err
			}
			return f.print(&api.VersionReply{Version: version.String(), ClusterId: id, FeatureLevel: version.FeatureLevel}, func() error {
				_, err := fmt.Fprintf(f.Out, "%s is a member of cluster %s now\nnext: ironring serve --config %s\n", cfg.DataDir, id, path)
				return err
			})
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "`FILE` with the join token, - for standard input (env "+tokenEnv+")")
	return cmd
}
