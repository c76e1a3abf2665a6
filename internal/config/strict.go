package config

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/yamlbound"
)

// maxSize bounds the file; a real one has a few kilobytes.
const maxSize = 1 << 20

// decode reads exactly one YAML document into cfg and refuses keys that cfg
// does not have.
func decode(data []byte, cfg *Config) error {
	if len(data) > maxSize {
		return errs.New(errs.Invalid, "file has %d bytes, more than %d", len(data), maxSize)
	}
	file, err := yamlbound.Parse(data)
	if err != nil {
		return yamlError(err)
	}
	docs := 0
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType {
			continue
		}
		if docs++; docs > 1 {
			return errs.New(errs.Invalid, "more than one YAML document")
		}
		if err := checkKeys(doc.Body, reflect.TypeFor[Config](), ""); err != nil {
			return err
		}
	}
	// Strict is the net below checkKeys: merge keys and aliases.
	err = yaml.NewDecoder(strings.NewReader(string(data)), yaml.Strict()).Decode(cfg)
	if err != nil && !errors.Is(err, io.EOF) {
		return yamlError(err)
	}
	return nil
}

// yamlError makes one line of an error of the YAML library: its own texts
// quote the source over several lines.
func yamlError(err error) error {
	var at yaml.Error
	if !errors.As(err, &at) {
		return errs.New(errs.Invalid, "%s", strings.ReplaceAll(err.Error(), "\n", " "))
	}
	msg := at.GetMessage()
	// Go type names mean nothing to the person who wrote the file.
	if before, _, ok := strings.Cut(msg, " into Go struct field "); ok {
		msg = before + " here"
	}
	if tk := at.GetToken(); tk != nil && tk.Position != nil {
		return errs.New(errs.Invalid, "line %d: %s: %q", tk.Position.Line, msg, tk.Value)
	}
	return errs.New(errs.Invalid, "%s", msg)
}

// checkKeys walks a mapping beside the struct it will be decoded into. All
// unknown keys are reported at once.
func checkKeys(n ast.Node, t reflect.Type, path string) error {
	if t.Kind() != reflect.Struct {
		return nil
	}
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	case *ast.NullNode, *ast.AliasNode, *ast.AnchorNode:
		return nil // left to the decoder
	default:
		where := "the file"
		if path != "" {
			where = strings.TrimSuffix(path, ".")
		}
		return errs.About(errs.Invalid, where, "line %d: %s must hold keys, not %q", line(n), where, brief(n))
	}
	fields := fieldsOf(t)
	var all []error
	for _, v := range values {
		key := strings.Trim(v.Key.String(), `"' `)
		if key == "<<" {
			continue
		}
		field, ok := fields[key]
		if !ok {
			all = append(all, errs.About(errs.Invalid, path+key, "line %d: unknown key %q%s", line(v.Key), path+key, suggest(key, path)))
			continue
		}
		if field == reflect.TypeFor[time.Duration]() {
			// The library takes a bare number for nanoseconds, which nobody means.
			if scalar, ok := v.Value.(ast.ScalarNode); ok {
				if text := fmt.Sprint(scalar.GetValue()); !isDuration(text) {
					all = append(all, errs.About(errs.Invalid, path+key, "line %d: %s: %q is not a duration such as 500ms", line(v.Key), path+key, text))
				}
			}
			continue
		}
		if err := checkKeys(v.Value, field, path+key+"."); err != nil {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

func isDuration(s string) bool {
	_, err := time.ParseDuration(s)
	return err == nil
}

func line(n ast.Node) int {
	if tk := n.GetToken(); tk != nil && tk.Position != nil {
		return tk.Position.Line
	}
	return 0
}

func brief(n ast.Node) string {
	s := strings.TrimSpace(n.String())
	if len(s) > 40 {
		s = s[:40] + "..."
	}
	return s
}

// fieldsOf maps the YAML keys of a struct to the types of their values.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := make(map[string]reflect.Type, t.NumField())
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("yaml"); key != "" {
			fields[key] = t.Field(i).Type
		}
	}
	return fields
}

// Keys lists every key of the configuration, with dots, in the order of the
// structs; sections themselves are left out.
func Keys() []string { return keysOf(reflect.TypeFor[Config](), "") }

func keysOf(t reflect.Type, path string) []string {
	var keys []string
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		key := path + f.Tag.Get("yaml")
		if f.Type.Kind() == reflect.Struct {
			keys = append(keys, keysOf(f.Type, key+".")...)
			continue
		}
		keys = append(keys, key)
	}
	return keys
}

// suggest finds the key that was probably meant: the fewest differing
// letters, and among equals one of the same section.
func suggest(key, path string) string {
	best, least := "", 2*(len(key)/3+2)
	for _, k := range append(Keys(), sections()...) {
		cut := strings.LastIndexByte(k, '.') + 1
		d := 2 * distance(key, k[cut:])
		if k[:cut] != path {
			d++
		}
		if d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return fmt.Sprintf(" (known here: %s)", strings.Join(known(path), ", "))
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

func sections() []string {
	var out []string
	for k, t := range fieldsOf(reflect.TypeFor[Config]()) {
		if t.Kind() == reflect.Struct {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// known lists the keys of one section.
func known(path string) []string {
	t := reflect.TypeFor[Config]()
	if path != "" {
		t = fieldsOf(t)[strings.TrimSuffix(path, ".")]
	}
	var out []string
	for k := range fieldsOf(t) {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// distance is the Levenshtein distance of two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
