package fsm

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// formKey is the id of the n-th shared key; the 0th is none.
func formKey(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%032x", n)
}

func memberWithKey(id string, key int) *api.Op {
	op := memberSet(id)
	op.GetMemberSet().Member.FormKey = formKey(key)
	return op
}

// peerWithKey is memberWithKey with the key pair of formConsume.
func peerWithKey(id string, key int) *api.Op {
	op := memberWithKey(id, key)
	digest := sha256.Sum256([]byte(id))
	op.GetMemberSet().Member.KeyDigest = digest[:]
	return op
}

func removal(id string, operator bool) *api.Op {
	return &api.Op{Op: &api.Op_MemberRemove{MemberRemove: &api.MemberRemove{Id: id, SpendFormKeys: operator}}}
}

func formToken(id string, key int) *api.Op {
	secret := sha256.Sum256([]byte(id))
	return &api.Op{Op: &api.Op_TokenCreate{TokenCreate: &api.TokenCreate{Token: &api.JoinToken{
		Id: id, SecretDigest: secret[:], ExpiresMs: user.GetWallMs() + 1000, FormKey: formKey(key),
	}}}}
}

func formConsume(id, member string) *api.Op {
	secret, key := sha256.Sum256([]byte(id)), sha256.Sum256([]byte(member))
	return &api.Op{Op: &api.Op_TokenConsume{TokenConsume: &api.TokenConsume{Id: id, SecretDigest: secret[:], KeyDigest: key[:], MemberId: member}}}
}

// What a removed member has had as a shared key is spent: no tokens are made
// under it, and those that were made are good for nothing. Other keys, and
// tokens of operators, are as they were.
func TestSpentFormKeys(t *testing.T) {
	f := newFixture(t)
	f.ok(memberWithKey("p1", 3), memberWithKey("p2", 1), memberWithKey("p3", 1), memberWithKey("p4", 0))
	f.ok(memberWithKey("p3", 2)) // its file was replaced
	claim := memberWithKey("p3", 2)
	claim.GetMemberSet().Member.FormKeys = nil // what it had is not for it to say
	f.ok(claim)
	if got := f.s.View().Member("p3").GetFormKeys(); !slices.Equal(got, []string{formKey(1), formKey(2)}) {
		t.Fatalf("p3 is known to have had %v", got)
	}
	f.ok(formToken("t1", 1), formToken("t2", 2), formToken("t3", 3), formToken("operator", 0), formToken("used", 1))
	f.ok(formConsume("used", "p2"))

	f.ok(removal("p4", true)) // never had one: nothing is spent
	spent := func(want ...int) {
		t.Helper()
		for n := 1; n <= 4; n++ {
			if is := f.s.View().SpentKey(formKey(n)) != nil; is != slices.Contains(want, n) {
				t.Errorf("key %d is spent: %v", n, is)
			}
		}
	}
	spent()
	f.ok(removal("p3", true))
	spent(1, 2)
	if s := f.s.View().SpentKey(formKey(2)); s.GetMember() != "p3" || s.GetSpentMs() != user.GetWallMs() || s.GetIndex() == 0 {
		t.Errorf("spent: %v", s)
	}
	f.fails(errs.Denied, formToken("t4", 1))
	f.fails(errs.Denied, formToken("t4", 2))
	f.ok(formToken("t5", 3))
	f.fails(errs.Denied, formConsume("t1", "p5"))
	f.fails(errs.Denied, formConsume("t2", "p5"))
	f.ok(formConsume("used", "p2")) // its answer was lost: it is a member since before
	f.ok(formConsume("t3", "p5"))
	f.ok(formConsume("operator", "p6"))

	f.ok(memberWithKey("p2", 1)) // still has the file: it says so, and nobody joins by it
	f.ok(memberWithKey("p3", 4)) // came back with a key that it was given
	f.ok(removal("p1", false))   // left by itself
	spent(1, 2)
	f.ok(removal("p3", true))
	spent(1, 2, 4)

	for _, bad := range []string{"k", formKey(1)[1:], formKey(1) + "00", "../" + formKey(1)[3:]} {
		op := memberSet("p7")
		op.GetMemberSet().Member.FormKey = bad
		f.fails(errs.Invalid, op)
		tok := formToken("t7", 1)
		tok.GetTokenCreate().Token.FormKey = bad
		f.fails(errs.Invalid, tok)
	}
}

