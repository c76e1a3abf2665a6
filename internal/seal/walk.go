package seal

import (
	"encoding/json"
	"slices"
	"strconv"

	"github.com/ironring/ironring/internal/canon"
)

// leaf is a value that is no object or array, as it stands in a canonical
// document.
type leaf []byte

// text is the value of a string.
func (l leaf) text() (string, bool) {
	if l[0] != '"' {
		return "", false
	}
	return unquote(l), true
}

// sealable reports whether it is a string or a number.
func (l leaf) sealable() bool {
	return l[0] == '"' || l[0] == '-' || '0' <= l[0] && l[0] <= '9'
}

func unquote(raw []byte) string {
	if !slices.Contains(raw, '\\') {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	_ = json.Unmarshal(raw, &s) // it stands in valid JSON
	return s
}

// walkDoc gives every leaf of a document to visit and writes the JSON that it
// returns instead. The result is canonical if what visit returns is; an empty
// document stays empty. visit must not keep the path.
//
// A document is read by every look at a BMC and written by every creation of a
// node, so it is walked as bytes: as it is canonical, nothing else changes.
func walkDoc(doc []byte, visit func(path []string, v leaf) ([]byte, error)) ([]byte, error) {
	if len(doc) == 0 {
		return doc, nil
	}
	c, err := canon.Normalize(doc, 0)
	if err != nil {
		return nil, err
	}
	return walkCanonical(c, visit)
}

// walkCanonical is walkDoc for what package canon gave. It may return the
// document itself.
func walkCanonical(doc []byte, visit func(path []string, v leaf) ([]byte, error)) ([]byte, error) {
	if len(doc) == 0 || string(doc) == "{}" {
		return doc, nil
	}
	w := walker{in: doc, out: make([]byte, 0, len(doc)+len(doc)/2), visit: visit}
	err := w.value(nil)
	return w.out, err
}

// walker copies a canonical document.
type walker struct {
	in    []byte // what is left
	out   []byte
	visit func(path []string, v leaf) ([]byte, error)
}

// copy moves n bytes to the output.
func (w *walker) copy(n int) {
	w.out = append(w.out, w.in[:n]...)
	w.in = w.in[n:]
}

func (w *walker) value(path []string) error {
	switch w.in[0] {
	case '{':
		return w.members('}', path, func(int) string {
			end := endOfString(w.in, 0)
			key := unquote(w.in[:end])
			w.copy(end + 1) // with the colon
			return key
		})
	case '[':
		return w.members(']', path, strconv.Itoa)
	}
	n := 0
	if w.in[0] == '"' {
		n = endOfString(w.in, 0)
	} else {
		for n < len(w.in) && w.in[n] != ',' && w.in[n] != '}' && w.in[n] != ']' {
			n++
		}
	}
	v, err := w.visit(path, leaf(w.in[:n:n]))
	if err != nil {
		return err
	}
	w.out, w.in = append(w.out, v...), w.in[n:]
	return nil
}

// members copies an object or an array up to its end; next reads what stands
// before the n-th value and names it.
func (w *walker) members(end byte, path []string, next func(n int) string) error {
	w.copy(1)
	for n := 0; w.in[0] != end; n++ {
		if w.in[0] == ',' {
			w.copy(1)
		}
		if err := w.value(append(path, next(n))); err != nil {
			return err
		}
	}
	w.copy(1)
	return nil
}
