// Package canon writes JSON in one canonical form, so that equal documents
// are equal bytes: in commands, digests, comparisons and sealed values.
//
// The form: object keys sorted by their bytes, no insignificant space,
// numbers exactly as they were written, strings with the fewest escapes.
// Documents that two readers could understand differently are refused:
// duplicate keys, invalid UTF-8, lone surrogates. Nesting is at most MaxDepth.
//
// Invariants: Normalize is idempotent; what it returns is valid JSON that
// decodes to the same value as its input. All functions are pure and may be
// called concurrently. Start at Normalize.
package canon

import (
	"bytes"
	"encoding/json"
	"errors"
	"sort"
	"unicode/utf8"

	"github.com/ironring/ironring/internal/errs"
)

// MaxDepth is how deep arrays and objects may be nested.
const MaxDepth = 25

// JSON is the canonical form of a Go value, encoded as encoding/json does.
func JSON(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, errs.New(errs.Invalid, "encode json: %w", err)
	}
	return Normalize(buf.Bytes(), 0)
}

// Normalize is the canonical form of a JSON document of any type. A document
// of more than limit bytes, before or after, is refused; limit 0 means no
// limit. The result never shares memory with doc.
func Normalize(doc []byte, limit int) ([]byte, error) {
	if limit > 0 && len(doc) > limit {
		return nil, tooBig(len(doc), limit)
	}
	if !utf8.Valid(doc) {
		return nil, errs.New(errs.Invalid, "json document is not valid UTF-8")
	}
	if err := checkDepth(doc); err != nil {
		return nil, err
	}
	if !json.Valid(doc) {
		return nil, syntaxError(doc)
	}
	w := walker{in: doc, out: make([]byte, 0, len(doc))}
	if err := w.value(); err != nil {
		return nil, err
	}
	if limit > 0 && len(w.out) > limit {
		return nil, tooBig(len(w.out), limit)
	}
	return w.out, nil
}

// Object is Normalize for a document that must be an object. An empty
// document is the empty object, whose canonical form is "{}".
func Object(doc []byte, limit int) ([]byte, error) {
	if t := bytes.TrimSpace(doc); len(t) == 0 || len(t) == len(doc) && string(doc) == "{}" {
		return []byte("{}"), nil
	}
	out, err := Normalize(doc, limit)
	if err != nil {
		return nil, err
	}
	if out[0] != '{' {
		return nil, errs.New(errs.Invalid, "json document must be an object, not %s", typeName(out[0]))
	}
	return out, nil
}

func tooBig(size, limit int) error {
	return errs.New(errs.Invalid, "json document has %d bytes, at most %d are allowed", size, limit)
}

