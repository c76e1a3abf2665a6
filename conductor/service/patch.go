package service

import (
	"bytes"
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/bmc"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal"
	"github.com/ironring/ironring/node"
)

// Bounds of one change: each key costs reading and writing its document.
const (
	maxPatchKeys = 1000
	maxPatchKey  = 1024 // bytes
)

// checkPatch refuses what would take long before it is refused as too large.
func checkPatch(set map[string]string, unset []string) error {
	if n := len(set) + len(unset); n > maxPatchKeys {
		return errs.About(errs.Invalid, "set", "%d keys in one change, at most %d: set the whole document", n, maxPatchKeys)
	}
	for _, keys := range []iter.Seq[string]{maps.Keys(set), slices.Values(unset)} {
		for key := range keys {
			if len(key) > maxPatchKey {
				return errs.About(errs.Invalid, "set", "a key has %d bytes, at most %d", len(key), maxPatchKey)
			}
			if len(set[key]) > node.MaxDocument {
				return errs.About(errs.Invalid, key, "%s has %d bytes, at most %d", key, len(set[key]), node.MaxDocument)
			}
		}
	}
	return nil
}

// patched applies set and unset to a copy of a node and names the fields that
// they touch. Keys are spec fields ("name") or paths into documents
// ("properties/root_device/serial"); values are JSON.
func patched(n *api.Node, set map[string]string, unset []string) (*api.Node, []string, error) {
	if err := checkPatch(set, unset); err != nil {
		return nil, nil, err
	}
	out := proto.CloneOf(n)
	fields := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		field, path, inside := strings.Cut(key, "/")
		fields[field] = true
		if err := setOne(out, field, path, inside, set[key]); err != nil {
			return nil, nil, err
		}
	}
	for _, key := range unset {
		field, path, inside := strings.Cut(key, "/")
		fields[field] = true
		if inside {
			if err := editDoc(out, field, path, false, func(m map[string]any, last string) { delete(m, last) }); err != nil {
				return nil, nil, err
			}
			continue
		}
		if err := node.Apply(out, []string{field}, &api.Node{}); err != nil {
			return nil, nil, err
		}
	}
	names := slices.Sorted(maps.Keys(fields))
	return out, names, node.CheckFields(names, node.SpecFields)
}

func setOne(n *api.Node, field, path string, inside bool, value string) error {
	if inside {
		v, err := decode(value)
		if err != nil {
			return errs.About(errs.Invalid, field, "%s/%s: the value is not JSON: %w", field, path, err)
		}
		return editDoc(n, field, path, true, func(m map[string]any, last string) { m[last] = v })
	}
	if doc := node.DocumentOf(n, field); doc != nil {
		*doc = []byte(value)
		return nil
	}
	// Scalars go through the record's own JSON mapping, which checks types.
	tmp := new(api.Node)
	key, _ := json.Marshal(field)
	if err := protojson.Unmarshal([]byte("{"+string(key)+":"+value+"}"), tmp); err != nil {
		return errs.About(errs.Invalid, field, "%s: no such field, or not a value for it", field) // the value may be a secret under a misspelt key
	}
	return node.Apply(n, []string{field}, tmp)
}

// editDoc changes one value inside a document. Where an object on the way is
// missing it is made, or without grow nothing is changed.
func editDoc(n *api.Node, field, path string, grow bool, edit func(m map[string]any, last string)) error {
	doc := node.DocumentOf(n, field)
	if doc == nil {
		return errs.About(errs.Invalid, field, "%s is not a document: there is nothing inside to set", field)
	}
	root := map[string]any{}
	if b := *doc; len(b) > 0 {
		v, err := decode(string(b))
		if err != nil {
			return err
		}
		if m, ok := v.(map[string]any); ok {
			root = m
		}
	}
	parts := strings.Split(path, "/")
	if slices.Contains(parts, "") {
		return errs.About(errs.Invalid, field, "%s/%s: a key is empty", field, path)
	}
	m := root
	for _, p := range parts[:len(parts)-1] {
		next, ok := m[p].(map[string]any)
		if !ok {
			if m[p] != nil {
				return errs.About(errs.Invalid, field, "%s/%s: %q is not an object", field, path, p)
			}
			if !grow {
				return nil
			}
			next = map[string]any{}
			m[p] = next
		}
		m = next
	}
	edit(m, parts[len(parts)-1])
	b, err := json.Marshal(root)
	if len(b) > node.MaxDocument {
		return errs.About(errs.Invalid, field, "%s has %d bytes, at most %d", field, len(b), node.MaxDocument)
	}
	*doc = b
	return err
}