// What a member proved when it joined is spent by its removal, whatever its
// record says then and later.
func TestRemovalSpendsWhatWasProved(t *testing.T) {
	for name, says := range map[string]func(f *fixture){
		"nothing": func(f *fixture) { f.ok(peerWithKey("p9", 0)) },
		"another": func(f *fixture) { f.ok(peerWithKey("p9", 2)) },
		"no key pair": func(f *fixture) {
			f.ok(removal("p9", false))
			f.ok(memberWithKey("p9", 0))
		},
		"nothing any more": func(f *fixture) {
			f.ok(peerWithKey("p9", 1))
			f.ok(peerWithKey("p9", 0))
		},
		"many others, once its token is forgotten": func(f *fixture) {
			f.ok(peerWithKey("p9", 0))
			later := &api.Meta{Principal: "peer:p1", Source: "peer:p1", Reason: "test", WallMs: user.GetWallMs() + 2*tokenForgotMs}
			if res := f.command(later, formToken("t2", 3)); res.GetFailure() != nil || f.s.View().JoinToken("t1") != nil {
				t.Fatalf("the token is remembered: %v", res)
			}
			for n := range formKeysKept + 5 {
				f.ok(peerWithKey("p9", 10+n))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.ok(peerWithKey("p1", 1), formToken("t1", 1))
			join := []*api.Op{formConsume("t1", "p9"), peerWithKey("p9", 0)}
			f.ok(join...)
			says(f)
			f.ok(removal("p9", true))
			if f.s.View().SpentKey(formKey(1)) == nil {
				t.Error("the key that p9 proved is not spent")
			}
		})
	}

	// Another peer under the id, with another key pair, did not prove it.
	f := newFixture(t)
	f.ok(formToken("t1", 1))
	f.ok(formConsume("t1", "p9"), peerWithKey("p9", 0))
	f.ok(removal("p9", false)) // left by itself
	other := peerWithKey("p9", 0)
	other.GetMemberSet().Member.KeyDigest = []byte("another key")
	f.ok(other)
	f.ok(removal("p9", true))
	if f.s.View().SpentKey(formKey(1)) != nil {
		t.Error("a key of another peer is spent")
	}
}

// A join that was checked before the removal and is applied after it, a join
// that is repeated, and the announcement of a peer that leaves bring nobody
// back; a new key pair and a new token do, and then the old one cannot take the
// record over.
func TestFormerMemberStaysOut(t *testing.T) {
	for _, operator := range []bool{true, false} {
		f := newFixture(t)
		join := []*api.Op{formConsume("t1", "p3"), peerWithKey("p3", 1)}
		f.ok(memberWithKey("p1", 1), formToken("t1", 1), formToken("t2", 0), formToken("t3", 0))
		f.ok(join...)
		f.ok(join...) // its answer was lost
		f.ok(removal("p3", operator))
		refused := func() {
			t.Helper()
			f.fails(errs.Denied, join...)
			f.fails(errs.Denied, join[0])
			f.fails(errs.Denied, join[1])
			f.fails(errs.Denied, formConsume("t2", "p3"), peerWithKey("p3", 0)) // another token, made before or after
		}
		refused()
		if m := f.s.View().Member("p3"); m != nil {
			t.Fatalf("the former member is one again: %v", m)
		}

		// As after a restart of who applies it.
		var snapshot bytes.Buffer
		if _, err := f.s.Snapshot().WriteTo(&snapshot); err != nil {
			t.Fatal(err)
		}
		f.s = New()
		if err := f.s.Restore(&snapshot); err != nil {
			t.Fatal(err)
		}
		refused()

		back := peerWithKey("p3", 2)
		digest := sha256.Sum256([]byte("p3, anew"))
		back.GetMemberSet().Member.KeyDigest = digest[:]
		consume := formConsume("t3", "p3")
		consume.GetTokenConsume().KeyDigest = digest[:]
		f.ok(consume, back)
		f.ok(consume, back)
		refused()
		if m := f.s.View().Member("p3"); !bytes.Equal(m.GetKeyDigest(), digest[:]) || m.GetFormKey() != formKey(2) {
			t.Errorf("the new peer's record: %v", m)
		}
	}
}

// Of one member the first key and the newest ones are remembered.
func TestFormKeysAreBounded(t *testing.T) {
	f := newFixture(t)
	for n := range formKeysKept + 5 {
		f.ok(memberWithKey("p1", n+1))
	}
	had := f.s.View().Member("p1").GetFormKeys()
	if len(had) != formKeysKept || had[formKeysKept-1] != formKey(formKeysKept+5) || had[0] != formKey(1) || had[1] != formKey(7) {
		t.Errorf("%d keys from %s, %s to %s", len(had), had[0], had[1], had[len(had)-1])
	}
}
