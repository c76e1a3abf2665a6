// Package ipxe interprets the part of iPXE's script language that package pxe
// writes, for simulated machines and for tests of the scripts.
//
// It is not iPXE: commands and options that our scripts do not use are errors,
// so that a script which leaves the known ground is noticed. Fetching, waiting
// and DHCP are the caller's (Machine). A Run is one goroutine's business and
// ends when the script ends, when ctx ends, or after maxCommands.
//
// Start with Run.
package ipxe

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ironring/ironring/internal/errs"
)

// maxCommands bounds a run: a script whose loop never waits must end too.
const maxCommands = 100_000

// Settings are iPXE's settings by name: "next-server", "filename" and what
// scripts set.
type Settings map[string]string

// Machine is what scripts act on.
type Machine interface {
	// Fetch loads a file for later; name is "vmlinuz" or what --name says.
	// timeout is the longest without progress, 0 for no limit.
	Fetch(ctx context.Context, name, url string, timeout time.Duration) error
	// Script loads another script.
	Script(ctx context.Context, url string, timeout time.Duration) (string, error)
	// DHCP asks for settings again.
	DHCP(ctx context.Context) (Settings, error)
	// Sleep waits; ctx ends it.
	Sleep(ctx context.Context, d time.Duration) error
	// Print shows a line on the console.
	Print(line string)
}

// Outcome is how a script ended: with a kernel that was started, or by exit.
type Outcome struct {
	Booted bool
	Kernel string // URL
	Line   string // the kernel's arguments
	Initrd string // URL, "" without one
	Exit   int    // of the exit command, when not Booted
}

type run struct {
	m      Machine
	set    Settings
	lines  []string
	labels map[string]int
	at     int
	steps  int
	out    Outcome
	done   bool
}

// Run executes a script, and scripts that it chains to. The settings are
// changed.
func Run(ctx context.Context, m Machine, script string, set Settings) (Outcome, error) {
	r := &run{m: m, set: set}
	if err := r.load(script); err != nil {
		return Outcome{}, err
	}
	for !r.done {
		if err := ctx.Err(); err != nil {
			return Outcome{}, err
		}
		if r.at >= len(r.lines) {
			return r.out, nil // the end of a script is exit 0
		}
		line := r.lines[r.at]
		r.at++
		if err := r.line(ctx, line); err != nil {
			return Outcome{}, fmt.Errorf("line %d (%s): %w", r.at, line, err)
		}
	}
	return r.out, nil
}

func (r *run) load(script string) error {
	lines := strings.Split(strings.TrimSuffix(script, "\n"), "\n")
	if lines[0] != "#!ipxe" {
		return errs.New(errs.Invalid, "not an iPXE script")
	}
	r.lines, r.at, r.labels = lines, 0, map[string]int{}
	for i, l := range lines {
		if name, ok := strings.CutPrefix(l, ":"); ok {
			if _, twice := r.labels[name]; twice {
				return errs.New(errs.Invalid, "label %q stands twice", name)
			}
			r.labels[name] = i
		}
	}
	return nil
}

// line executes commands joined by && and ||; the failure of the last one
// that ran ends the script.
func (r *run) line(ctx context.Context, line string) error {
	if line == "" || line[0] == '#' || line[0] == ':' {
		return nil
	}
	var failed error
	and := true // how the next command hangs on the one before
	words := strings.Fields(line)
	for len(words) > 0 {
		n := 0
		for n < len(words) && words[n] != "&&" && words[n] != "||" {
			n++
		}
		if and == (failed == nil) {
			failed = nil
			if n > 0 {
				failed = r.command(ctx, words[:n])
			}
		}
		if n == len(words) {
			return failed
		}
		and = words[n] == "&&"
		words = words[n+1:]
		if len(words) == 0 && !and {
			return nil // "command ||" never fails
		}
	}
	return failed
}

var reference = regexp.MustCompile(`\$\{([a-z0-9/_-]*)\}`)

func (r *run) expand(words []string) []string {
	s := reference.ReplaceAllStringFunc(strings.Join(words, " "), func(ref string) string {
		return r.set[ref[2:len(ref)-1]]
	})
	return strings.Fields(s)
}

