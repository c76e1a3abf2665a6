package seal

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/ironring/ironring/internal/canon"
	"github.com/ironring/ironring/internal/errs"
)

// Mask is what a masked value reads.
const Mask = "******"

// number marks the plain text of a sealed value that is a JSON number. No
// secret that is a text begins with it: Seal is given JSON texts of valid
// UTF-8, and this is none.
const number = "\xff#"

// SealDoc seals the strings and numbers of a JSON document for which secret
// says so by their path (object keys, and indexes of arrays); true, false and
// null stay as they are, for they say next to nothing. A value that is sealed
// already is kept when it opens under the same aad, and refused otherwise.
// The result is canonical JSON: sorted keys, no space, numbers as written.
//
// secret must not keep the path.
func (k *Keyring) SealDoc(aad string, doc []byte, secret func(path []string) bool) ([]byte, error) {
	return walkDoc(doc, k.sealer(aad, secret))
}

// SealCanonical is SealDoc for a document that package canon gave: it is not
// checked again.
func (k *Keyring) SealCanonical(aad string, doc []byte, secret func(path []string) bool) ([]byte, error) {
	return walkCanonical(doc, k.sealer(aad, secret))
}

func (k *Keyring) sealer(aad string, secret func(path []string) bool) func(path []string, v leaf) ([]byte, error) {
	return func(path []string, v leaf) ([]byte, error) {
		if s, ok := v.text(); ok && IsSealed(s) {
			if _, err := k.Open(aad, s); err != nil {
				return nil, errs.New(errs.Invalid, "value %s is sealed but cannot be used here: %w", dotted(path), err)
			}
			return v, nil
		}
		if len(path) == 0 || !v.sealable() || !secret(path) {
			return v, nil
		}
		plain := number + string(v)
		if s, ok := v.text(); ok {
			plain = s
		}
		sealed, err := k.Seal(aad, []byte(plain))
		return canon.AppendString(nil, sealed), err
	}
}

// OpenDoc opens all sealed values of a JSON document.
func (k *Keyring) OpenDoc(aad string, doc []byte) ([]byte, error) {
	return walkDoc(doc, func(_ []string, v leaf) ([]byte, error) {
		s, ok := v.text()
		if !ok || !IsSealed(s) {
			return v, nil
		}
		plain, err := k.Open(aad, s)
		if err != nil {
			return nil, err
		}
		if n, ok := bytes.CutPrefix(plain, []byte(number)); ok {
			return n, nil
		}
		return canon.AppendString(nil, string(plain)), nil
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

// SecretIn is the path, with slashes, of a value of a JSON document that is a
// secret by SecretPath and would be sealed; "" when there is none.
func SecretIn(doc []byte) string {
	return firstPath(doc, func(path []string, v leaf) bool { return v.sealable() && SecretPath(path) })
}

// MaskedPath is the path, with slashes, of a value that was read masked and
// sent back; "" when there is none. Storing it would lose the secret.
func MaskedPath(doc []byte) string {
	if !bytes.Contains(doc, []byte(Mask)) {
		return ""
	}
	return firstPath(doc, func(_ []string, v leaf) bool {
		s, ok := v.text()
		return ok && s == Mask
	})
}

// firstPath is the path, with slashes, of a value that is meant; "" when there
// is none.
func firstPath(doc []byte, meant func(path []string, v leaf) bool) string {
	var found []string
	_, _ = walkDoc(doc, func(path []string, v leaf) ([]byte, error) { // what is no JSON holds no path
		if meant(path, v) {
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
