package seal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ironring/ironring/internal/errs"
)

func keyring(t *testing.T) *Keyring {
	t.Helper()
	k, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealOpen(t *testing.T) {
	k := keyring(t)
	b, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		aad := rapid.String().Draw(t, "aad")
		s, err := k.Seal(aad, plain)
		if err != nil || !IsSealed(s) {
			t.Fatal(s, err)
		}
		if got, err := again.Open(aad, s); err != nil || string(got) != string(plain) {
			t.Fatalf("opens as %q, %v", got, err)
		}
		if _, err := again.Open(aad+"x", s); !errors.Is(err, errs.Invalid) {
			t.Fatalf("opens at another place: %v", err)
		}
		i := rapid.IntRange(len(Prefix)+9, len(s)-1).Draw(t, "i")
		c := byte('A')
		if s[i] == c {
			c = 'B'
		}
		if got, err := again.Open(aad, s[:i]+string(c)+s[i+1:]); err == nil && string(got) != string(plain) {
			t.Fatalf("a changed value opens as %q", got)
		}
	})
	if _, err := keyring(t).Open("a", mustSeal(t, k)); !errors.Is(err, errs.NotFound) {
		t.Errorf("foreign key: %v", err)
	}
	for _, bad := range []string{"", "x", `{}`, `{"primary":"a","keys":{"a":"AAAA"}}`, `{"primary":"a","keys":{}}`} {
		if _, err := Parse([]byte(bad)); !errors.Is(err, errs.Invalid) {
			t.Errorf("keyring %q: %v", bad, err)
		}
	}
	for _, text := range []string{fmt.Sprint(k), fmt.Sprintf("%+v %#v", k, k)} {
		if strings.Contains(text, "keys:") || !strings.Contains(text, "keyring of 1 keys") {
			t.Errorf("printed as %s", text)
		}
	}
}

func mustSeal(t *testing.T, k *Keyring) string {
	t.Helper()
	s, err := k.Seal("a", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDocuments(t *testing.T) {
	k := keyring(t)
	const aad = "node/n1/driver_info"
	secret := func(p []string) bool { return p[len(p)-1] == "password" }
	doc := []byte(`{"z": 1.50, "password":"p<1", "a":{"password":"p2","list":["x",{"password":"p3"}]}, "n":null}`)
	sealed, err := k.SealDoc(aad, doc, secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"p<1", `"p2"`, `"p3"`} {
		if strings.Contains(string(sealed), p) {
			t.Errorf("%s is in %s", p, sealed)
		}
	}
	opened, err := k.OpenDoc(aad, sealed)
	const want = `{"a":{"list":["x",{"password":"p3"}],"password":"p2"},"n":null,"password":"p<1","z":1.50}`
	if err != nil || string(opened) != want {
		t.Errorf("opened %s, %v", opened, err)
	}
	again, err := k.SealDoc(aad, sealed, secret)
	if err != nil || string(again) != string(sealed) {
		t.Errorf("sealing twice changes the document: %v", err)
	}
	if _, err := k.SealDoc("node/n2/driver_info", sealed, secret); !errors.Is(err, errs.Invalid) {
		t.Errorf("a value of another node: %v", err)
	}
	const masked = `{"a":{"list":["x",{"password":"******"}],"password":"******"},"n":null,"password":"******","z":1.50}`
	if got := string(MaskDoc(sealed)); got != masked {
		t.Errorf("masked %s", got)
	}
	// Numbers come back as numbers; what says nothing is left alone.
	const others = `{"a":{"password":{"password":1.50}},"b":{"password":true},"c":{"password":null},"password":-7}`
	sealed, err = k.SealDoc(aad, []byte(others), secret)
	if err != nil || strings.Contains(string(sealed), "1.50") || strings.Contains(string(sealed), "-7") || !strings.Contains(string(sealed), `{"password":true}`) {
		t.Errorf("numbers sealed as %s, %v", sealed, err)
	}
	if opened, err := k.OpenDoc(aad, sealed); err != nil || string(opened) != others {
		t.Errorf("numbers opened as %s, %v", opened, err)
	}
	if got := MaskDoc([]byte(`{"broken`)); string(got) != `"******"` {
		t.Errorf("broken document masked as %s", got)
	}
	if got, err := k.SealDoc(aad, nil, secret); err != nil || len(got) != 0 {
		t.Errorf("empty: %q %v", got, err)
	}
	deep := strings.Repeat("[", 40) + strings.Repeat("]", 40)
	if _, err := k.SealDoc(aad, []byte(deep), secret); !errors.Is(err, errs.Invalid) {
		t.Errorf("deep document: %v", err)
	}
}

// What users write cannot make the masked document something else than JSON.
func TestMaskDocKeepsTheDocumentWhole(t *testing.T) {
	for _, doc := range []string{
		`{"a":"ironring-sealed:1:k:AAAA","b":[1,"ironring-sealed:1:k:BBBB"],"c":"plain"}`,
		`{"a":"ironring-sealed:x\"y","b":"\\\"ironring-sealed:z\\","c":{"ironring-sealed:k":1}}`,
		`{"a":"say \"ironring-sealed:1:k:AAAA\""}`,
		`{}`, `[]`, `"ironring-sealed:1:k:AAAA"`,
	} {
		out := MaskDoc([]byte(doc))
		if !json.Valid(out) {
			t.Errorf("MaskDoc(%s) = %s, which is not JSON", doc, out)
		}
		if bytes.Contains(out, []byte("AAAA")) && !bytes.Contains([]byte(doc), []byte("say")) || bytes.Contains(out, []byte("BBBB")) {
			t.Errorf("MaskDoc(%s) = %s, which shows a sealed value", doc, out)
		}
	}
	if got := string(MaskDoc([]byte(`{"a":`))); got != `"`+Mask+`"` {
		t.Errorf("a document that cannot be read is shown as %s", got)
	}
}

func TestLooksSecret(t *testing.T) {
	for key, want := range map[string]bool{
		"password": true, "ipmi_password": true, "BMC-Password": true, "root_passwd": true, "api-key": true, "apiKey": true,
		"privateKey": true, "ssh_private_key": true, "key": true, "luks_key": true, "auth_token": true, "snmp_community": true, "credentials": true,
		"ssh_public_key": false, "authorized_key": false, "keyboard": false, "monkey": false, "redfish_address": false, "root_device": false,
		"serial": false, "user": false, "": false,
	} {
		if LooksSecret(key) != want {
			t.Errorf("LooksSecret(%q) is not %v", key, want)
		}
	}
	if !SecretPath([]string{"credentials", "0", "user"}) || SecretPath([]string{"a", "b"}) {
		t.Error("a value below a secret is one")
	}
}

func TestMaskedPath(t *testing.T) {
	for doc, want := range map[string]string{
		``: "", `{}`: "", `{"a":"*****"}`: "", `{"a":"x******"}`: "", `{`: "", `{"******`: "",
		`{"a":"******"}`: "a", `{"b":{"c":["x","******"]},"z":"******"}`: "b/c/1", `{"******":1}`: "",
	} {
		if got := MaskedPath([]byte(doc)); got != want {
			t.Errorf("MaskedPath(%s) = %q, want %q", doc, got, want)
		}
	}
}
