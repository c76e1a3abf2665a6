package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
)

func newArtifactCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "artifact",
		Aliases: []string{"artifacts"},
		Short:   "Manage the files that peers keep and serve to machines",
		Long: `Manage the files that peers keep and serve to machines: kernels, initramfs,
images. A file is known by its SHA-256 digest; each is on two peers before it is
used. One that nothing refers to for 24 hours is deleted.`,
		Example: "  ironring artifact put vmlinuz --kind kernel --arch x86_64\n  ironring artifact list",
	}
	cmd.AddCommand(newArtifactPutCmd(f), newArtifactListCmd(f), newArtifactShowCmd(f), newArtifactRmCmd(f))
	return cmd
}

// artifactKinds are the kinds by what people call them.
func artifactKinds() (names []string) {
	for i := range len(api.Artifact_Kind_name) {
		names = append(names, artifactKind(api.Artifact_Kind(i))) //nolint:gosec // few
	}
	return names
}

func artifactKind(k api.Artifact_Kind) string { return strings.ToLower(k.String()) }

func parseArtifactKind(s string) (api.Artifact_Kind, error) {
	k, ok := api.Artifact_Kind_value[strings.ToUpper(s)]
	if !ok {
		return 0, errs.About(errs.Invalid, "kind", "--kind %q: must be one of %s", s, strings.Join(artifactKinds(), ", "))
	}
	return api.Artifact_Kind(k), nil
}

func newArtifactPutCmd(f *Factory) *cobra.Command {
	head := &api.PutArtifactHead{}
	var kind string
	cmd := &cobra.Command{
		Use:     "put FILE",
		Short:   "Store a file on two peers",
		Long:    "Store a file on two peers (one where the cluster has one). What is there already is\nnot sent again.",
		Example: "  ironring artifact put debian-13.raw.zst --kind image --name debian-13",
		Args:    cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			var err error
			if head.Kind, err = parseArtifactKind(kind); err != nil {
				return err
			}
			if head.Name == "" {
				head.Name = filepath.Base(args[0])
			}
			ctx, cancel := f.waitContext(ctx)
			defer cancel()
			rep, err := f.putArtifact(ctx, c, head, args[0])
			if err != nil {
				return err
			}
			return f.print(rep, func() error {
				a := rep.GetArtifact()
				_, err := fmt.Fprintf(f.Out, "artifact %s stored on %s\n", a.GetDigest(), strings.Join(a.GetCopies(), ", "))
				return err
			})
		}),
	}
	fl := cmd.Flags()
	fl.StringVar(&kind, "kind", "other", "`KIND` of the file: "+strings.Join(artifactKinds(), ", "))
	fl.StringVar(&head.Name, "name", "", "`NAME` for people (default: that of the file)")
	fl.StringVar(&head.Arch, "arch", "", "`ARCHITECTURE` that it is for, as x86_64")
	fl.StringVar(&head.Purpose, "purpose", "", "what it is for, a `WORD` for people")
	return cmd
}

// putArtifact stores a file; head.Digest and head.Size are filled in.
func (f *Factory) putArtifact(ctx context.Context, c *client.Client, head *api.PutArtifactHead, path string) (*api.ArtifactReply, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%w", err)
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil, errs.New(errs.Invalid, "%s is not a regular file", path)
	}
	h := sha256.New()
	n, err := io.Copy(h, file)
	if err != nil {
		return nil, errs.New(errs.Invalid, "read %s: %w", path, err)
	}
	head.Digest, head.Size = hex.EncodeToString(h.Sum(nil)), uint64(n) //nolint:gosec // not negative
	told := f.Now()
	return c.PutArtifact(ctx, head, file, func(sent uint64) {
		if now := f.Now(); !f.json() && now.Sub(told) >= 5*time.Second {
			told = now
			fmt.Fprintf(f.Err, "%s of %s sent\n", bytesText(float64(sent)), bytesText(float64(head.GetSize())))
		}
	})
}

func newArtifactListCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the files that peers keep",
		Example: "  ironring artifact list",
		Args:    cobra.NoArgs,
		RunE: f.with(func(ctx context.Context, c *client.Client, _ []string) error {
			rep, err := c.ListArtifacts(ctx, &api.ListArtifactsRequest{})
			if err != nil {
				return err
			}
			return f.print(rep, func() error {
				t := newTable("DIGEST", "KIND", "NAME", "ARCH", "SIZE", "COPIES")
				for _, a := range rep.GetArtifacts() {
					t.add(a.GetDigest()[:12], artifactKind(a.GetKind()), a.GetName(), a.GetArch(), bytesText(float64(a.GetSize())), copiesText(a))
				}
				return f.printTable(t)
			})
		}),
	}
}

func copiesText(a *api.Artifact) string {
	out := strings.Join(a.GetCopies(), " ")
	if out == "" {
		out = "none"
	}
	if len(a.GetWanted()) > 0 {
		out += " (fetching: " + strings.Join(a.GetWanted(), " ") + ")"
	}
	return out
}

func newArtifactShowCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:     "show ARTIFACT",
		Short:   "Show a file that peers keep, and who uses it",
		Long:    "Show a file that peers keep, given by its digest, eight digits of it or more, or its\nname, and who uses it.",
		Example: "  ironring artifact show debian-13",
		Args:    cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			rep, err := c.GetArtifact(ctx, &api.GetArtifactRequest{Artifact: args[0]})
			if err != nil {
				return err
			}
			return f.print(rep, func() error {
				a := rep.GetArtifact()
				t := newTable("FIELD", "VALUE")
				t.add("digest", "sha256:"+a.GetDigest())
				t.add("size", fmt.Sprintf("%s (%d bytes)", bytesText(float64(a.GetSize())), a.GetSize()))
				t.add("kind", artifactKind(a.GetKind()))
				for _, x := range [][2]string{{"name", a.GetName()}, {"arch", a.GetArch()}, {"purpose", a.GetPurpose()}, {"also known as", a.GetAlias()}} {
					if x[1] != "" {
						t.add(x[0], x[1])
					}
				}
				t.add("copies", copiesText(a))
				t.add("stored", stamp(a.GetCreatedMs()))
				for _, by := range rep.GetReferencedBy() {
					t.add("used by", by)
				}
				if len(rep.GetReferencedBy()) == 0 {
					t.add("used by", "nothing: deleted 24 hours after its last use")
				}
				return f.printTable(t)
			})
		}),
	}
}

func newArtifactRmCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:     "rm ARTIFACT...",
		Short:   "Delete files that nothing uses",
		Example: "  ironring artifact rm 8c7dd922ad47",
		Args:    cobra.MinimumNArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			for _, ref := range args {
				rep, err := c.DeleteArtifact(ctx, &api.DeleteArtifactRequest{Artifact: ref})
				if err != nil {
					return err
				}
				if err := f.print(rep, func() error {
					_, err := fmt.Fprintf(f.Out, "artifact %s deleted\n", ref)
					return err
				}); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}
