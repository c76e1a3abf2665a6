package fsm

import (
	"bytes"
	"encoding/hex"
	"slices"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// Shared keys of key_file, known by an id that reveals nothing of them
// (ADR 0031). What a removed member had, by what it proved and by what it said,
// is spent, for good: the table of spent keys never shrinks, and grows only by
// keys that operators made.

const (
	formKeyID    = 16 // bytes of a key's id, which is in hexadecimal
	formKeysKept = 64 // keys of one member that are remembered
)

func checkFormKey(id string) error {
	if raw, err := hex.DecodeString(id); id != "" && (err != nil || len(raw) != formKeyID) {
		return errs.About(errs.Invalid, "form_key", "%q is not the id of a shared key", clip(id, maxID))
	}
	return nil
}

// formKeysOf are the shared keys that a member has had: one that it has no more
// may still be on its disk. The first one is never forgotten, whatever the
// member says of later ones: if it joined by a key, it is that.
func formKeysOf(was *api.Member, proved []string, now string) []string {
	had := slices.Clone(was.GetFormKeys())
	for _, id := range proved {
		if !slices.Contains(had, id) {
			had = append(had, id)
		}
	}
	if now != "" && (len(had) == 0 || now != had[0]) {
		had = append(slices.DeleteFunc(had, func(id string) bool { return id == now }), now)
	}
	if more := len(had) - formKeysKept; more > 0 {
		had = slices.Delete(had, 1, 1+more)
	}
	return had
}

// provedKeys are the shared keys by which a member got the tokens that it used.
// Its record is its own word, and need not tell them. One that tells no key pair
// may have any that used a token for its id.
func (w *work) provedKeys(m *api.Member) []string {
	var out []string
	for _, t := range all(w, tokens) {
		its := len(m.GetKeyDigest()) == 0 || bytes.Equal(t.GetKeyDigest(), m.GetKeyDigest())
		if its && t.GetFormKey() != "" && t.GetMemberId() == m.GetId() {
			out = append(out, t.GetFormKey())
		}
	}
	return out
}

// spendFormKeys has nobody join any more by what a member knows.
func (w *work) spendFormKeys(m *api.Member) {
	for _, id := range m.GetFormKeys() {
		if get(w, spentKeys, id) == nil {
			put(w, spentKeys, &api.SpentKey{Id: id, Member: m.GetId(), SpentMs: w.meta.GetWallMs()})
		}
	}
}

// unspent refuses what is done for somebody who proved a spent key.
func (w *work) unspent(id string) error {
	if s := get(w, spentKeys, id); id != "" && s != nil {
		return errs.About(errs.Denied, "key_file", "the shared key was spent when member %s was removed: put another one into key_file", s.GetMember())
	}
	return nil
}
