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
