package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/yamlbound"
)

// maxYAMLDepth bounds how deep a file may be nested.
const maxYAMLDepth = 40

// plainNumber is a number of JSON.
var plainNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// parseYAML reads a mapping with the list `nodes`, and perhaps `cluster`, or
// that list alone.
func parseYAML(data []byte, p *problems) []*entry {
	file, err := yamlbound.Parse(data)
	if err != nil {
		line, text := yamlProblem(err)
		p.add(line, "%s", text)
		return nil
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			p.add(lineOf(doc.Body), "more than one YAML document")
			return nil
		}
		body = doc.Body
	}
	top := &entry{lines: map[string]int{}}
	for _, kv := range pairs(body) {
		switch key := keyText(kv); key {
		case "nodes":
			body = kv.Value
		case clusterKey:
			v, err := top.value(kv.Value, key, 0)
			if err != nil {
				p.add(lineOf(kv), "%v", err)
				return nil
			}
			top.set(key, v, lineOf(kv.Key), p)
		default:
			p.add(lineOf(kv), "unknown key %q: the file is a mapping with the list `nodes`", key)
			return nil
		}
	}
	list, ok := body.(*ast.SequenceNode)
	if !ok {
		if body != nil && body.Type() != ast.NullType {
			p.add(lineOf(body), "`nodes` must be a list")
		}
		return nil
	}
	var out []*entry
	for _, item := range list.Values {
		if e := yamlEntry(item, p); e != nil {
			e.cluster = cmp.Or(e.cluster, top.cluster)
			out = append(out, e)
		}
	}
	return out
}

func yamlEntry(item ast.Node, p *problems) *entry {
	e := &entry{line: lineOf(item), fields: map[string]any{}, documents: map[string]map[string]any{}, lines: map[string]int{}}
	all := pairs(item)
	if all == nil {
		p.add(e.line, "a node must be a mapping such as {name: n1, driver: redfish}")
		return nil
	}
	e.line = lineOf(all[0].Key)
	seen := map[string]bool{}
	for _, kv := range all {
		key := keyText(kv)
		if seen[key] {
			p.add(lineOf(kv.Key), "%s: given twice", key)
			continue
		}
		seen[key] = true
		v, err := e.value(kv.Value, key, 0)
		if err != nil {
			p.add(lineOf(kv.Value), "%v", err)
			continue
		}
		e.set(key, v, lineOf(kv.Key), p)
	}
	return e
}

// value is a YAML value as JSON's types; numbers stay as they are written.
func (e *entry) value(n ast.Node, path string, depth int) (any, error) {
	if depth > maxYAMLDepth {
		return nil, errs.New(errs.Invalid, "%s: nested too deep", path)
	}
	switch n := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		out := map[string]any{}
		for _, kv := range pairs(n) {
			key := keyText(kv)
			at := path + "/" + key
			if _, twice := out[key]; twice {
				return nil, errs.New(errs.Invalid, "%s: given twice", at)
			}
			e.lines[at] = lineOf(kv.Key)
			v, err := e.value(kv.Value, at, depth+1)
			if err != nil {
				return nil, err
			}
			out[key] = v
		}
		return out, nil
	case *ast.SequenceNode:
		out := []any{}
		for i, item := range n.Values {
			v, err := e.value(item, fmt.Sprintf("%s/%d", path, i), depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	case *ast.StringNode:
		if t := n.GetToken(); t.Type == token.StringType && plainNumber.MatchString(t.Value) {
			return json.Number(t.Value), nil // larger than the library's numbers
		}
		return n.Value, nil
	case *ast.LiteralNode:
		return n.Value.Value, nil
	case *ast.BoolNode:
		return n.Value, nil
	case *ast.NullNode:
		return nil, nil
	case *ast.IntegerNode, *ast.FloatNode:
		text := n.GetToken().Value
		if plainNumber.MatchString(text) {
			return json.Number(text), nil
		}
		if i, ok := n.(*ast.IntegerNode); ok {
			return json.Number(fmt.Sprint(i.Value)), nil
		}
	case nil:
		return nil, nil
	}
	return nil, errs.New(errs.Invalid, "%s: %s cannot be used here: write it as a text in quotation marks, or without anchors, tags and merges", path, strings.ToLower(n.Type().String()))
}

// pairs are the keys and values of a mapping; nil when it is none.
func pairs(n ast.Node) []*ast.MappingValueNode {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	return nil
}

func keyText(kv *ast.MappingValueNode) string {
	if s, ok := kv.Key.(*ast.StringNode); ok {
		return s.Value
	}
	return kv.Key.GetToken().Value
}

func lineOf(n ast.Node) int {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 1
	}
	return n.GetToken().Position.Line
}

// yamlProblem is the line and the first sentence of an error of the library,
// which quotes the file over several lines.
func yamlProblem(err error) (int, string) {
	var bound *yamlbound.Error
	if errors.As(err, &bound) {
		return bound.Line, bound.Text
	}
	var at yaml.Error
	if !errors.As(err, &at) {
		return 1, "is no YAML"
	}
	line := 1
	if t := at.GetToken(); t != nil && t.Position != nil {
		line = t.Position.Line
	}
	return line, at.GetMessage()
}
