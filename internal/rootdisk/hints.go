package rootdisk

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/canon"
	"github.com/ironring/ironring/internal/errs"
)

// Hints say which disk is meant: a JSON object whose keys are attributes of a
// disk and whose values are expressions. A disk fits when all of them hold.
//
//	{"serial": "S3Z1", "size": ">= 100", "rotational": false}
//
// An expression is a value, or an operator and values. Letter case and
// surrounding space do not matter; values may hold spaces.
//
//	value                equality
//	s== s!= s< s<= s> s>=  V    comparison of text
//	<in> V               V is a part of the attribute
//	<or> V <or> W        the attribute is one of the values
//	<all-in> V W         all values are parts of the attribute
//	= V, >= V            at least (numbers; "=" means ">=", as it does in Ironic)
//	== != <= > <  V      comparison of numbers
//
// "size" is a number, in whole GiB; equality holds for a disk of V GiB and a
// fraction. "rotational" is a boolean. All other keys are text. An attribute
// that a disk does not have fits no expression.
type Hints struct {
	terms []term
}

type term struct {
	key    string
	op     string
	values []string
	number float64 // of values[0], for numeric keys
	truth  bool    // for boolean keys
}

// maxHints bounds the document; hints come from users.
const maxHints = 16 << 10

var textKeys = map[string]func(agentproto.Disk) string{
	"model":                func(d agentproto.Disk) string { return d.Model },
	"wwn":                  func(d agentproto.Disk) string { return d.WWN },
	"serial":               func(d agentproto.Disk) string { return d.Serial },
	"vendor":               func(d agentproto.Disk) string { return d.Vendor },
	"wwn_with_extension":   func(d agentproto.Disk) string { return d.WWNExt },
	"wwn_vendor_extension": func(d agentproto.Disk) string { return d.WWNVendor },
	"name":                 func(d agentproto.Disk) string { return d.Name },
	"hctl":                 func(d agentproto.Disk) string { return d.HCTL },
	"by_path":              func(d agentproto.Disk) string { return d.ByPath },
	"tran":                 func(d agentproto.Disk) string { return d.Tran },
}

const knownKeys = "by_path, hctl, model, name, rotational, serial, size, tran, vendor, wwn, wwn_vendor_extension, wwn_with_extension"

// operators, longest first where one begins another.
var operators = []string{
	"<all-in>", "<in>", "<or>", "s==", "s!=", "s<=", "s>=", "s<", "s>",
	"==", "!=", "<=", ">=", "=", "<", ">",
}

// ParseHints reads hints. An empty document, null and {} are no hints. The
// error has kind Invalid and names the key at fault.
func ParseHints(doc []byte) (Hints, error) {
	if t := bytes.TrimSpace(doc); len(t) == 0 || string(t) == "null" {
		return Hints{}, nil
	}
	obj, err := canon.Object(doc, maxHints)
	if err != nil {
		return Hints{}, errs.New(errs.Invalid, "root device hints: %w", err)
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(obj, &raw); err != nil {
		return Hints{}, errs.New(errs.Invalid, "root device hints: %w", err)
	}
	var h Hints
	for key, value := range raw {
		t, err := parseTerm(key, value)
		if err != nil {
			return Hints{}, errs.About(errs.Invalid, key, "root device hint %q: %w", errs.Clip(key), err)
		}
		h.terms = append(h.terms, t)
	}
	slices.SortFunc(h.terms, func(a, b term) int { return strings.Compare(a.key, b.key) })
	return h, nil
}

// None reports whether there are no hints.
func (h Hints) None() bool { return len(h.terms) == 0 }

// Fits reports whether all hints hold for a disk.
func (h Hints) Fits(d agentproto.Disk) bool {
	for _, t := range h.terms {
		if !t.fits(d) {
			return false
		}
	}
	return true
}

func parseTerm(key string, value json.RawMessage) (term, error) {
	var v any
	dec := json.NewDecoder(bytes.NewReader(value))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return term{}, err
	}
	switch {
	case key == "size":
		return parseNumber(key, v)
	case key == "rotational":
		return parseBool(key, v)
	case textKeys[key] == nil:
		return term{}, errs.New(errs.Invalid, "there is no such hint; the hints are %s", knownKeys)
	}
	s, ok := v.(string)
	if !ok {
		return term{}, errs.New(errs.Invalid, "the value must be a string")
	}
	t, err := parseExpression(key, s)
	if err == nil && numeric(t.op) {
		err = errs.New(errs.Invalid, "operator %q compares numbers; use s== s!= s< s<= s> s>= <in> <or> <all-in>", t.op)
	}
	return t, err
}