func (r *run) command(ctx context.Context, words []string) error {
	if r.steps++; r.steps > maxCommands {
		return errs.New(errs.Busy, "the script does not end")
	}
	words = r.expand(words)
	if len(words) == 0 {
		return nil
	}
	args := words[1:]
	switch words[0] {
	case "echo":
		r.m.Print(strings.Join(args, " "))
	case "set":
		if len(args) == 0 {
			return errs.New(errs.Invalid, "set needs a name")
		}
		r.set[args[0]] = strings.Join(args[1:], " ")
	case "iseq":
		if len(args) != 2 || args[0] != args[1] {
			return errs.New(errs.NotFound, "not equal")
		}
	case "isset":
		if len(args) == 0 {
			return errs.New(errs.NotFound, "not set")
		}
	case "goto":
		return r.jump(args)
	case "sleep":
		return r.sleep(ctx, args)
	case "imgfree":
		r.out = Outcome{}
	case "kernel", "initrd":
		return r.fetch(ctx, words[0], args)
	case "boot":
		if r.out.Kernel == "" {
			return errs.New(errs.Invalid, "nothing to boot")
		}
		r.out.Booted, r.done = true, true
	case "dhcp":
		return r.dhcp(ctx)
	case "chain":
		return r.chain(ctx, args)
	case "exit":
		return r.exit(args)
	default:
		return errs.New(errs.Unsupported, "command %q", words[0])
	}
	return nil
}

func (r *run) jump(args []string) error {
	if len(args) != 1 {
		return errs.New(errs.Invalid, "goto needs one label")
	}
	at, ok := r.labels[args[0]]
	if !ok {
		return errs.New(errs.Invalid, "no label %q", args[0])
	}
	r.at = at
	return nil
}

func (r *run) sleep(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errs.New(errs.Invalid, "sleep needs a number")
	}
	n, err := strconv.ParseUint(args[0], 10, 16)
	if err != nil {
		return errs.New(errs.Invalid, "sleep needs a number")
	}
	return r.m.Sleep(ctx, time.Duration(n)*time.Second)
}

func (r *run) dhcp(ctx context.Context) error {
	got, err := r.m.DHCP(ctx)
	if err != nil {
		return err
	}
	for k, v := range got {
		r.set[k] = v
	}
	return nil
}

// options are those that our scripts use; flags without a value are --autofree
// and --replace.
type options struct {
	timeout time.Duration
	name    string
	replace bool
	rest    []string
}

func parse(args []string) (o options, err error) {
	for len(args) > 0 && strings.HasPrefix(args[0], "--") {
		flag := args[0]
		args = args[1:]
		switch flag {
		case "--autofree":
			continue
		case "--replace":
			o.replace = true
			continue
		}
		if len(args) == 0 {
			return o, errs.New(errs.Invalid, "%s needs a value", flag)
		}
		switch flag {
		case "--timeout":
			ms, perr := strconv.ParseUint(args[0], 10, 31)
			if perr != nil {
				return o, errs.New(errs.Invalid, "--timeout needs milliseconds")
			}
			o.timeout = time.Duration(ms) * time.Millisecond
		case "--name":
			o.name = args[0]
		default:
			return o, errs.New(errs.Unsupported, "option %s", flag)
		}
		args = args[1:]
	}
	if len(args) == 0 {
		return o, errs.New(errs.Invalid, "a URL is missing")
	}
	o.rest = args
	return o, nil
}

func (r *run) fetch(ctx context.Context, what string, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	name := o.name
	if name == "" {
		name = o.rest[0][strings.LastIndexByte(o.rest[0], '/')+1:]
	}
	if err := r.m.Fetch(ctx, name, o.rest[0], o.timeout); err != nil {
		return err
	}
	if what == "kernel" {
		r.out.Kernel, r.out.Line = o.rest[0], strings.Join(o.rest[1:], " ")
	} else {
		r.out.Initrd = o.rest[0]
	}
	return nil
}

func (r *run) chain(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if !o.replace {
		return errs.New(errs.Unsupported, "chain without --replace")
	}
	text, err := r.m.Script(ctx, o.rest[0], o.timeout)
	if err != nil {
		return err
	}
	return r.load(text)
}

func (r *run) exit(args []string) error {
	if len(args) > 0 {
		n, err := strconv.ParseUint(args[0], 10, 8)
		if err != nil {
			return errs.New(errs.Invalid, "exit needs a number")
		}
		r.out.Exit = int(n)
	}
	r.done = true
	return nil
}
