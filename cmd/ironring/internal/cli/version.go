package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/version"
)

func newVersionCmd(f *Factory) *cobra.Command {
	var peer bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Say which build this is",
		Example: "  ironring version\n  ironring version --peer",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rep := &api.VersionReply{Version: version.String(), FeatureLevel: version.FeatureLevel}
			if peer {
				c, err := f.client()
				if err != nil {
					return err
				}
				defer c.Close()
				if rep, err = c.Version(cmd.Context(), &api.VersionRequest{}); err != nil {
					return err
				}
			}
			return f.print(rep, func() error {
				who := "ironring"
				if rep.GetPeer() != "" {
					who = fmt.Sprintf("peer %s of cluster %s:", rep.GetPeer(), rep.GetClusterId())
				}
				_, err := fmt.Fprintf(f.Out, "%s %s, feature level %d\n", who, rep.GetVersion(), rep.GetFeatureLevel())
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&peer, "peer", false, "ask a peer which build it is")
	return cmd
}
