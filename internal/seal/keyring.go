// Package seal keeps secrets unreadable in the Raft log, in snapshots and in
// memory dumps of records: values are sealed before they enter a command and
// opened only where they are used.
//
// A sealed value is the text "ironring-sealed:1:KEYID:BASE64" of AES-256-GCM
// with a random nonce. The additional data (aad) names the place that the
// value belongs to, e.g. "node/ID/driver_info": a sealed value that is copied
// to another place does not open there.
//
// A Keyring is immutable and safe for concurrent use. Neither keys nor plain
// text ever stand in an error.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"

	"github.com/ironring/ironring/internal/errs"
)

// Prefix is what every sealed value begins with.
const Prefix = "ironring-sealed:1:"

// Keyring holds the data keys of the cluster. New values are sealed with the
// primary key, the others open older values.
type Keyring struct {
	primary string
	keys    map[string][]byte
	aeads   map[string]cipher.AEAD
}

// New makes a Keyring with one random key.
func New() (*Keyring, error) {
	id := make([]byte, 4)
	key := make([]byte, 32)
	rand.Read(id) // never fails since Go 1.24
	rand.Read(key)
	name := hex.EncodeToString(id)
	return build(name, map[string][]byte{name: key})
}

// file is the stored form.
type file struct {
	Primary string            `json:"primary"`
	Keys    map[string][]byte `json:"keys"`
}

// Parse reads what Marshal wrote.
func Parse(b []byte) (*Keyring, error) {
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, errs.New(errs.Invalid, "read keyring: not a keyring file") // %w could quote key material
	}
	return build(f.Primary, f.Keys)
}

func build(primary string, keys map[string][]byte) (*Keyring, error) {
	k := &Keyring{primary: primary, keys: keys, aeads: map[string]cipher.AEAD{}}
	for id, key := range keys {
		if len(key) != 32 || id == "" || strings.ContainsAny(id, ": \n") {
			return nil, errs.New(errs.Invalid, "read keyring: key %q is damaged", id)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("read keyring: %w", err)
		}
		if k.aeads[id], err = cipher.NewGCM(block); err != nil {
			return nil, fmt.Errorf("read keyring: %w", err)
		}
	}
	if k.aeads[primary] == nil {
		return nil, errs.New(errs.Invalid, "read keyring: the primary key is missing")
	}
	return k, nil
}

// Marshal gives the form that is stored in a file and sent to a joining peer.
// It is a secret.
func (k *Keyring) Marshal() ([]byte, error) {
	return json.Marshal(file{Primary: k.primary, Keys: k.keys})
}

// LogValue keeps keys out of logs.
func (k *Keyring) LogValue() slog.Value {
	return slog.StringValue(fmt.Sprintf("keyring of %d keys", len(k.keys)))
}

// String keeps keys out of formatted text.
func (k *Keyring) String() string { return k.LogValue().String() }

// GoString keeps keys out of formatted text.
func (k *Keyring) GoString() string { return k.String() }

// Seal encrypts a value for the place that aad names.
func (k *Keyring) Seal(aad string, plain []byte) (string, error) {
	a := k.aeads[k.primary]
	nonce := make([]byte, a.NonceSize())
	rand.Read(nonce)
	box := a.Seal(nonce, nonce, plain, []byte(aad))
	return Prefix + k.primary + ":" + base64.RawStdEncoding.EncodeToString(box), nil
}

// Open decrypts a value that was sealed for the place that aad names.
func (k *Keyring) Open(aad, sealed string) ([]byte, error) {
	rest, ok := strings.CutPrefix(sealed, Prefix)
	if !ok {
		return nil, errs.New(errs.Invalid, "open sealed value of %s: it is not sealed", aad)
	}
	id, text, _ := strings.Cut(rest, ":")
	a := k.aeads[id]
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

// IsSealed reports whether a string looks like a sealed value.
func IsSealed(s string) bool { return strings.HasPrefix(s, Prefix) }
