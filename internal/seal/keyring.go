// Package seal keeps secrets unreadable in the Raft log, in snapshots and in
// memory dumps of records: values are sealed before they enter a command and
// opened only where they are used.
//
// A sealed value is the text "ironring-sealed:1:KEYID:BASE64" of AES-256-GCM
// with a random nonce. The additional data (aad) names the place that the
// value belongs to, e.g. "node/ID/driver_info": a sealed value that is copied
// to another place does not open there.
//
// Keys come and go: Successor makes the next set of keys, Replace puts it in
// place of the one in use, so that whoever holds a Keyring has the new keys at
// once, and Reseal brings older values under the new primary key.
//
// A Keyring is safe for concurrent use. Neither keys nor plain text ever stand
// in an error.
package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/ironring/ironring/internal/errs"
)

// Prefix is what every sealed value begins with.
const Prefix = "ironring-sealed:1:"

// Keyring holds the data keys of the cluster. New values are sealed with the
// primary key, the others open older values. It must not be copied.
type Keyring struct {
	now     atomic.Pointer[keySet]
	refresh atomic.Pointer[func()]
}

// keySet is never changed.
type keySet struct {
	generation uint64
	primary    string
	keys       map[string][]byte
	aeads      map[string]cipher.AEAD
}

// New makes a Keyring of generation 1 with one random key.
func New() (*Keyring, error) {
	name, key := newKey()
	return build(1, name, map[string][]byte{name: key})
}

func newKey() (id string, key []byte) {
	name := make([]byte, 4)
	key = make([]byte, 32)
	rand.Read(name) // never fails since Go 1.24
	rand.Read(key)
	return hex.EncodeToString(name), key
}

// Successor is a Keyring of the next generation with a new primary key and
// those of the present keys that are named.
func (k *Keyring) Successor(keep []string) (*Keyring, error) {
	is := k.now.Load()
	name, key := newKey()
	keys := map[string][]byte{}
	for _, id := range keep {
		if is.keys[id] == nil {
			return nil, errs.New(errs.NotFound, "make new keys: key %.16q is not in the keyring", id)
		}
		keys[id] = is.keys[id]
	}
	keys[name] = key
	return build(is.generation+1, name, keys)
}

// Replace puts the keys of another Keyring in place, for all who hold this one.
func (k *Keyring) Replace(by *Keyring) { k.now.Store(by.now.Load()) }

// Retain forgets all keys that are not named; the primary stays in any case.
func (k *Keyring) Retain(ids []string) (*Keyring, error) {
	is := k.now.Load()
	keys := map[string][]byte{is.primary: is.keys[is.primary]}
	for _, id := range ids {
		if is.keys[id] != nil {
			keys[id] = is.keys[id]
		}
	}
	return build(is.generation, is.primary, keys)
}

// OnMissing sets what Open calls, once a value, when it does not know the
// value's key: it may Replace the keys. The value may be newer than the keys,
// never the other way round.
func (k *Keyring) OnMissing(refresh func()) { k.refresh.Store(&refresh) }

// Generation counts the rotations, from 1.
func (k *Keyring) Generation() uint64 { return k.now.Load().generation }

// Primary is the id of the key that new values are sealed with.
func (k *Keyring) Primary() string { return k.now.Load().primary }

// IDs are the ids of all keys, sorted.
func (k *Keyring) IDs() []string { return slices.Sorted(maps.Keys(k.now.Load().keys)) }

// file is the stored form.
type file struct {
	Generation uint64            `json:"generation,omitempty"`
	Primary    string            `json:"primary"`
	Keys       map[string][]byte `json:"keys"`
}

// Parse reads what Marshal wrote.
func Parse(b []byte) (*Keyring, error) {
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, errs.New(errs.Invalid, "read keyring: not a keyring file") // %w could quote key material
	}
	return build(max(f.Generation, 1), f.Primary, f.Keys)
}

func build(generation uint64, primary string, keys map[string][]byte) (*Keyring, error) {
	set := &keySet{generation: generation, primary: primary, keys: keys, aeads: map[string]cipher.AEAD{}}
	for id, key := range keys {
		if len(key) != 32 || id == "" || strings.ContainsAny(id, ": \n") {
			return nil, errs.New(errs.Invalid, "read keyring: key %q is damaged", id)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("read keyring: %w", err)
		}
		if set.aeads[id], err = cipher.NewGCM(block); err != nil {
			return nil, fmt.Errorf("read keyring: %w", err)
		}
	}
	if set.aeads[primary] == nil {
		return nil, errs.New(errs.Invalid, "read keyring: the primary key is missing")
	}
	k := &Keyring{}
	k.now.Store(set)
	return k, nil
}