// checkDepth bounds the nesting before anything recurses into the document.
// It is exact for valid JSON; json.Valid is asked afterwards.
func checkDepth(doc []byte) error {
	depth, inString := 0, false
	for i := 0; i < len(doc); i++ {
		switch c := doc[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > MaxDepth {
				return errs.New(errs.Invalid, "json document is nested deeper than %d", MaxDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return nil
}

func syntaxError(doc []byte) error {
	var v any
	err := json.Unmarshal(doc, &v)
	var se *json.SyntaxError
	if errors.As(err, &se) {
		return errs.New(errs.Invalid, "json document is malformed at byte %d: %v", se.Offset, se)
	}
	return errs.New(errs.Invalid, "json document is malformed: %v", err)
}

func typeName(first byte) string {
	switch first {
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}

// walker copies a valid document to its canonical form.
type walker struct {
	in  []byte
	pos int
	out []byte
}

func (w *walker) space() {
	for w.pos < len(w.in) {
		switch w.in[w.pos] {
		case ' ', '\t', '\n', '\r':
			w.pos++
		default:
			return
		}
	}
}

func (w *walker) value() error {
	w.space()
	switch w.in[w.pos] {
	case '{':
		return w.object()
	case '[':
		return w.array()
	case '"':
		s, err := w.str()
		if err != nil {
			return err
		}
		w.out = appendString(w.out, s)
		return nil
	}
	start := w.pos
	for w.pos < len(w.in) && !bytes.ContainsRune([]byte(",]} \t\n\r"), rune(w.in[w.pos])) {
		w.pos++
	}
	w.out = append(w.out, w.in[start:w.pos]...)
	return nil
}

func (w *walker) array() error {
	w.pos++
	w.out = append(w.out, '[')
	for n := 0; ; n++ {
		w.space()
		switch w.in[w.pos] {
		case ']':
			w.pos++
			w.out = append(w.out, ']')
			return nil
		case ',':
			w.pos++
		}
		if n > 0 {
			w.out = append(w.out, ',')
		}
		if err := w.value(); err != nil {
			return err
		}
	}
}

type member struct {
	key   string
	value []byte
}

func (w *walker) object() error {
	w.pos++
	var members []member
	outer := w.out
	for {
		w.space()
		if w.in[w.pos] == '}' {
			w.pos++
			break
		}
		if w.in[w.pos] == ',' {
			w.pos++
			w.space()
		}
		key, err := w.str()
		if err != nil {
			return err
		}
		w.space()
		w.pos++ // the colon
		w.out = nil
		if err := w.value(); err != nil {
			return err
		}
		members = append(members, member{key, w.out})
	}
	sort.Slice(members, func(i, j int) bool { return members[i].key < members[j].key })
	w.out = append(outer, '{')
	for i, m := range members {
		if i > 0 {
			if m.key == members[i-1].key {
				return errs.New(errs.Invalid, "json document has the key %q twice in one object", m.key)
			}
			w.out = append(w.out, ',')
		}
		w.out = appendString(w.out, m.key)
		w.out = append(w.out, ':')
		w.out = append(w.out, m.value...)
	}
	w.out = append(w.out, '}')
	return nil
}

// str reads the string at pos and decodes it.
func (w *walker) str() (string, error) {
	start := w.pos
	escaped := false
	for w.pos++; w.in[w.pos] != '"'; w.pos++ {
		if w.in[w.pos] == '\\' {
			escaped = true
			w.pos++
		}
	}
	w.pos++
	raw := w.in[start:w.pos]
	if !escaped {
		return string(raw[1 : len(raw)-1]), nil
	}
	if loneSurrogate(raw) {
		return "", errs.New(errs.Invalid, "json document has half a surrogate pair in a string")
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", errs.New(errs.Invalid, "json document has a malformed string: %v", err)
	}
	return s, nil
}

// loneSurrogate reports whether the encoded string holds a \uD800..\uDFFF that
// is not half of a pair; a decoder would silently replace it.
func loneSurrogate(raw []byte) bool {
	for i := 0; i+1 < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		if raw[i+1] != 'u' {
			i++
			continue
		}
		switch u := hex4(raw[i+2:]); {
		case u >= 0xDC00 && u < 0xE000:
			return true
		case u >= 0xD800 && u < 0xDC00:
			rest := raw[i+6:]
			if len(rest) < 6 || rest[0] != '\\' || rest[1] != 'u' {
				return true
			}
			if low := hex4(rest[2:]); low < 0xDC00 || low >= 0xE000 {
				return true
			}
			i += 6
		}
		i += 5
	}
	return false
}

// hex4 reads four hex digits; the document is valid, so they are there.
func hex4(b []byte) (u uint32) {
	for _, c := range b[:4] {
		u <<= 4
		switch {
		case c >= 'a':
			u |= uint32(c-'a') + 10
		case c >= 'A':
			u |= uint32(c-'A') + 10
		default:
			u |= uint32(c - '0')
		}
	}
	return u
}

const hexDigits = "0123456789abcdef"

// AppendString appends a text of valid UTF-8 as a string in canonical form.
func AppendString(out []byte, s string) []byte { return appendString(out, s) }

// appendString encodes with the fewest escapes: quote, backslash, controls.
func appendString(out []byte, s string) []byte {
	out = append(out, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c == '\b':
			out = append(out, '\\', 'b')
		case c == '\f':
			out = append(out, '\\', 'f')
		case c == '\n':
			out = append(out, '\\', 'n')
		case c == '\r':
			out = append(out, '\\', 'r')
		case c == '\t':
			out = append(out, '\\', 't')
		case c < 0x20:
			out = append(out, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			out = append(out, c)
		}
	}
	return append(out, '"')
}
