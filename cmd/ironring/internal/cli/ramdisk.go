package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ironring/ironring/agent/ramdisk"
	"github.com/ironring/ironring/internal/errs"
)

// agentName is the program that becomes /init.
const agentName = "ironring-agent"

func newRamdiskCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ramdisk",
		Short:   "Build what machines boot into",
		Example: "  ironring ramdisk build --out /var/lib/ironring/ramdisk",
	}
	cmd.AddCommand(newRamdiskBuildCmd(f), newRamdiskPublishCmd(f), newRamdiskListCmd(f), newRamdiskRmCmd(f))
	return cmd
}

func newRamdiskBuildCmd(f *Factory) *cobra.Command {
	var opts ramdisk.Options
	var cache string
	var files []string
	var publish bool
	var target publishFlags
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build kernel and initramfs with the agent",
		Long: `Build a kernel and an initramfs with the agent as /init, and a manifest of what
is in them. The same inputs give the same bytes.

Without --kernel the kernel is Debian's, fetched by apt-get and not installed.
With --publish the results are stored on two peers and machines boot them from any
peer, at once. Without it put them where "boot.ramdisk_dir" of every peer's
configuration points, or publish them later.`,
		Example: `  ironring ramdisk build --publish
  ironring ramdisk build --kernel /boot/vmlinuz-6.12.0 --modules /lib/modules/6.12.0 --out ./ramdisk \
      --file etc/ssl/certs/ca-certificates.crt=/etc/ssl/certs/ca-certificates.crt`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if opts.ExtraFiles, err = extraFiles(files); err != nil {
				return err
			}
			if opts.Agent == "" {
				if opts.Agent, err = f.findAgent(); err != nil {
					return err
				}
			}
			switch {
			case opts.Kernel == "" && opts.ModulesDir != "":
				return errs.New(errs.Invalid, "--modules needs the --kernel that they belong to")
			case opts.Kernel == "":
				if cache == "" {
					if cache, err = os.UserCacheDir(); err != nil {
						return errs.New(errs.Invalid, "no place for the fetched kernel, give --cache: %w", err)
					}
					cache = filepath.Join(cache, "ironring", "kernel")
				}
				fmt.Fprintln(f.Err, "fetching Debian's kernel")
				k, err := ramdisk.FetchDebianKernel(cmd.Context(), cache)
				if err != nil {
					return err
				}
				opts.Kernel, opts.ModulesDir, opts.KernelVersion = k.Image, k.ModulesDir, k.Version
			}
			man, err := ramdisk.Build(opts)
			if err != nil {
				return err
			}
			if publish {
				return f.publishBuilt(cmd.Context(), opts.Out, man, target)
			}
			if f.json() {
				enc := json.NewEncoder(f.Out)
				enc.SetIndent("", "  ")
				return enc.Encode(man)
			}
			return f.printTable(ramdiskTable(opts.Out, man))
		},
	}
	target.add(cmd)
	fl := cmd.Flags()
	fl.BoolVar(&publish, "publish", false, "store the results on two peers and have machines boot them")
	fl.StringVar(&opts.Out, "out", "ramdisk", "`DIRECTORY` for the results")
	fl.StringVar(&opts.Kernel, "kernel", "", "kernel image `FILE` (default: Debian's current kernel)")
	fl.StringVar(&opts.ModulesDir, "modules", "", "lib/modules/VERSION `DIRECTORY` of that kernel; none when everything is built in")
	fl.StringVar(&opts.KernelVersion, "kernel-version", "", "what uname -r says, for an image that does not tell its `VERSION`")
	fl.StringVar(&opts.Agent, "agent", "", "static "+agentName+" `FILE` (default: beside this program, in its ../lib/ironring, or in PATH)")
	fl.StringVar(&opts.Compress, "compress", "zstd", "`FORMAT` of the initramfs: zstd or gzip")
	fl.StringArrayVar(&opts.Modules, "module", nil, "only this `MODULE`, or all in this directory/; repeat it (default: those of servers)")
	fl.StringArrayVar(&files, "file", nil, "further file, as `PATH-IN-RAMDISK=FILE`; repeat it")
	fl.StringVar(&cache, "cache", "", "`DIRECTORY` that keeps the fetched kernel (default: in the user's cache)")
	return cmd
}

func ramdiskTable(out string, man *ramdisk.Manifest) *table {
	t := newTable("FILE", "SIZE", "SHA256")
	for _, x := range []struct {
		name string
		info ramdisk.FileInfo
	}{{ramdisk.KernelFile, man.Kernel}, {ramdisk.InitramfsFile, man.Initramfs}} {
		t.add(filepath.Join(out, x.name), bytesText(float64(x.info.Size)), x.info.SHA256)
	}
	t.add("kernel "+man.KernelVersion, fmt.Sprintf("%d modules", len(man.Modules)), "initramfs without them: "+bytesText(float64(man.BaseSize)))
	return t
}

func extraFiles(args []string) (map[string]string, error) {
	out := make(map[string]string, len(args))
	for _, a := range args {
		to, from, ok := strings.Cut(a, "=")
		if !ok || to == "" || from == "" {
			return nil, errs.New(errs.Invalid, "--file %q: must be PATH-IN-RAMDISK=FILE", a)
		}
		out[to] = from
	}
	return out, nil
}

// findAgent looks where `make build` and packages put the agent.
func (f *Factory) findAgent() (string, error) {
	var places []string
	if self, err := os.Executable(); err == nil {
		dir := filepath.Dir(self)
		places = append(places, filepath.Join(dir, agentName), filepath.Join(dir, "..", "lib", "ironring", agentName))
	}
	for dir := range strings.SplitSeq(f.Getenv("PATH"), string(filepath.ListSeparator)) {
		if filepath.IsAbs(dir) {
			places = append(places, filepath.Join(dir, agentName))
		}
	}
	for _, p := range places {
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() {
			return p, nil
		}
	}
	return "", errs.New(errs.NotFound, "%s is neither beside this program nor in PATH: build it, or give --agent", agentName)
}
