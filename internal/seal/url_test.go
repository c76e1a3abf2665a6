package seal

import "testing"

func TestMaskURL(t *testing.T) {
	for raw, want := range map[string]string{
		"http://h/x":                       "http://h/x",
		"https://h:8443/a%2Fb#part":        "https://h:8443/a%2Fb",
		"https://joe:hunter2@h/x?sig=hush": "https://******@h/x?******",
		"https://joe@[2001:db8::1]:80/x":   "https://******@[2001:db8::1]:80/x",
		"http://h/x?":                      "http://h/x",
		"::hunter2":                        "******",
		"http://h/%zz?sig=hush":            "******",
	} {
		if got := MaskURL(raw); got != want {
			t.Errorf("%q is shown as %q, not %q", raw, got, want)
		}
	}
}

// A document holds a secret wherever a string or a number would be sealed.
func TestHoldsSecret(t *testing.T) {
	for doc, want := range map[string]string{
		``:                                    "",
		`{}`:                                  "",
		`7`:                                   "",
		`"hunter2"`:                           "",
		`{"a":[1,{"b":"x"}]}`:                 "",
		`{"token":null,"password":true}`:      "",
		`{"public_key":"x"}`:                  "",
		`{"token":"hunter2"}`:                 "token",
		`{"a":[{"b":{"pin":1,"token":12}}]}`:  "a/0/b/token",
		`{"password":{"of":["hunter2"]}}`:     "password/of/0",
		`[{"x":1},{"private-key":"hunter2"}]`: "1/private-key",
		`{"tok\u0065n":"hunter2"}`:            "token",
		`{"b":1,`:                             "",
	} {
		if got := SecretIn([]byte(doc)); got != want {
			t.Errorf("%s: %q, not %q", doc, got, want)
		}
	}
}
