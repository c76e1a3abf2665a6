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

// SealDoc seals the string values of a JSON document for which secret says so
// by their path (object keys, and indexes of arrays). A value that is sealed
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
		case len(path) == 0 || v == nil || !secret(path):
			return v, nil
		case !isString:
			return nil, errs.New(errs.Invalid, "value %s is a secret and must be a string", dotted(path))
		}
		return k.Seal(aad, []byte(s))
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
