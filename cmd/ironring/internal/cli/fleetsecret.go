package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal"
)

// reference is where a secret of a fleet file is kept.
type reference struct{ Env, File string }

func (r reference) String() string {
	if r.Env != "" {
		return "from the environment variable " + r.Env
	}
	return "from the file " + r.File
}

// MarshalJSON writes it as files have it.
func (r reference) MarshalJSON() ([]byte, error) {
	if r.Env != "" {
		return json.Marshal(map[string]string{"env": r.Env})
	}
	return json.Marshal(map[string]string{"file": r.File})
}

// read gets the secret. A relative path is one beside the fleet file, which
// lies in dir.
func (r reference) read(f *Factory, dir string) (string, error) {
	if r.Env != "" {
		if v := f.Getenv(r.Env); v != "" {
			return v, nil
		}
		return "", errs.New(errs.Invalid, "the environment variable %s is not set", r.Env)
	}
	path := r.File
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	file, err := os.Open(path)
	if err != nil {
		return "", errs.New(errs.Invalid, "%w", err)
	}
	defer file.Close()
	return readValue(file, path)
}

// secrets reads the references of an entry.
func (e *entry) secrets(f *Factory) func(reference) (string, error) {
	return func(r reference) (string, error) { return r.read(f, e.dir) }
}

// unresolved notes every reference in a tree whose secret cannot be read.
func (e *entry) unresolved(f *Factory, at string, v any, p *problems) {
	switch v := v.(type) {
	case reference:
		if _, err := v.read(f, e.dir); err != nil {
			p.add(e.at(at), "%s of %s: %v", at, e.label(), err)
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			e.unresolved(f, at+"/"+k, v[k], p)
		}
	case []any:
		for i := range v {
			e.unresolved(f, at+"/"+strconv.Itoa(i), v[i], p)
		}
	}
}

// secretAt reports whether a text at a place of a document is a secret.
func secretAt(field string, path []string) bool {
	return len(path) > 0 && (seal.SecretPath(path) || field == "driver_info" && driverSecret(path[0]))
}

// references replaces {env: NAME} and {file: PATH} where secrets stand, and
// refuses secrets in clear: the file would be one itself.
func (e *entry) references(path []string, v any, field string, p *problems) any {
	at := strings.Join(append([]string{field}, path...), "/")
	secret := secretAt(field, path)
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := asReference(v); ok && secret {
			return ref
		}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			v[k] = e.references(append(slices.Clip(path), k), v[k], field, p)
		}
	case []any:
		for i := range v {
			v[i] = e.references(append(slices.Clip(path), fmt.Sprint(i)), v[i], field, p)
		}
	case string, json.Number:
		if secret {
			p.add(e.at(at), "%s is a secret, which must not stand in the file: give {env: NAME} or {file: PATH}, or leave the key out to keep what is stored", at)
		} else if v == seal.Mask {
			p.add(e.at(at), "%s is %s, which is shown in the place of a secret: leave the key out to keep what is stored", at, seal.Mask)
		}
	}
	return v
}

// asReference reads {env: NAME} and {file: PATH}.
func asReference(m map[string]any) (reference, bool) {
	if len(m) != 1 {
		return reference{}, false
	}
	env, _ := m["env"].(string)
	file, _ := m["file"].(string)
	return reference{env, file}, env != "" || file != ""
}

func holdsSecret(path []string, v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for k, child := range v {
			if holdsSecret(append(slices.Clip(path), k), child) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, func(child any) bool { return holdsSecret(path, child) })
	case string, json.Number:
		return seal.SecretPath(path)
	}
	return false
}

// resolved is a copy of a tree with the secrets in the places of references.
func resolved(v any, secret func(reference) (string, error)) (any, error) {
	switch v := v.(type) {
	case reference:
		return secret(v)
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, child := range v {
			c, err := resolved(child, secret)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", k, err)
			}
			out[k] = c
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		for i, child := range v {
			c, err := resolved(child, secret)
			if err != nil {
				return nil, err
			}
			out[i] = c
		}
		return out, nil
	}
	return v, nil
}

// driverSecret reports whether a driver of this build calls a key of
// driver_info a secret.
func driverSecret(key string) bool { return knownDrivers().Secret(key) }
