package fsm

import (
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

// Of one member only the newest keys are remembered.
func TestFormKeysAreBounded(t *testing.T) {
	f := newFixture(t)
	for n := range formKeysKept + 5 {
		f.ok(memberWithKey("p1", n+1))
	}
	had := f.s.View().Member("p1").GetFormKeys()
	if len(had) != formKeysKept || had[formKeysKept-1] != formKey(formKeysKept+5) || had[0] != formKey(6) {
		t.Errorf("%d keys from %s to %s", len(had), had[0], had[len(had)-1])
	}
}
