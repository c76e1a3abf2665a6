package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/agent/ramdisk"
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/bootpath"
)

// publishFlags say for whom a ramdisk is.
type publishFlags struct{ arch, purpose string }

func (p *publishFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.arch, "arch", "", "`ARCHITECTURE` of the machines, as x86_64 or aarch64 (default: that of this host)")
	cmd.Flags().StringVar(&p.purpose, "purpose", bootpath.DefaultPurpose, "what it is for, a `WORD`; machines boot the one for default")
}

// publish stores the ramdisk of a directory and has machines boot it.
func (f *Factory) publish(ctx context.Context, c *client.Client, dir, description string, p publishFlags) (*api.Ramdisk, error) {
	r := &api.Ramdisk{Arch: p.arch, Purpose: p.purpose, Description: description}
	if r.Arch == "" {
		r.Arch = hostArch()
	}
	for _, part := range []struct {
		file string
		kind api.Artifact_Kind
		to   *string
	}{{ramdisk.KernelFile, api.Artifact_KERNEL, &r.Kernel}, {ramdisk.InitramfsFile, api.Artifact_INITRAMFS, &r.Initramfs}} {
		rep, err := f.putArtifact(ctx, c, &api.PutArtifactHead{Kind: part.kind, Name: part.file, Arch: r.GetArch(), Purpose: r.GetPurpose()}, filepath.Join(dir, part.file))
		if err != nil {
			return nil, err
		}
		*part.to = rep.GetArtifact().GetDigest()
	}
	_, err := c.SetRamdisk(ctx, &api.SetRamdiskRequest{Ramdisk: r})
	return r, err
}

// hostArch is this host's architecture as uname says it.
func hostArch() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}

func (f *Factory) published(r *api.Ramdisk) error {
	return f.print(r, func() error {
		_, err := fmt.Fprintf(f.Out, "machines of %s boot kernel %s and initramfs %s (purpose %s)\n", r.GetArch(), r.GetKernel()[:12], r.GetInitramfs()[:12], r.GetPurpose())
		return err
	})
}

func newRamdiskPublishCmd(f *Factory) *cobra.Command {
	var p publishFlags
	cmd := &cobra.Command{
		Use:   "publish DIRECTORY",
		Short: "Have machines boot a ramdisk that was built before",
		Long: `Store the kernel and the initramfs of a directory on two peers and have machines
boot them, from any peer, at once.`,
		Example: "  ironring ramdisk publish ./ramdisk",
		Args:    cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			ctx, cancel := f.waitContext(ctx)
			defer cancel()
			r, err := f.publish(ctx, c, args[0], "", p)
			if err != nil {
				return err
			}
			return f.published(r)
		}),
	}
	p.add(cmd)
	return cmd
}

func newRamdiskListCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the ramdisks that machines boot",
		Example: "  ironring ramdisk list",
		Args:    cobra.NoArgs,
		RunE: f.with(func(ctx context.Context, c *client.Client, _ []string) error {
			rep, err := c.ListRamdisks(ctx, &api.ListRamdisksRequest{})
			if err != nil {
				return err
			}
			return f.print(rep, func() error {
				t := newTable("ARCH", "PURPOSE", "KERNEL", "INITRAMFS", "SET", "DESCRIPTION")
				for _, r := range rep.GetRamdisks() {
					t.add(r.GetArch(), r.GetPurpose(), r.GetKernel()[:12], r.GetInitramfs()[:12], stamp(r.GetSetMs()), r.GetDescription())
				}
				return f.printTable(t)
			})
		}),
	}
}

func newRamdiskRmCmd(f *Factory) *cobra.Command {
	var purpose string
	cmd := &cobra.Command{
		Use:   "rm ARCH",
		Short: "No longer have machines boot a published ramdisk",
		Long: `No longer have machines of an architecture boot a published ramdisk. They boot
what "boot.ramdisk_dir" of the peers holds. Its files are deleted 24 hours later.`,
		Example: "  ironring ramdisk rm x86_64",
		Args:    cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			rep, err := c.DeleteRamdisk(ctx, &api.DeleteRamdiskRequest{Arch: args[0], Purpose: purpose})
			if err != nil {
				return err
			}
			return f.print(rep, func() error {
				_, err := fmt.Fprintf(f.Out, "ramdisk for %s, purpose %s, is no longer published\n", args[0], purpose)
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&purpose, "purpose", bootpath.DefaultPurpose, "`WORD` that it was published for")
	return cmd
}

// publishBuilt is the end of `ramdisk build --publish`.
func (f *Factory) publishBuilt(ctx context.Context, dir string, man *ramdisk.Manifest, p publishFlags) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	defer c.Close()
	r, err := f.publish(ctx, c, dir, "kernel "+man.KernelVersion+", built by "+man.Version, p)
	if err != nil {
		return err
	}
	return f.published(r)
}
