package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/node"
)

// documents are bytes fields that hold JSON: printed as JSON, not as base64.
var documents = map[protoreflect.Name]bool{
	"driver_info": true, "properties": true, "extra": true, "instance_info": true,
	"args": true, "result": true, "json": true,
}

// toJSON is a message as JSON: names of the protobuf definition, every field
// without presence written out, 64-bit numbers as numbers, documents inline,
// states by the names that tables and --state have (null where there is none).
// protojson can read it back, documents and states excepted.
func toJSON(m proto.Message) (any, error) {
	data, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("print %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	var out map[string]any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&out); err != nil {
		return nil, fmt.Errorf("print %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	humanize(m.ProtoReflect().Descriptor(), out)
	return out, nil
}

// humanize walks decoded protojson beside its descriptor.
func humanize(md protoreflect.MessageDescriptor, obj map[string]any) {
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		value, ok := obj[string(fd.Name())]
		if !ok || value == nil {
			continue
		}
		switch v := value.(type) {
		case []any:
			for i := range v {
				v[i] = humanizeOne(fd, v[i])
			}
		case map[string]any:
			if fd.IsMap() {
				for k := range v {
					v[k] = humanizeOne(fd.MapValue(), v[k])
				}
				continue
			}
			humanize(fd.Message(), v)
		default:
			obj[string(fd.Name())] = humanizeOne(fd, v)
		}
	}
}

func humanizeOne(fd protoreflect.FieldDescriptor, value any) any {
	switch v := value.(type) {
	case map[string]any:
		humanize(fd.Message(), v)
	case string:
		switch fd.Kind() {
		case protoreflect.EnumKind:
			if fd.Enum().FullName() == stateEnum {
				return stateJSON(v)
			}
		case protoreflect.Int64Kind, protoreflect.Uint64Kind:
			return json.Number(v)
		case protoreflect.BytesKind:
			if !documents[fd.Name()] {
				return v
			}
			raw, err := base64.StdEncoding.DecodeString(v)
			switch {
			case err != nil:
				return v
			case len(raw) == 0:
				return map[string]any{}
			case json.Valid(raw):
				return json.RawMessage(raw)
			}
		}
	}
	return value
}

var stateEnum = api.State(0).Descriptor().FullName()

// stateJSON is the name of a state that protojson gave; a number that this
// build does not know stays.
func stateJSON(s string) any {
	n, known := api.State_value[s]
	switch {
	case !known:
		return s
	case api.State(n) == api.State_STATE_UNSPECIFIED:
		return nil
	}
	return node.StateName(api.State(n))
}

// printJSON writes one document.
func (f *Factory) printJSON(m proto.Message) error {
	v, err := toJSON(m)
	if err != nil {
		return err
	}
	return f.encode(v)
}

// encode writes any value as one document.
func (f *Factory) encode(v any) error {
	enc := json.NewEncoder(f.Out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// printJSONLine writes one document on one line.
func (f *Factory) printJSONLine(m proto.Message) error {
	v, err := toJSON(m)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(f.Out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// print writes a message as JSON, or what table does when tables are wanted.
func (f *Factory) print(m proto.Message, table func() error) error {
	if f.json() {
		return f.printJSON(m)
	}
	return table()
}

// cell is one field of a table, with an ANSI color or "".
type cell struct{ text, color string }

const (
	red    = "31"
	green  = "32"
	yellow = "33"
)

// table aligns columns; colors do not count for the widths.
type table struct {
	rows [][]cell
}

func newTable(header ...string) *table {
	t := &table{}
	t.add(anys(header)...)
	return t
}

func anys(s []string) []any {
	out := make([]any, len(s))
	for i := range s {
		out[i] = s[i]
	}
	return out
}

// add appends a row of cells, strings and whatever prints well.
func (t *table) add(values ...any) {
	row := make([]cell, len(values))
	for i, v := range values {
		switch v := v.(type) {
		case cell:
			row[i] = v
		default:
			row[i].text = fmt.Sprint(v)
		}
		if row[i].text == "" {
			row[i].text = "-"
		}
		row[i].text = oneLine(row[i].text)
	}
	t.rows = append(t.rows, row)
}

// oneLine keeps control characters that a machine or an error text brought
// away from the terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// printTable writes a table with two spaces between columns.
func (f *Factory) printTable(t *table) error { return t.write(f.Out, f.color(f.Out)) }

func (t *table) write(w io.Writer, color bool) error {
	var widths []int
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	var b strings.Builder
	for _, row := range t.rows {
		for i, c := range row {
			text := c.text
			if color && c.color != "" {
				text = "\x1b[" + c.color + "m" + text + "\x1b[0m"
			}
			b.WriteString(text)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// bytesText is a size as a person reads it.
func bytesText(n float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if n < 1024 {
			if unit == "B" {
				return strconv.Itoa(int(n)) + " B"
			}
			return fmt.Sprintf("%.1f %s", n, unit)
		}
		n /= 1024
	}
	return fmt.Sprintf("%.1f TiB", n)
}