// decode reads one JSON value and keeps numbers as they are written.
func decode(s string) (any, error) {
	dec := json.NewDecoder(strings.NewReader(s))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if dec.More() {
		return nil, errs.New(errs.Invalid, "more than one value")
	}
	return v, nil
}

func touches(fields []string, names ...string) bool {
	return slices.ContainsFunc(fields, func(f string) bool { return slices.Contains(names, f) })
}

// onlyFields is a node with nothing but the named fields.
func onlyFields(n *api.Node, fields []string) *api.Node {
	out := &api.Node{Id: n.GetId()}
	_ = node.Apply(out, fields, n) // the names were checked
	return out
}

// openInfo is driver_info in clear; it must not outlive the request.
func (s *Service) openInfo(d drivers.Driver, n *api.Node) (drivers.Info, error) {
	doc := n.GetDriverInfo()
	if bytes.Contains(doc, []byte(seal.Prefix)) {
		var err error
		if doc, err = s.cfg.Cluster.Keyring().OpenDoc(bmc.AAD(n.GetId()), doc); err != nil {
			return nil, errs.About(errs.Invalid, "driver_info", "driver_info: %w", err)
		}
	}
	info := drivers.Info{}
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	if err := dec.Decode(&info); err != nil {
		return nil, errs.About(errs.Invalid, "driver_info", "driver_info is not a JSON object")
	}
	for _, f := range d.Fields() {
		// A number would lose what makes 0123 another password than 123.
		if _, number := info[f.Name].(json.Number); number && f.Secret {
			return nil, errs.About(errs.Invalid, f.Name, "driver_info/%s is a secret and must be a string", f.Name)
		}
	}
	return info, nil
}

// sealDocs seals the secrets in the named documents of a node, which must be
// canonical: what looks like one, and in driver_info what the driver calls one.
// d may be nil when driver_info is not among them.
func (s *Service) sealDocs(n *api.Node, d drivers.Driver, fields []string) error {
	for _, doc := range node.Documents {
		if !slices.Contains(fields, doc.Field) {
			continue
		}
		if path := seal.MaskedPath(*doc.Of(n)); path != "" {
			return errs.About(errs.Invalid, doc.Field, "%s/%s is %s, as it is shown: give the secret itself, or change only the other keys", doc.Field, path, seal.Mask)
		}
		secret := seal.SecretPath
		if doc.Field == "driver_info" {
			secret = secretOf(d)
		}
		sealed, err := s.cfg.Cluster.Keyring().SealCanonical(seal.NodeAAD(n.GetId(), doc.Field), *doc.Of(n), secret)
		if err != nil {
			return errs.About(errs.KindOf(err), doc.Field, "%s: %w", doc.Field, err)
		}
		*doc.Of(n) = sealed
	}
	return nil
}

// secretOf says which values of driver_info are secrets for a driver.
func secretOf(d drivers.Driver) func(path []string) bool {
	secret := map[string]bool{}
	for _, f := range d.Fields() {
		secret[f.Name] = f.Secret
	}
	return func(path []string) bool {
		return slices.ContainsFunc(path, func(k string) bool { return secret[k] || seal.LooksSecret(k) })
	}
}
