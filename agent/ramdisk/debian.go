package ramdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/ironring/ironring/internal/errs"
)

// Kernel is a kernel with its modules, ready for Options.
type Kernel struct {
	Image      string // the file
	ModulesDir string // lib/modules/VERSION
	Version    string // uname -r
	Package    string // "linux-image-6.1.0-18-amd64 6.1.76-1"
}

// DebianPackage is the package that names Debian's current kernel.
const DebianPackage = "linux-image-amd64"

// FetchDebianKernel gets Debian's kernel as apt knows it, unpacks it under dir
// without installing it, and makes the lists of modules. What is there already
// is not fetched again. It needs apt-get, dpkg-deb and depmod (package kmod).
// The kernel is signed, so that Secure Boot takes it through shim.
func FetchDebianKernel(ctx context.Context, dir string) (*Kernel, error) {
	depmod, err := tool("depmod", "kmod")
	if err != nil {
		return nil, err
	}
	for _, t := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := tool(t, "apt and dpkg"); err != nil {
			return nil, errs.New(errs.Unsupported, "%w; give a kernel and its modules instead", err)
		}
	}
	pkg, ver, err := candidate(ctx)
	if err != nil {
		// The lists of packages may not have been fetched yet.
		if _, uerr := run(ctx, "", "apt-get", "-o", "DPkg::Lock::Timeout=600", "-qq", "update"); uerr != nil {
			return nil, errors.Join(err, uerr)
		}
		if pkg, ver, err = candidate(ctx); err != nil {
			return nil, err
		}
	}
	final := filepath.Join(dir, strings.NewReplacer(":", "_", "/", "_").Replace(pkg+"_"+ver))
	if k, err := load(final, pkg+" "+ver); err == nil {
		return k, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("fetch kernel: %w", err)
	}
	work, err := os.MkdirTemp(dir, "new-")
	if err != nil {
		return nil, fmt.Errorf("fetch kernel: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }() // a directory of our own below the cache
	if _, err := run(ctx, work, "apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", pkg+"="+ver); err != nil {
		return nil, err
	}
	debs, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(debs) != 1 {
		return nil, errs.New(errs.Internal, "fetch kernel: %d packages came instead of one", len(debs))
	}
	if _, err := run(ctx, work, "dpkg-deb", "-x", debs[0], "."); err != nil {
		return nil, err
	}
	if err := os.Remove(debs[0]); err != nil {
		return nil, fmt.Errorf("fetch kernel: %w", err)
	}
	k, err := load(work, pkg+" "+ver)
	if err != nil {
		return nil, err
	}
	if _, err := run(ctx, work, depmod, "-b", ".", k.Version); err != nil {
		return nil, err
	}
	for _, unused := range []string{"usr/share", "boot/System.map-" + k.Version} {
		if err := os.RemoveAll(filepath.Join(work, unused)); err != nil {
			return nil, fmt.Errorf("fetch kernel: %w", err)
		}
	}
	if err := os.RemoveAll(final); err != nil {
		return nil, fmt.Errorf("fetch kernel: %w", err)
	}
	if err := os.Chmod(work, 0o755); err != nil {
		return nil, fmt.Errorf("fetch kernel: %w", err)
	}
	if err := os.Rename(work, final); err != nil {
		return nil, fmt.Errorf("fetch kernel: %w", err)
	}
	return load(final, pkg+" "+ver)
}

// candidate is the package behind the one that names the current kernel, and
// its version.
func candidate(ctx context.Context) (pkg, ver string, err error) {
	out, err := run(ctx, "", "apt-cache", "depends", DebianPackage)
	if err != nil {
		return "", "", err
	}
	for l := range strings.SplitSeq(out, "\n") {
		if k, v, ok := strings.Cut(strings.TrimSpace(l), ": "); ok && k == "Depends" && strings.HasPrefix(v, "linux-image-") {
			pkg = v
			break
		}
	}
	if pkg == "" {
		return "", "", errs.New(errs.NotFound, "apt knows no kernel behind %s", DebianPackage)
	}
	out, err = run(ctx, "", "apt-cache", "policy", pkg)
	if err != nil {
		return "", "", err
	}
	for l := range strings.SplitSeq(out, "\n") {
		if v, ok := strings.CutPrefix(strings.TrimSpace(l), "Candidate: "); ok && v != "(none)" {
			return pkg, v, nil
		}
	}
	return "", "", errs.New(errs.NotFound, "apt has no version of %s", pkg)
}

// load finds kernel and modules in an unpacked package.
func load(root, name string) (*Kernel, error) {
	images, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return nil, errs.New(errs.NotFound, "%s holds %d kernels", filepath.Base(root), len(images))
	}
	ver := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	for _, lib := range []string{"lib", "usr/lib"} {
		dir := filepath.Join(root, lib, "modules", ver)
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			return &Kernel{Image: images[0], ModulesDir: dir, Version: ver, Package: name}, nil
		}
	}
	return nil, errs.New(errs.NotFound, "%s holds no modules for %s", filepath.Base(root), ver)
}

// tool finds a program, also where only root's PATH leads.
func tool(name, pkg string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", errs.New(errs.Unsupported, "%s is not installed (package %s)", name, pkg)
}

// run runs a program and returns what it printed.
func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return "", errs.New(errs.Internal, "%s: %w: %s", filepath.Base(name), err, strings.TrimSpace(lastLines(stderr.String(), 3)))
	}
	return string(out), nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}
