package cli

import (
	"context"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/client"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/pki"
)

func newClientCertCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "client-cert",
		Short:   "Let programs and people on other hosts in",
		Example: "  ironring client-cert create alice --dir ./alice",
	}
	cmd.AddCommand(newClientCertCreateCmd(f))
	return cmd
}

func newClientCertCreateCmd(f *Factory) *cobra.Command {
	var dir string
	var ttl time.Duration
	var force bool
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a key here and have the cluster sign it",
		Long: `Make a key on this host, have the cluster sign it, and write NAME.key (mode
0600), NAME.crt and ca.crt. The key does not leave this host. The name is what
histories will say.`,
		Example: "  ironring client-cert create alice --dir ./alice --ttl 720h",
		Args:    cobra.ExactArgs(1),
		RunE: f.with(func(ctx context.Context, c *client.Client, args []string) error {
			name := args[0]
			if name != filepath.Base(name) || name == "." || name == ".." {
				return errs.New(errs.Invalid, "name %q: must be one word", name)
			}
			if ttl < time.Minute {
				return errs.About(errs.Invalid, "ttl", "--ttl %s: must be at least 1m", ttl)
			}
			keyFile := filepath.Join(dir, name+".key")
			if _, err := os.Lstat(keyFile); err == nil && !force {
				return errs.About(errs.Exists, keyFile, "%s is there already, and whoever uses it could not log in any more; give --force to replace it, or another --dir", keyFile)
			}
			csr, key, err := pki.NewRequest()
			if err != nil {
				return err
			}
			rep, err := c.CreateClientCert(ctx, &api.CreateClientCertRequest{Name: name, CsrDer: csr, TtlSeconds: uint64(ttl.Seconds())})
			if err != nil {
				return err
			}
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return errs.New(errs.Invalid, "write certificate: %w", err)
			}
			for _, file := range []struct {
				name, kind string
				der        []byte
				mode       os.FileMode
			}{
				{name + ".key", "PRIVATE KEY", key, 0o600},
				{name + ".crt", "CERTIFICATE", rep.GetCertDer(), 0o644},
				{"ca.crt", "CERTIFICATE", rep.GetCaDer(), 0o644},
			} {
				if err := writePEM(filepath.Join(dir, file.name), file.kind, file.der, file.mode); err != nil {
					return err
				}
			}
			return f.print(rep, func() error {
				path := func(n string) string { return filepath.Join(dir, n) }
				_, err := fmt.Fprintf(f.Out, "use it with: ironring --server HOST:PORT --ca %s --cert %s --key %s\n", path("ca.crt"), path(name+".crt"), path(name+".key"))
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "`DIRECTORY` for the three files")
	cmd.Flags().BoolVar(&force, "force", false, "replace the files where they are there already")
	cmd.Flags().DurationVar(&ttl, "ttl", 90*24*time.Hour, "how long it is valid")
	return cmd
}

// writePEM creates a file with its final mode, so that a key is never
// readable by others, not even for a moment.
func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return errs.New(errs.Invalid, "write %s: %w", path, err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return errs.New(errs.Invalid, "write %s: %w", path, err)
	}
	if err := pem.Encode(file, &pem.Block{Type: kind, Bytes: der}); err != nil {
		file.Close()
		return errs.New(errs.Invalid, "write %s: %w", path, err)
	}
	if err := file.Close(); err != nil {
		return errs.New(errs.Invalid, "write %s: %w", path, err)
	}
	return nil
}
