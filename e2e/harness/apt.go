package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// packages are what the lab needs of Debian, beyond what the product needs.
var packages = []string{
	"iproute2", "qemu-system-x86", "ovmf", "ipxe", "ipmitool", "openipmi", "kmod",
	"ipxe-qemu", "seabios", "syslinux", "syslinux-common", "mtools", "dnsmasq-base", "qemu-utils",
	"shim-signed", "grub-efi-amd64-signed",
}

// aptOpts make apt wait for another run on the same host instead of failing.
var aptOpts = []string{"apt-get", "-o", "DPkg::Lock::Timeout=600", "-o", "APT::Sandbox::User=root", "-qq"}

var aptEnv = []string{"DEBIAN_FRONTEND=noninteractive"}

func (l *Lab) apt(ctx context.Context, dir string, args ...string) error {
	_, err := l.Output(ctx, Cmd{Name: "apt-get " + strings.Join(args, " "), Dir: dir, Env: aptEnv, Args: append(append([]string{}, aptOpts...), args...)})
	return err
}

// InstallPackages installs the Debian packages that are missing.
func (l *Lab) InstallPackages(ctx context.Context) error {
	var missing []string
	for _, p := range packages {
		out, err := l.Output(ctx, Cmd{Name: "dpkg-query", Args: []string{"dpkg-query", "-W", "-f=${Status}", p}})
		if err != nil || !strings.Contains(out, "ok installed") {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	l.Logf("installing %s", strings.Join(missing, " "))
	install := append([]string{"install", "-y", "--no-install-recommends"}, missing...)
	if l.apt(ctx, "", install...) == nil {
		return nil
	}
	if err := l.apt(ctx, "", "update"); err != nil {
		return err
	}
	return l.apt(ctx, "", install...)
}

// candidate is the version of a package that apt would install. It fetches
// the lists when apt does not know the package.
func (l *Lab) candidate(ctx context.Context, pkg string) (string, error) {
	for try := 0; ; try++ {
		out, err := l.Output(ctx, Cmd{Name: "apt-cache policy", Args: []string{"apt-cache", "policy", pkg}, Env: []string{"LC_ALL=C"}})
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(out) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), "Candidate: "); ok && v != "(none)" {
				return v, nil
			}
		}
		if try > 0 {
			return "", fmt.Errorf("apt knows no package %s", pkg)
		}
		if err := l.apt(ctx, "", "update"); err != nil {
			return "", err
		}
	}
}

// unpacked downloads a package and unpacks it into the cache without
// installing it, once per version. finish may add to the unpacked tree.
func (l *Lab) unpacked(ctx context.Context, pkg string, finish func(dir string) error) (string, error) {
	version, err := l.candidate(ctx, pkg)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(l.Cache, "packages", pkg+"_"+strings.ReplaceAll(version, ":", "%3a"))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	start := time.Now()
	// Made aside and renamed: an interrupted run leaves nothing half done.
	tmp, err := os.MkdirTemp(l.Cache, "unpack-*")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := l.apt(ctx, tmp, "download", pkg); err != nil {
		// The lists may be older than the archive.
		if err := l.apt(ctx, "", "update"); err != nil {
			return "", err
		}
		if err := l.apt(ctx, tmp, "download", pkg); err != nil {
			return "", err
		}
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("download of %s gave %d files: %w", pkg, len(debs), err)
	}
	root := filepath.Join(tmp, "root")
	if _, err := l.Output(ctx, Cmd{Name: "unpack " + pkg, Args: []string{"dpkg-deb", "-x", debs[0], root}}); err != nil {
		return "", err
	}
	if finish != nil {
		if err := finish(root); err != nil {
			return "", err
		}
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(root, dir); err != nil {
		if _, serr := os.Stat(dir); serr == nil {
			return dir, nil // another run was faster
		}
		return "", err
	}
	l.Logf("%s %s unpacked in %.1f s", pkg, version, time.Since(start).Seconds())
	return dir, nil
}
