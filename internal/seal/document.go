package seal

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strconv"

	"github.com/ironring/ironring/internal/canon"
	"github.com/ironring/ironring/internal/errs"
)

// Mask is what a masked value reads.
const Mask = "******"

// maxDepth bounds the documents that are walked.
const maxDepth = 25

// number marks the plain text of a sealed value that is a JSON number. No
// secret that is a text begins with it: Seal is given JSON texts of valid
// UTF-8, and this is none.
const number = "\xff#"

// SealDoc seals the strings and numbers of a JSON document for which secret
// says so by their path (object keys, and indexes of arrays); true, false and
// null stay as they are, for they say next to nothing. A value that is sealed
// already is kept when it opens under the same aad, and refused otherwise.
// The result is canonical JSON: sorted keys, no space, numbers as written.
func (k *Keyring) SealDoc(aad string, doc []byte, secret func(path []string) bool) ([]byte, error) {
	return walkDoc(doc, func(path []string, v any) (any, error) {
		s, isString := v.(string)
		switch {
		case isString && IsSealed(s):
			if _, err := k.Open(aad, s); err != nil {
				return nil, errs.New(errs.Invalid, "value %s is sealed but cannot be used here: %w", dotted(path), err)
			}
			return s, nil
		case len(path) == 0 || !secret(path):
			return v, nil
		case isString:
			return k.Seal(aad, []byte(s))
		}
		if n, ok := v.(json.Number); ok {
			return k.Seal(aad, []byte(number+n.String()))
		}
		return v, nil
	})
}

// OpenDoc opens all sealed values of a JSON document.
func (k *Keyring) OpenDoc(aad string, doc []byte) ([]byte, error) {
	return walkDoc(doc, func(_ []string, v any) (any, error) {
		s, ok := v.(string)
		if !ok || !IsSealed(s) {
			return v, nil
		}
		plain, err := k.Open(aad, s)
		if n, ok := bytes.CutPrefix(plain, []byte(number)); ok {
			return json.Number(n), err
		}
		return string(plain), err
	})
}

// MaskDoc replaces all sealed values of a JSON document by Mask. A document
// that cannot be read is masked whole.
//
// Reading a node does this for each of its documents, so it looks at bytes: a
// sealed value has no character that JSON would escape, so that it stands in
// the document as it is, between two quotation marks.
func MaskDoc(doc []byte) []byte {
	const open = `"` + Prefix
	if len(doc) == 0 {
		return doc
	}
	if !json.Valid(doc) {
		return []byte(`"` + Mask + `"`)
	}
	if !bytes.Contains(doc, []byte(open)) {
		return doc
	}
	out := make([]byte, 0, len(doc))
	for {
		i := bytes.Index(doc, []byte(open))
		if i < 0 {
			return append(out, doc...)
		}
		out = append(append(out, doc[:i]...), `"`+Mask+`"`...)
		doc = doc[endOfString(doc, i):]
	}
}

// MaskedPath is the path, with slashes, of a value that was read masked and
// sent back; "" when there is none. Storing it would lose the secret.
func MaskedPath(doc []byte) string {
	if !bytes.Contains(doc, []byte(Mask)) {
		return ""
	}
	var found []string
	_, _ = walkDoc(doc, func(path []string, v any) (any, error) { // what is no JSON holds no path
		if v == Mask {
			found = append(found, dotted(path))
		}
		return v, nil
	})
	slices.Sort(found) // objects have no order
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

// endOfString is the index behind the string that starts at i in a valid
// document.
func endOfString(doc []byte, i int) int {
	for i++; doc[i] != '"'; i++ {
		if doc[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// walkDoc applies leaf to every value of a document that is no object or
// array. Empty documents stay empty.
func walkDoc(doc []byte, leaf func(path []string, v any) (any, error)) ([]byte, error) {
	if len(doc) == 0 {
		return doc, nil
	}
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, errs.New(errs.Invalid, "document is not JSON")
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errs.New(errs.Invalid, "document has text after its end")
	}
	v, err := walk(nil, v, leaf)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, errs.New(errs.Invalid, "document cannot be encoded: %w", err)
	}
	return canon.Normalize(out.Bytes(), 0)
}

func walk(path []string, v any, leaf func([]string, any) (any, error)) (any, error) {
	if len(path) > maxDepth {
		return nil, errs.New(errs.Invalid, "document is nested deeper than %d", maxDepth)
	}
	var err error
	switch v := v.(type) {
	case map[string]any:
		for key, child := range v {
			if v[key], err = walk(append(slices.Clip(path), key), child, leaf); err != nil {
				return nil, err
			}
		}
		return v, nil
	case []any:
		for i, child := range v {
			if v[i], err = walk(append(slices.Clip(path), strconv.Itoa(i)), child, leaf); err != nil {
				return nil, err
			}
		}
		return v, nil
	}
	return leaf(path, v)
}

func dotted(path []string) string {
	if len(path) == 0 {
		return "(the whole document)"
	}
	var b bytes.Buffer
	for i, p := range path {
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(p)
	}
	return b.String()
}