func numeric(op string) bool {
	return op != "" && strings.Trim(op, "=!<>") == ""
}

func parseExpression(key, s string) (term, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	t := term{key: key}
	for _, op := range operators {
		if strings.HasPrefix(s, op) {
			t.op = op
			break
		}
	}
	switch t.op {
	case "":
		t.values = []string{s}
	case "<or>":
		t.values = strings.Split(s[len(t.op):], t.op)
	case "<all-in>":
		t.values = strings.Fields(strings.ReplaceAll(s, t.op, " "))
	default:
		t.values = []string{s[len(t.op):]}
	}
	for i, v := range t.values {
		v = strings.TrimSpace(v)
		if v == "" {
			return term{}, errs.New(errs.Invalid, "the value is empty")
		}
		if strings.HasPrefix(v, "<in>") || strings.HasPrefix(v, "<or>") || strings.HasPrefix(v, "<all-in>") {
			return term{}, errs.New(errs.Invalid, "one expression has one operator")
		}
		t.values[i] = v
	}
	if len(t.values) == 0 {
		return term{}, errs.New(errs.Invalid, "the value is empty")
	}
	return t, nil
}

func parseNumber(key string, v any) (term, error) {
	s, ok := v.(string)
	if n, isNumber := v.(json.Number); isNumber {
		s, ok = n.String(), true
	}
	if !ok {
		return term{}, errs.New(errs.Invalid, "the value must be a number of GiB, or an operator and a number")
	}
	t, err := parseExpression(key, s)
	if err != nil {
		return term{}, err
	}
	if t.op != "" && t.op != "<or>" && !numeric(t.op) {
		return term{}, errs.New(errs.Invalid, "operator %q compares text; use = == != >= <= > < <or>", t.op)
	}
	for _, v := range t.values {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil || n == 0 {
			return term{}, errs.New(errs.Invalid, "%q is not a whole number of GiB above 0", errs.Clip(v))
		}
		t.number = float64(n)
	}
	return t, nil
}

func parseBool(key string, v any) (term, error) {
	s := ""
	switch v := v.(type) {
	case bool:
		return term{key: key, truth: v}, nil
	case json.Number:
		s = v.String()
	case string:
		s = strings.ToLower(strings.TrimSpace(v))
	}
	switch s {
	case "1", "t", "true", "on", "y", "yes":
		return term{key: key, truth: true}, nil
	case "0", "f", "false", "off", "n", "no":
		return term{key: key, truth: false}, nil
	}
	return term{}, errs.New(errs.Invalid, "the value must be true or false")
}

func (t term) fits(d agentproto.Disk) bool {
	switch t.key {
	case "size":
		return t.fitsSize(d.SizeBytes)
	case "rotational":
		return t.truth == d.Rotational
	}
	return t.fitsText(strings.ToLower(strings.TrimSpace(textKeys[t.key](d))))
}

func (t term) fitsSize(size uint64) bool {
	gib := float64(size) / (1 << 30)
	whole := strconv.FormatUint(size>>30, 10)
	switch t.op {
	case "", "==":
		return float64(size>>30) == t.number
	case "!=":
		return float64(size>>30) != t.number
	case "<or>":
		return slices.ContainsFunc(t.values, func(v string) bool { return strings.TrimLeft(v, "0") == whole })
	case "=", ">=":
		return gib >= t.number
	case "<=":
		return gib <= t.number
	case ">":
		return gib > t.number
	default: // "<"
		return gib < t.number
	}
}

func (t term) fitsText(s string) bool {
	if s == "" {
		return false
	}
	v := t.values[0]
	switch t.op {
	case "", "s==":
		return s == v
	case "s!=":
		return s != v
	case "s<":
		return s < v
	case "s<=":
		return s <= v
	case "s>":
		return s > v
	case "s>=":
		return s >= v
	case "<in>":
		return strings.Contains(s, v)
	case "<or>":
		return slices.Contains(t.values, s)
	default: // "<all-in>"
		return !slices.ContainsFunc(t.values, func(v string) bool { return !strings.Contains(s, v) })
	}
}
