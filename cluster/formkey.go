package cluster

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/fsm"
	"github.com/ironring/ironring/internal/errs"
)

// Shared keys of key_file. A member says in its record, by an id, which one it
// has; when it is removed, all that it had are spent (ADR 0031).

const minFormKey = 32 // bytes

// formKeys are derived from a shared key: what both sides prove it with, and
// the id that tells it from others.
type formKeys struct {
	client, server []byte
	id             string
}

// keys are those of the shared key as it is now.
func (f *Form) keys() (formKeys, error) {
	raw, err := f.Key()
	if err != nil {
		return formKeys{}, errs.About(errs.Invalid, "key_file", "read the shared key: %w", err)
	}
	if len(raw) < minFormKey {
		return formKeys{}, errs.About(errs.Invalid, "key_file", "the shared key has %d bytes, at least %d are needed: make one with `openssl rand -base64 32`", len(raw), minFormKey)
	}
	return newFormKeys(raw)
}

// newFormKeys derives with HKDF, so that none of the results says anything of
// the key or of the others; the id is in the log, and everybody may know it.
func newFormKeys(shared []byte) (formKeys, error) {
	derive := func(what string, size int) []byte {
		key, err := hkdf.Key(sha256.New, shared, []byte("ironring"), "ironring form v1 "+what, size)
		if err != nil { // only in FIPS mode, for a key that is too short
			return nil
		}
		return key
	}
	k := formKeys{client: derive("client", sha256.Size), server: derive("server", sha256.Size), id: hex.EncodeToString(derive("id", 16))}
	if k.client == nil || k.server == nil || k.id == "" {
		return formKeys{}, errs.New(errs.Internal, "derive keys of the shared key")
	}
	return k, nil
}

// noFormKeys are keys that nobody else has.
func noFormKeys() formKeys {
	k := formKeys{client: make([]byte, sha256.Size), server: make([]byte, sha256.Size)}
	rand.Read(k.client) // never fails since Go 1.24
	rand.Read(k.server)
	return k
}

// formKey is the id of this peer's shared key for its record; "" when it takes
// in nobody by one. While the key cannot be read the record stays as it is.
// Only announce calls it.
func (c *Cluster) formKey(v *fsm.View) string {
	if c.cfg.Form == nil {
		return ""
	}
	keys, err := c.cfg.Form.keys()
	if err != nil {
		if c.formKeyBad != err.Error() {
			c.formKeyBad = err.Error()
			c.log.Warn("the shared key cannot be read, nobody joins by it here", "err", err)
		}
		return v.Member(c.ID()).GetFormKey()
	}
	if c.formKeyBad != "" {
		c.formKeyBad = ""
		c.log.Info("the shared key can be read again")
	}
	return keys.id
}

// FormNotes says which members have a shared key by which nobody joins, and
// what to do; nothing when all is well.
func FormNotes(v *fsm.View) []string {
	var spent *api.SpentKey
	var stale []string
	by := map[string][]string{} // members by good key
	for _, m := range v.Members() {
		id := m.GetFormKey()
		if gone(m) || id == "" {
			continue
		}
		if s := v.SpentKey(id); s != nil {
			spent, stale = s, append(stale, m.GetId())
		} else {
			by[id] = append(by[id], m.GetId())
		}
	}
	var notes []string
	if len(stale) > 0 {
		notes = append(notes, fmt.Sprintf("the shared key of %s was spent when %s was removed at %s, nobody joins by it any more: "+
			"put a new one into key_file (openssl rand -base64 32) on all hosts but those that were removed; no restart is needed",
			strings.Join(stale, ", "), spent.GetMember(), time.UnixMilli(spent.GetSpentMs()).UTC().Format(time.RFC3339)))
	}
	if len(by) > 1 {
		var groups []string
		for _, ids := range by {
			groups = append(groups, strings.Join(ids, ", "))
		}
		slices.Sort(groups)
		notes = append(notes, "the shared key in key_file is not the same everywhere: one on "+strings.Join(groups, ", another on "))
	}
	return notes
}
