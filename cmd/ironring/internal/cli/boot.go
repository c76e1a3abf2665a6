package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
)

func newNodeBootCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "boot",
		Short:   "See how a node's machine boots",
		Example: "  ironring node boot show n1",
	}
	cmd.AddCommand(newNodeBootShowCmd(f))
	return cmd
}

func newNodeBootShowCmd(f *Factory) *cobra.Command {
	req := &api.BootRecordRequest{}
	cmd := &cobra.Command{
		Use:   "show NODE",
		Short: "Show what the machine would get if it asked the network now",
		Long: `Show the boot record of each port of a node, the iPXE script and the files that
a peer would give the machine now. The boot nonce is masked.

All peers give the same script; files may differ until they are the same on
every peer's disk, so compare the digests with --peer.`,
		Example: `  ironring node boot show n1
  ironring node boot show n1 --peer p2 -o json`,
		Args: cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			req.Node = args[0]
			rep, err := c.BootRecord(ctx, req)
			if err != nil {
				return err
			}
			return f.print(rep, func() error { return f.printBoot(rep) })
		}),
	}
	cmd.Flags().StringVar(&req.Peer, "peer", "", "ask the `PEER` with this id (the answering one when not given)")
	return cmd
}

func (f *Factory) printBoot(rep *api.BootRecordReply) error {
	fmt.Fprintf(f.Out, "peer %s, index %d, DHCP mode %s\n", rep.GetPeer(), rep.GetIndex(), rep.GetDhcp())
	if rep.GetStale() {
		fmt.Fprintln(f.Err, "warning: the peer has no contact with a leader: it boots only nodes that were under work")
	}
	for _, p := range rep.GetPorts() {
		fmt.Fprintf(f.Out, "\nport %s: %s\n", p.GetMac(), bootText(p))
		for _, a := range p.GetAddresses() {
			what := "address " + cmp.Or(a.GetAddress(), "none given")
			if a.GetMode() != api.DHCPMode_DHCP_FULL {
				what = "DHCP mode " + dhcpModeText(a.GetMode())
			}
			fmt.Fprintf(f.Out, "  network %s: %s\n", a.GetNetwork(), what)
		}
		for line := range strings.Lines(p.GetScript()) {
			fmt.Fprint(f.Out, "  | "+line)
		}
	}
	fmt.Fprintln(f.Out)
	t := newTable("FILE", "SIZE", "SHA-256", "PATH", "FOR")
	for _, b := range rep.GetFiles() {
		if b.GetProblem() != "" {
			t.add(b.GetName(), "", cell{text: b.GetProblem(), color: yellow}, b.GetPath(), b.GetUsedBy())
			continue
		}
		t.add(b.GetName(), b.GetSize(), b.GetSha256(), b.GetPath(), b.GetUsedBy())
	}
	return f.printTable(t)
}

func bootText(p *api.BootPort) string {
	s := strings.ToLower(strings.TrimPrefix(p.GetTarget().String(), "BOOT_"))
	if p.GetReason() != "" {
		s += " (" + p.GetReason() + ")"
	}
	return s
}
