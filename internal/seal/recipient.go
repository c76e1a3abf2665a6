package seal

import (
	"crypto/ecdh"
	"crypto/hpke"

	"github.com/ironring/ironring/internal/errs"
)

// Recipient is a private key to which others seal what only its holder may
// read: HPKE (RFC 9180) in base mode with X25519, HKDF-SHA256 and AES-256-GCM.
type Recipient struct{ key hpke.PrivateKey }

func kem() hpke.KEM { return hpke.DHKEM(ecdh.X25519()) }

// NewRecipient makes a key.
func NewRecipient() (*Recipient, error) {
	key, err := kem().GenerateKey()
	if err != nil {
		return nil, errs.New(errs.Internal, "make seal key: %w", err)
	}
	return &Recipient{key}, nil
}

// ParseRecipient reads what Marshal wrote.
func ParseRecipient(raw []byte) (*Recipient, error) {
	key, err := kem().NewPrivateKey(raw)
	if err != nil {
		return nil, errs.New(errs.Invalid, "read seal key: it is damaged")
	}
	return &Recipient{key}, nil
}

// Marshal gives the form that is stored in a file. It is a secret.
func (r *Recipient) Marshal() ([]byte, error) { return r.key.Bytes() }

// Public is what others seal to.
func (r *Recipient) Public() []byte { return r.key.PublicKey().Bytes() }

// String keeps the key out of formatted text.
func (r *Recipient) String() string { return "seal key" }

// GoString keeps the key out of formatted text.
func (r *Recipient) GoString() string { return r.String() }

// To seals for the holder of a public key. info names what it is and whom
// it is for; Open needs the same.
func To(public []byte, info string, plain []byte) ([]byte, error) {
	key, err := kem().NewPublicKey(public)
	if err != nil {
		return nil, errs.New(errs.Invalid, "seal %s: the public key is damaged", info)
	}
	box, err := hpke.Seal(key, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(info), plain)
	if err != nil {
		return nil, errs.New(errs.Internal, "seal %s: %w", info, err)
	}
	return box, nil
}

// Open opens what was sealed to this key.
func (r *Recipient) Open(info string, box []byte) ([]byte, error) {
	plain, err := hpke.Open(r.key, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(info), box)
	if err != nil {
		return nil, errs.New(errs.Denied, "open %s: it is damaged or not for this peer", info)
	}
	return plain, nil
}