// Marshal gives the form that is stored in a file and sent to a joining peer.
// It is a secret.
func (k *Keyring) Marshal() ([]byte, error) {
	is := k.now.Load()
	return json.Marshal(file{Generation: is.generation, Primary: is.primary, Keys: is.keys})
}

// LogValue keeps keys out of logs.
func (k *Keyring) LogValue() slog.Value {
	return slog.StringValue(fmt.Sprintf("keyring of %d keys", len(k.now.Load().keys)))
}

// String keeps keys out of formatted text.
func (k *Keyring) String() string { return k.LogValue().String() }

// GoString keeps keys out of formatted text.
func (k *Keyring) GoString() string { return k.String() }

// Seal encrypts a value for the place that aad names.
func (k *Keyring) Seal(aad string, plain []byte) (string, error) {
	is := k.now.Load()
	a := is.aeads[is.primary]
	nonce := make([]byte, a.NonceSize())
	rand.Read(nonce)
	box := a.Seal(nonce, nonce, plain, []byte(aad))
	return Prefix + is.primary + ":" + base64.RawStdEncoding.EncodeToString(box), nil
}

// Open decrypts a value that was sealed for the place that aad names.
func (k *Keyring) Open(aad, sealed string) ([]byte, error) {
	rest, ok := strings.CutPrefix(sealed, Prefix)
	if !ok {
		return nil, errs.New(errs.Invalid, "open sealed value of %s: it is not sealed", aad)
	}
	id, text, _ := strings.Cut(rest, ":")
	a := k.aead(id)
	if a == nil {
		return nil, errs.New(errs.NotFound, "open sealed value of %s: key %.16q is not in the keyring", aad, id)
	}
	box, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(box) < a.NonceSize() {
		return nil, errs.New(errs.Invalid, "open sealed value of %s: it is damaged", aad)
	}
	plain, err := a.Open(nil, box[:a.NonceSize()], box[a.NonceSize():], []byte(aad))
	if err != nil {
		return nil, errs.New(errs.Invalid, "open sealed value of %s: it is damaged or was sealed for another place", aad)
	}
	return plain, nil
}

func (k *Keyring) aead(id string) cipher.AEAD {
	if a := k.now.Load().aeads[id]; a != nil {
		return a
	}
	if f := k.refresh.Load(); f != nil {
		(*f)()
	}
	return k.now.Load().aeads[id]
}

// Reseal brings the sealed values of a JSON document under the primary key;
// nothing else changes, and a document without older values is returned as it
// is. aads are the places that its values may have been sealed for: the one
// that opens a value is kept.
func (k *Keyring) Reseal(doc []byte, aads ...string) ([]byte, error) {
	const open = `"` + Prefix
	current := Prefix + k.Primary() + ":"
	var out []byte
	for {
		i := bytes.Index(doc, []byte(open))
		if i < 0 {
			return append(out, doc...), nil
		}
		out = append(out, doc[:i+1]...)
		doc = doc[i+1:]
		end := bytes.IndexByte(doc, '"') // a sealed value has no character that JSON escapes
		if end < 0 {
			return nil, errs.New(errs.Invalid, "reseal: the document is damaged")
		}
		value := string(doc[:end])
		doc = doc[end:]
		if !strings.HasPrefix(value, current) {
			var err error
			if value, err = k.resealValue(value, aads); err != nil {
				return nil, err
			}
		}
		out = append(out, value...)
	}
}

func (k *Keyring) resealValue(value string, aads []string) (string, error) {
	var all []error
	for _, aad := range aads {
		plain, err := k.Open(aad, value)
		if err == nil {
			return k.Seal(aad, plain)
		}
		all = append(all, err)
	}
	return "", errs.New(errs.Invalid, "reseal: %w", errors.Join(all...))
}

// SealedWith are the ids of the keys that a document's values are sealed with.
func SealedWith(doc []byte) []string {
	var out []string
	for {
		_, rest, found := bytes.Cut(doc, []byte(Prefix))
		if !found {
			return out
		}
		id, _, _ := bytes.Cut(rest[:min(len(rest), 64)], []byte(":"))
		if !slices.Contains(out, string(id)) {
			out = append(out, string(id))
		}
		doc = rest
	}
}

// IsSealed reports whether a string looks like a sealed value.
func IsSealed(s string) bool { return strings.HasPrefix(s, Prefix) }
