package seal

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ironring/ironring/internal/errs"
)

func TestRecipient(t *testing.T) {
	a, err := NewRecipient()
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewRecipient()
	if err != nil {
		t.Fatal(err)
	}
	box, err := To(a.Public(), "keys of p1", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := a.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseRecipient(raw)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Open("keys of p1", box); err != nil || string(got) != "secret" {
		t.Errorf("opened %q: %v", got, err)
	}
	for what, open := range map[string]func() ([]byte, error){
		"another holder": func() ([]byte, error) { return b.Open("keys of p1", box) },
		"another use":    func() ([]byte, error) { return a.Open("keys of p2", box) },
		"cut":            func() ([]byte, error) { return a.Open("keys of p1", box[:20]) },
		"empty":          func() ([]byte, error) { return a.Open("keys of p1", nil) },
	} {
		if got, err := open(); !errors.Is(err, errs.Denied) {
			t.Errorf("%s opened %q: %v", what, got, err)
		}
	}
	if _, err := To([]byte("short"), "x", nil); !errors.Is(err, errs.Invalid) {
		t.Errorf("a bad public key: %v", err)
	}
	if _, err := ParseRecipient([]byte("short")); !errors.Is(err, errs.Invalid) {
		t.Errorf("a bad private key: %v", err)
	}
	if s := fmt.Sprintf("%v %#v", a, a); s != "seal key seal key" {
		t.Errorf("printed as %s", s)
	}
}
