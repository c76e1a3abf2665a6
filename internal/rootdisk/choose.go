package rootdisk

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/canon"
	"github.com/ironring/ironring/internal/errs"
)

// Choose picks the root disk, or refuses with an error of kind Invalid that
// lists the disks and what to do. hints is a JSON object as Hints describes
// it; empty for none.
func Choose(disks []agentproto.Disk, hints []byte, o Options) (agentproto.Disk, error) {
	h, err := ParseHints(hints)
	if err != nil {
		return agentproto.Disk{}, err
	}
	why := reasons(disks, o)
	var candidates, fitting []agentproto.Disk
	for i, d := range disks {
		if why[i] != "" {
			continue
		}
		candidates = append(candidates, d)
		if h.Fits(d) {
			fitting = append(fitting, d)
		}
	}
	switch {
	case len(candidates) == 0:
		return agentproto.Disk{}, errs.New(errs.Invalid, "no disk can be the root disk%s", excluded(disks, why, Hints{}, ": "))
	case len(fitting) == 0:
		return agentproto.Disk{}, errs.New(errs.Invalid, "the root device hints fit none of the machine's disks; use one of:%s%s",
			list(candidates, candidates), excluded(disks, why, h, "\nthey fit a disk that can never be the root disk: "))
	case len(fitting) > 1 && h.None():
		return agentproto.Disk{}, errs.New(errs.Invalid, "the machine has %d disks and no root device hint says which one to write; set one of:%s",
			len(fitting), list(fitting, candidates))
	case len(fitting) > 1:
		return agentproto.Disk{}, errs.New(errs.Invalid, "the root device hints fit %d disks; set one of:%s",
			len(fitting), list(fitting, candidates))
	}
	if _, err := Match(ID(fitting[0]), disks); err != nil {
		return agentproto.Disk{}, errs.New(errs.Invalid, "disk %s could not be recognised after a restart: %w", describe(fitting[0]), err)
	}
	return fitting[0], nil
}

// maxListed bounds a message about a machine with very many disks.
const maxListed = 32

// list has a line for each disk with the exact hint that means it alone.
func list(disks, candidates []agentproto.Disk) string {
	var b strings.Builder
	for i, d := range disks {
		if i == maxListed {
			fmt.Fprintf(&b, "\n  and %d more", len(disks)-i)
			break
		}
		fmt.Fprintf(&b, "\n  %s: ", describe(d))
		if key, expr, ok := hint(d, candidates); ok {
			fmt.Fprintf(&b, "properties/root_device=%s or --root-device %s", document(key, expr), argument(key, expr))
		} else {
			b.WriteString("no hint can tell it from the others")
		}
	}
	return b.String()
}

// excluded says of the disks that fit h why they are not candidates.
func excluded(disks []agentproto.Disk, why []string, h Hints, lead string) string {
	var parts []string
	for i, d := range disks {
		if why[i] != "" && h.Fits(d) && len(parts) < maxListed {
			parts = append(parts, describe(d)+" is excluded: "+why[i])
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return lead + strings.Join(parts, "; ")
}

// describe is a disk as people recognise it. What firmware left empty is "-".
func describe(d agentproto.Disk) string {
	return fmt.Sprintf("%s (%s, serial %s, wwn %s, model %s)",
		text(d.Name), size(d.SizeBytes), text(d.Serial), text(d.WWN), text(d.Model))
}

// text is a string of a disk's firmware, safe to print.
func text(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(strings.TrimSpace(s), "?"))
	if s == "" {
		return "-"
	}
	return errs.Clip(s)
}

func size(b uint64) string {
	switch {
	case b >= 1<<40:
		return fmt.Sprintf("%.1f TiB", float64(b)/(1<<40))
	case b >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(b)/(1<<30))
	}
	return fmt.Sprintf("%.1f MiB", float64(b)/(1<<20))
}

// Hint is a hint, ready to paste, that fits this disk and no other of them:
// by serial where that is possible, then by WWN, then by place. Names are the
// last resort, because they may change with every boot.
func Hint(d agentproto.Disk, disks []agentproto.Disk) (string, bool) {
	key, expr, ok := hint(d, disks)
	if !ok {
		return "", false
	}
	return document(key, expr), true
}

func hint(d agentproto.Disk, disks []agentproto.Disk) (key, expr string, ok bool) {
	for _, key := range []string{"serial", "wwn", "wwn_with_extension", "by_path", "hctl", "name"} {
		value := strings.TrimSpace(textKeys[key](d))
		if value == "" || strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) {
			continue
		}
		for _, expr := range []string{value, "s== " + value} {
			doc := document(key, expr)
			if h, err := ParseHints([]byte(doc)); doc != "" && err == nil && fitsOnly(h, d, disks) {
				return key, expr, true
			}
		}
	}
	return "", "", false
}

// document is a hint as JSON, as properties/root_device has it; "" for a text
// that JSON cannot hold.
func document(key, expr string) string {
	doc, err := canon.JSON(map[string]string{key: expr})
	if err != nil {
		return ""
	}
	return string(doc)
}

// argument is a hint as the command line takes it, quoted for the shell. What
// would mean a file, an environment variable or standard input goes as JSON.
func argument(key, expr string) string {
	arg := key + "=" + expr
	if expr == "-" || strings.HasPrefix(expr, "@") || strings.HasPrefix(expr, "env:") {
		text, _ := canon.JSON(expr) // document has encoded it
		arg = key + ":=" + string(text)
	}
	return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
}

// fitsOnly: h fits d, and exactly one of the disks.
func fitsOnly(h Hints, d agentproto.Disk, disks []agentproto.Disk) bool {
	n := 0
	for _, other := range disks {
		if h.Fits(other) {
			n++
		}
	}
	return n == 1 && h.Fits(d)
}
