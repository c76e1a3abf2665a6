package seal

import (
	"slices"
	"strings"
	"testing"
)

func TestRotation(t *testing.T) {
	k := keyring(t)
	const aad = "node/n1/driver_info"
	doc, err := k.SealDoc(aad, []byte(`{"a":"x","password":"p<1","list":[{"password":"p2"}]}`), func(p []string) bool { return p[len(p)-1] == "password" })
	if err != nil {
		t.Fatal(err)
	}
	old := k.Primary()
	if got := SealedWith(doc); !slices.Equal(got, []string{old}) {
		t.Errorf("sealed with %v, want %s", got, old)
	}
	next, err := k.Successor([]string{old})
	if err != nil {
		t.Fatal(err)
	}
	// Who does not have the new keys yet asks for them when it needs them.
	holder := keyring(t)
	asked := 0
	holder.OnMissing(func() { asked++; holder.Replace(next) })
	fresh, err := next.Seal(aad, []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := holder.Open(aad, fresh); err != nil || string(got) != "new" || asked != 1 {
		t.Errorf("opened %q after asking %d times: %v", got, asked, err)
	}
	k.Replace(next)
	if k.Generation() != 2 || k.Primary() == old || len(k.IDs()) != 2 {
		t.Errorf("generation %d, primary %s, keys %v", k.Generation(), k.Primary(), k.IDs())
	}
	resealed, err := k.Reseal(doc, "node/n1/other", aad)
	if err != nil {
		t.Fatal(err)
	}
	if got := SealedWith(resealed); !slices.Equal(got, []string{k.Primary()}) {
		t.Errorf("resealed with %v", got)
	}
	if again, err := k.Reseal(resealed, aad); err != nil || string(again) != string(resealed) {
		t.Errorf("resealing twice changes the document: %v", err)
	}
	if _, err := k.Reseal(doc, "node/n2/driver_info"); err == nil || strings.Contains(err.Error(), "p<1") {
		t.Errorf("resealed for another place: %v", err)
	}
	only, err := k.Retain(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := only.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	last, err := Parse(b)
	if err != nil || last.Generation() != 2 {
		t.Fatalf("generation %d: %v", last.Generation(), err)
	}
	if _, err := last.Open(aad, mustSeal(t, keyring(t))); err == nil {
		t.Error("a foreign value opens")
	}
	if opened, err := last.OpenDoc(aad, resealed); err != nil || !strings.Contains(string(opened), `"p<1"`) {
		t.Errorf("opened %s: %v", opened, err)
	}
	if _, err := last.OpenDoc(aad, doc); err == nil {
		t.Error("a value under a key that was forgotten opens")
	}
}
