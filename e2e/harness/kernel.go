package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Kernel is Debian's kernel, unpacked in the cache and not installed.
type Kernel struct {
	Version string // "6.1.0-37-amd64"
	Vmlinuz string // the file
	Modules string // lib/modules/VERSION, with modules.dep and modules.alias
	Root    string // the whole package, unpacked
}

// Kernel gets the kernel that Debian's linux-image-amd64 stands for now.
func (l *Lab) Kernel(ctx context.Context) (*Kernel, error) {
	const meta = "linux-image-amd64"
	if _, err := l.candidate(ctx, meta); err != nil {
		return nil, err
	}
	out, err := l.Output(ctx, Cmd{Name: "apt-cache depends", Args: []string{"apt-cache", "depends", meta}, Env: []string{"LC_ALL=C"}})
	if err != nil {
		return nil, err
	}
	var pkg string
	for line := range strings.Lines(out) {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && strings.HasPrefix(p, "linux-image-") {
			pkg = p
			break
		}
	}
	if pkg == "" {
		return nil, fmt.Errorf("%s depends on no kernel", meta)
	}
	root, err := l.unpacked(ctx, pkg, func(dir string) error {
		version, err := onlyEntry(filepath.Join(dir, "lib/modules"))
		if err != nil {
			return err
		}
		_, err = l.Output(ctx, Cmd{Name: "depmod", Args: []string{"/sbin/depmod", "-b", dir, version}})
		return err
	})
	if err != nil {
		return nil, err
	}
	version, err := onlyEntry(filepath.Join(root, "lib/modules"))
	if err != nil {
		return nil, err
	}
	return &Kernel{
		Version: version,
		Vmlinuz: filepath.Join(root, "boot", "vmlinuz-"+version),
		Modules: filepath.Join(root, "lib/modules", version),
		Root:    root,
	}, nil
}

func onlyEntry(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	if len(entries) != 1 {
		return "", fmt.Errorf("%s has %d entries, want one", dir, len(entries))
	}
	return entries[0].Name(), nil
}

// moduleFiles are the files of the named modules, each after what it depends
// on. A name that modules.dep does not know is built into the kernel.
func (k *Kernel) moduleFiles(names ...string) ([]string, error) {
	f, err := os.Open(filepath.Join(k.Modules, "modules.dep"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	deps, byName := map[string][]string{}, map[string]string{}
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		file, needs, _ := strings.Cut(s.Text(), ":")
		deps[file] = strings.Fields(needs)
		byName[strings.ReplaceAll(strings.TrimSuffix(path.Base(file), ".ko"), "-", "_")] = file
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	var order []string
	seen := map[string]bool{}
	var add func(file string, depth int) error
	add = func(file string, depth int) error {
		if depth > 32 {
			return errors.New("modules.dep goes in circles at " + file)
		}
		if seen[file] {
			return nil
		}
		seen[file] = true
		for _, d := range deps[file] {
			if err := add(d, depth+1); err != nil {
				return err
			}
		}
		order = append(order, filepath.Join(k.Modules, file))
		return nil
	}
	for _, n := range names {
		if file, ok := byName[n]; ok {
			if err := add(file, 0); err != nil {
				return nil, err
			}
		}
	}
	return order, nil
}
