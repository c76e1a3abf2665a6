package cli

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal"
)

// leftOutSecrets is the pattern of an export that refers to no secret.
const leftOutSecrets = "none"

// referring makes the references of an export: a pattern says where whoever
// applies the file has put the secrets.
type referring struct {
	env     bool
	pattern string            // "" refers to nothing
	stands  map[string]string // variables to the secret that each was made for
	left    int               // secrets that no reference stands for
}

var placeholder = regexp.MustCompile(`\{[^}]*\}`)

// newReferring reads a pattern such as file:secrets/{node}/{path}.
func newReferring(pattern string) (*referring, error) {
	r := &referring{stands: map[string]string{}}
	if pattern == leftOutSecrets {
		return r, nil
	}
	kind, text, _ := strings.Cut(pattern, ":")
	if kind != "env" && kind != "file" || text == "" {
		return nil, errs.About(errs.Invalid, "secrets", "--secrets %q: must be file:PATH, env:NAME or none", pattern)
	}
	for _, p := range placeholder.FindAllString(text, -1) {
		if !slices.Contains([]string{"{node}", "{path}", "{key}"}, p) {
			return nil, errs.About(errs.Invalid, "secrets", "--secrets %q: %s stands for nothing; there are {node}, {path}, {key}", pattern, p)
		}
	}
	r.env, r.pattern = kind == "env", text
	return r, nil
}

// to is the reference to a secret of a node; path begins with the document.
func (r *referring) to(node string, path []string) (reference, error) {
	names := make([]string, len(path))
	for i, p := range path {
		names[i] = fileName(p)
	}
	text := strings.NewReplacer("{node}", fileName(node), "{path}", strings.Join(names, "/"), "{key}", names[len(names)-1]).Replace(r.pattern)
	if !r.env {
		return reference{File: text}, nil
	}
	variable := strings.Map(func(c rune) rune {
		if c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' {
			return c
		}
		return '_'
	}, strings.ToUpper(text))
	if was, twice := r.stands[variable]; twice && was != text {
		return reference{}, errs.About(errs.Invalid, "secrets", "--secrets: %s and %s would both be the environment variable %s: refer to files", was, text, variable)
	}
	r.stands[variable] = text
	return reference{Env: variable}, nil
}

// fileName is a text as one name in a path.
func fileName(s string) string {
	switch s {
	case "":
		return "%"
	case ".", "..":
		return strings.ReplaceAll(s, ".", "%2E")
	}
	return url.PathEscape(s)
}

// value is a stored value with references in the places of its secrets. What
// cannot be referred to is left out, as is a list that holds such: ok is false.
func (r *referring) value(node string, path []string, v any) (out any, ok bool, err error) {
	switch v := v.(type) {
	case string:
		if v != seal.Mask {
			return v, true, nil
		}
		if r.pattern == "" || !secretAt(path[0], path[1:]) {
			r.left++
			return nil, false, nil
		}
		ref, err := r.to(node, path)
		return ref, err == nil, err
	case map[string]any:
		kept := map[string]any{}
		for k, child := range v {
			c, ok, err := r.value(node, append(slices.Clip(path), k), child)
			if err != nil {
				return nil, false, err
			}
			if ok {
				kept[k] = c
			}
		}
		return kept, len(kept) > 0 || len(v) == 0, nil
	case []any:
		list := make([]any, len(v))
		before := r.left
		for i, child := range v {
			c, _, err := r.value(node, append(slices.Clip(path), strconv.Itoa(i)), child)
			if err != nil {
				return nil, false, err
			}
			list[i] = c
		}
		return list, r.left == before, nil // a list cannot leave out what is in it
	}
	return v, true, nil
}
