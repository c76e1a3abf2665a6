package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/node"
)

// parseCSV reads a header line and a line for each node. A column is a key of
// an entry, or a path into a document such as driver_info/ipmi_address. An
// empty cell gives nothing. In documents a cell that is JSON is that value,
// any other is a text; the cell of a secret is env:NAME or file:PATH.
func parseCSV(data []byte, p *problems) []*entry {
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte("\ufeff"))))
	r.Comment = '#'
	header, err := r.Read()
	if err != nil {
		if !errors.Is(err, io.EOF) {
			p.add(1, "%v", err)
		}
		return nil
	}
	seen := map[string]bool{}
	for i, name := range header {
		header[i] = strings.TrimSpace(name)
		field, _, deep := strings.Cut(header[i], "/")
		isDoc := node.DocumentOf(&api.Node{}, field) != nil
		switch {
		case seen[header[i]]:
			p.add(1, "the column %q is there twice", header[i])
		case isDoc && !deep:
			p.add(1, "the column %q needs a path, such as %s/key", header[i], field)
		case !isDoc && field != clusterKey && !slices.Contains(fileKeys(), field), !isDoc && deep:
			p.add(1, "unknown column %q; there are %s, and paths into documents", header[i], strings.Join(fileKeys(), ", "))
		}
		seen[header[i]] = true
	}
	if len(p.all) > 0 {
		return nil
	}
	var out []*entry
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out
		}
		var bad *csv.ParseError
		if errors.As(err, &bad) {
			p.add(bad.StartLine, "%v", bad.Err)
			return nil
		}
		line, _ := r.FieldPos(0)
		out = append(out, csvEntry(header, row, line, p))
	}
}

func csvEntry(header, row []string, line int, p *problems) *entry {
	e := &entry{line: line, fields: map[string]any{}, documents: map[string]map[string]any{}, lines: map[string]int{}}
	docs := map[string]map[string]any{}
	for i, column := range header {
		text := row[i]
		field, path, deep := strings.Cut(column, "/")
		if deep && docs[field] == nil {
			docs[field] = map[string]any{} // a document that the file speaks of is given, be it empty
		}
		switch {
		case text == "":
		case deep:
			if !putPath(docs[field], strings.Split(path, "/"), csvCell(field, strings.Split(path, "/"), text)) {
				p.add(line, "%s: another column gives %s a value of its own", column, column)
			}
		case column == "ports":
			e.set(column, csvPorts(text), line, p)
		case slices.Contains(boolFields, column):
			var v any = text
			switch strings.ToLower(text) {
			case "true", "yes":
				v = true
			case "false", "no":
				v = false
			}
			e.set(column, v, line, p)
		default:
			e.set(column, text, line, p)
		}
	}
	for _, d := range node.Documents {
		if docs[d.Field] != nil {
			e.set(d.Field, docs[d.Field], line, p)
		}
	}
	return e
}

// csvCell is the value of a cell of a document.
func csvCell(field string, path []string, text string) any {
	if secretAt(field, path) {
		if name, ok := strings.CutPrefix(text, "env:"); ok {
			return map[string]any{"env": name}
		}
		if name, ok := strings.CutPrefix(text, "file:"); ok {
			return map[string]any{"file": name}
		}
		if v, ok := jsonValue(text); ok && v != nil {
			if _, number := v.(json.Number); !number {
				return v // refused later where it is a text
			}
		}
		if text == "null" {
			return nil
		}
		return text // refused later
	}
	if v, ok := jsonValue(text); ok {
		return v
	}
	return text
}

// jsonValue reads one JSON value; numbers stay as they are written.
func jsonValue(text string) (any, bool) {
	if !json.Valid([]byte(text)) {
		return nil, false
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var v any
	return v, dec.Decode(&v) == nil
}

func csvPorts(text string) any {
	if v, ok := jsonValue(text); ok {
		return v
	}
	var out []any
	for mac := range strings.FieldsSeq(strings.ReplaceAll(text, ";", " ")) {
		out = append(out, mac)
	}
	return out
}

// putPath sets a value inside a tree of maps; false when something else stands
// in the way.
func putPath(m map[string]any, path []string, v any) bool {
	for _, k := range path[:len(path)-1] {
		next, there := m[k]
		if !there {
			next = map[string]any{}
			m[k] = next
		}
		inner, ok := next.(map[string]any)
		if !ok {
			return false
		}
		m = inner
	}
	last := path[len(path)-1]
	if _, there := m[last]; there {
		return false
	}
	m[last] = v
	return true
}
