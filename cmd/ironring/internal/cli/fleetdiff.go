package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal"
	"github.com/ironring/ironring/node"
)

// change is what makes one node what the file says. It is empty when there is
// nothing to do.
type change struct {
	entry *entry
	old   *api.Node // nil: create it
	lines []string  // for people; secrets masked
	set   map[string]any
	unset []string
	ports portChange
}

func (c *change) kind() string {
	switch {
	case c.old == nil:
		return "create"
	case len(c.lines) > 0:
		return "change"
	}
	return "unchanged"
}

func (c *change) note(format string, args ...any) {
	c.lines = append(c.lines, oneLine(fmt.Sprintf(format, args...)))
}

// difference compares an entry with the node as the cluster shows it. With
// secrets, those that the file refers to are set although they cannot be
// compared.
func (e *entry) difference(old *api.Node, ports []*api.Port, secrets bool) (*change, error) {
	c := &change{entry: e, old: old, set: map[string]any{}}
	if old == nil {
		c.creation()
		return c, nil
	}
	now, err := toJSON(old)
	if err != nil {
		return nil, err
	}
	was := now.(map[string]any)
	for _, key := range fileKeys() {
		field := fileFields[key]
		v, given := e.fields[field]
		if !given || field == "" {
			continue
		}
		if field == "conductor_group" {
			v = strings.ToLower(v.(string))
		}
		if was[field] != v {
			c.note("%s: %s -> %s", key, shown(was[field]), shown(v))
			c.set[field] = v
		}
	}
	for _, d := range node.Documents {
		if doc, given := e.documents[d.Field]; given {
			before, _ := jsonValue(string(*d.Of(old)))
			stored, _ := before.(map[string]any)
			if err := c.document([]string{d.Field}, stored, doc, secrets); err != nil {
				return nil, err
			}
		}
	}
	if e.hasPorts {
		if err := c.comparePorts(ports); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *change) creation() {
	for _, key := range fileKeys() {
		if v, ok := c.entry.fields[fileFields[key]]; ok && key != "name" {
			c.note("%s: %s", key, shown(v))
		}
		if doc := c.entry.documents[key]; len(doc) > 0 {
			c.note("%s: %s", key, shown(doc))
		}
	}
	for _, p := range c.entry.ports {
		c.note("port: %s", portText(p))
	}
}

// document compares two objects below a path. A secret of the stored one that
// the file leaves out is kept.
func (c *change) document(path []string, old, want map[string]any, secrets bool) error {
	keys := maps.Clone(old)
	if keys == nil {
		keys = map[string]any{}
	}
	maps.Copy(keys, want)
	for key := range keys {
		if (key == "" || strings.Contains(key, "/")) && !alike(old, want) {
			return c.whole(path, old, want)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		was, had := old[key]
		v, wanted := want[key]
		if err := c.value(append(slices.Clip(path), key), was, had, v, wanted, secrets); err != nil {
			return err
		}
	}
	return nil
}

func (c *change) value(path []string, was any, had bool, v any, wanted, secrets bool) error {
	at := strings.Join(path, "/")
	before, wasMap := was.(map[string]any)
	after, isMap := v.(map[string]any)
	ref, isRef := v.(reference)
	switch {
	case !wanted && masked(was):
	case !wanted && wasMap && holdsMask(was):
		return c.document(path, before, map[string]any{}, secrets)
	case !wanted:
		c.note("%s: %s removed", at, shown(was))
		c.unset = append(c.unset, at)
	case isRef && had && masked(was) && !secrets:
		// It is there, and whether it is the same cannot be seen.
	case isRef:
		c.note("%s: %s -> %s", at, shownOr(had, was), ref)
		c.set[at] = v
	case had && wasMap && isMap:
		return c.document(path, before, after, secrets)
	case had && isList(v) && alike(was, v) && !secrets:
	case !had || !reflect.DeepEqual(was, v):
		c.note("%s: %s -> %s", at, shownOr(had, was), shown(v))
		c.set[at] = v
	}
	return nil
}

// whole replaces an object in one, because paths cannot name its keys.
func (c *change) whole(path []string, old, want map[string]any) error {
	at := strings.Join(path, "/")
	if holdsMask(old) {
		return errs.About(errs.Unsupported, at, "%s has a key that is empty or holds a slash beside a secret: change it with `ironring node set`", at)
	}
	c.note("%s: %s -> %s", at, shown(old), shown(want))
	c.set[at] = want
	return nil
}

// masked reports whether a stored value is a secret, all of it: an export has
// to leave it out.
func masked(v any) bool {
	switch v := v.(type) {
	case string:
		return v == seal.Mask
	case []any:
		return slices.ContainsFunc(v, holdsMask) // a list cannot leave out what is in it
	case map[string]any:
		for _, child := range v {
			if !masked(child) {
				return false
			}
		}
		return len(v) > 0
	}
	return false
}

// holdsMask reports whether a stored value has a secret in it.
func holdsMask(v any) bool {
	switch v := v.(type) {
	case string:
		return v == seal.Mask
	case []any:
		return slices.ContainsFunc(v, holdsMask)
	case map[string]any:
		for _, child := range v {
			if holdsMask(child) {
				return true
			}
		}
	}
	return false
}

func isList(v any) bool { _, ok := v.([]any); return ok }

// alike reports whether a stored value is that of the file, as far as can be
// seen: of a secret only that there is one.
func alike(was, v any) bool {
	switch v := v.(type) {
	case reference:
		return masked(was)
	case []any:
		list, ok := was.([]any)
		return ok && slices.EqualFunc(list, v, alike)
	case map[string]any:
		m, ok := was.(map[string]any)
		if !ok {
			return false
		}
		for k, old := range m {
			is, given := v[k]
			if !given && masked(old) {
				continue // left out, it stays
			}
			if !given || !alike(old, is) {
				return false
			}
		}
		for k := range v {
			if _, had := m[k]; !had {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(was, v)
}

// shown is a value on one line, secrets masked.
func shown(v any) string {
	const most = 120
	text := "nothing"
	switch v := v.(type) {
	case nil:
		return "null"
	case string:
		if v != "" {
			text = v
		}
	case reference:
		return v.String()
	default:
		raw, err := json.Marshal(told(v))
		if err != nil {
			return "?"
		}
		text = string(raw)
	}
	if r := []rune(text); len(r) > most {
		text = string(r[:most-3]) + "..."
	}
	return text
}

func shownOr(had bool, v any) string {
	if !had {
		return "nothing"
	}
	return shown(v)
}

// told is a copy of a tree in which references are words.
func told(v any) any {
	switch v := v.(type) {
	case reference:
		return seal.Mask + " " + v.String()
	case map[string]any:
		out := map[string]any{}
		for k, child := range v {
			out[k] = told(child)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = told(v[i])
		}
		return out
	}
	return v
}

// newNode is what creates the entry's node.
func (e *entry) newNode(f *Factory) (*api.CreateNodeRequest, error) {
	n := &api.Node{Id: e.id}
	if err := e.apply(n, e.secrets(f)); err != nil {
		return nil, err
	}
	req := &api.CreateNodeRequest{Node: n}
	for _, p := range e.ports {
		req.Ports = append(req.Ports, proto.CloneOf(p))
	}
	return req, nil
}

// update is what changes the node, with the secrets read.
func (c *change) update(f *Factory) (*api.UpdateNodeRequest, error) {
	req := &api.UpdateNodeRequest{Node: c.old.GetId(), Rev: c.old.GetRev(), Set: map[string]string{}, Unset: c.unset}
	for at, v := range c.set {
		plain, err := resolved(v, c.entry.secrets(f))
		if err != nil {
			return nil, errs.About(errs.Invalid, at, "%s: %w", at, err)
		}
		raw, err := json.Marshal(plain)
		if err != nil {
			return nil, err
		}
		req.Set[at] = string(raw)
	}
	return req, nil
}
