// Package kmod finds the kernel modules that a device asks for, and the order
// in which to load them, from the files that depmod writes.
//
// The ramdisk builder uses it to take along what the chosen modules need, the
// ramdisk's /init to load what the machine's devices ask for. Names of modules
// are compared with "-" and "_" as the same letter, as the kernel does.
//
// An Index is not changed after Load and may be used by several goroutines.
package kmod

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sort"
	"strings"

	"github.com/ironring/ironring/internal/errs"
)

// Index is what is known of the modules of one kernel.
type Index struct {
	files   map[string]string   // module -> file, relative to the directory
	deps    map[string][]string // file -> files it needs, nearest first
	soft    map[string]softDep
	builtin map[string]bool
	aliases map[string][]alias // by the literal text before the first wildcard
	lengths []int              // of the keys of aliases, ascending
}

type alias struct {
	pattern string
	module  string
}

// softDep are modules to load before and after another one, if they exist.
type softDep struct{ pre, post []string }

// Load reads modules.dep and, where they are there, modules.alias,
// modules.softdep and modules.builtin.
func Load(dir fs.FS) (*Index, error) {
	x := &Index{files: map[string]string{}, deps: map[string][]string{}, soft: map[string]softDep{}, builtin: map[string]bool{}, aliases: map[string][]alias{}}
	for _, f := range []struct {
		name string
		must bool
		line func(string) error
	}{
		{"modules.dep", true, x.depLine},
		{"modules.alias", false, x.aliasLine},
		{"modules.softdep", false, x.softLine},
		{"modules.builtin", false, func(l string) error { x.builtin[Name(l)] = true; return nil }},
	} {
		b, err := fs.ReadFile(dir, f.name)
		if errors.Is(err, fs.ErrNotExist) && !f.must {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s (depmod writes it): %w", f.name, err)
		}
		sc := bufio.NewScanner(bytes.NewReader(b))
		sc.Buffer(nil, 1<<20)
		for n := 1; sc.Scan(); n++ {
			l := strings.TrimSpace(sc.Text())
			if l == "" || l[0] == '#' {
				continue
			}
			if err := f.line(l); err != nil {
				return nil, errs.New(errs.Invalid, "%s line %d: %w", f.name, n, err)
			}
		}
		if err := sc.Err(); err != nil {
			return nil, errs.New(errs.Invalid, "%s: %w", f.name, err)
		}
	}
	seen := map[int]bool{}
	for k := range x.aliases {
		if !seen[len(k)] {
			seen[len(k)] = true
			x.lengths = append(x.lengths, len(k))
		}
	}
	sort.Ints(x.lengths)
	return x, nil
}

func (x *Index) depLine(l string) error {
	file, deps, ok := strings.Cut(l, ":")
	if !ok {
		return errs.New(errs.Invalid, "no colon in %.80q", l)
	}
	x.files[Name(file)] = file
	x.deps[file] = strings.Fields(deps)
	return nil
}

func (x *Index) aliasLine(l string) error {
	f := strings.Fields(l)
	if len(f) != 3 || f[0] != "alias" {
		return nil // a newer depmod's
	}
	key := f[1]
	if i := strings.IndexAny(key, "*?["); i >= 0 {
		key = key[:i]
	}
	x.aliases[key] = append(x.aliases[key], alias{f[1], canonical(f[2])})
	return nil
}

func (x *Index) softLine(l string) error {
	f := strings.Fields(l)
	if len(f) < 3 || f[0] != "softdep" {
		return nil
	}
	name := canonical(f[1])
	d := x.soft[name]
	var into *[]string
	for _, w := range f[2:] {
		switch w {
		case "pre:":
			into = &d.pre
		case "post:":
			into = &d.post
		default:
			if into != nil {
				*into = append(*into, canonical(w))
			}
		}
	}
	x.soft[name] = d
	return nil
}

// Name is the module in a file of that path, without any suffix.
func Name(file string) string {
	base := path.Base(file)
	if i := strings.Index(base, ".ko"); i >= 0 {
		base = base[:i]
	}
	return canonical(base)
}

func canonical(s string) string { return strings.ReplaceAll(s, "-", "_") }

// File is the file of a module, relative to the directory; "" when the kernel
// has it built in or does not have it at all.
func (x *Index) File(module string) string { return x.files[canonical(module)] }

// Has tells whether the kernel has the module, built in or as a file.
func (x *Index) Has(module string) bool {
	return x.files[canonical(module)] != "" || x.builtin[canonical(module)]
}

// Modules are the names of all modules with a file, sorted.
func (x *Index) Modules() []string {
	out := make([]string, 0, len(x.files))
	for n := range x.files {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

// Order are the files to load for these modules, each after what it needs and
// none twice. Modules without a file are left out.
func (x *Index) Order(modules ...string) []string {
	var out []string
	seen := map[string]bool{}
	var add func(module string)
	add = func(module string) {
		module = canonical(module)
		file := x.files[module]
		if file == "" || seen[file] {
			return
		}
		seen[file] = true // before its needs: soft ones may point in circles
		soft := x.soft[module]
		for _, m := range soft.pre {
			add(m)
		}
		deps := x.deps[file]
		for i := len(deps) - 1; i >= 0; i-- { // depmod lists the deepest last
			add(Name(deps[i]))
		}
		out = append(out, file)
		for _, m := range soft.post {
			add(m)
		}
	}
	for _, m := range modules {
		add(m)
	}
	return out
}

// Match are the modules that want a device with this modalias, in the order
// of modules.alias.
func (x *Index) Match(modalias string) []string {
	var out []string
	for _, n := range x.lengths {
		if n > len(modalias) {
			break
		}
		for _, a := range x.aliases[modalias[:n]] {
			if glob(a.pattern, modalias) {
				out = append(out, a.module)
			}
		}
	}
	return out
}

// glob matches "*", "?" and "[a-z]" as modprobe does. Unlike path.Match, no
// character is special to "*".
func glob(p, s string) bool {
	for len(p) > 0 {
		switch p[0] {
		case '*':
			for len(p) > 0 && p[0] == '*' {
				p = p[1:]
			}
			if p == "" {
				return true
			}
			for i := range len(s) + 1 {
				if glob(p, s[i:]) {
					return true
				}
			}
			return false
		case '?':
			if s == "" {
				return false
			}
			p, s = p[1:], s[1:]
		case '[':
			end := strings.IndexByte(p, ']')
			if end < 0 || s == "" || !inSet(p[1:end], s[0]) {
				return false
			}
			p, s = p[end+1:], s[1:]
		default:
			if s == "" || s[0] != p[0] {
				return false
			}
			p, s = p[1:], s[1:]
		}
	}
	return s == ""
}

func inSet(set string, c byte) bool {
	not := strings.HasPrefix(set, "!")
	if not {
		set = set[1:]
	}
	for i := 0; i < len(set); i++ {
		if i+2 < len(set) && set[i+1] == '-' {
			if set[i] <= c && c <= set[i+2] {
				return !not
			}
			i += 2
		} else if set[i] == c {
			return !not
		}
	}
	return not
}
