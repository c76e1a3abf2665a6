package looks

import (
	"strings"
	"testing"
)

// What gives a secret away is known, and is not in the text that says so.
func TestSecretURL(t *testing.T) {
	for raw, secret := range map[string]bool{
		"":                                  false,
		"http://images/debian.raw":          false,
		"https://h/a?version=3&arch=x86_64": false,
		"https://h/a?download":              false,
		"nonsense":                          false,
		"https://joe:hunter2@h/a":           true,
		"https://hunter2@h/a":               true,
		"https://h/a?x=1;Signature=hunter2": true,
		"https://h/a?X-Amz-Signature=hunter2&X-Amz-Date=1": true,
		"https://h/a?%73ig=hunter2":                        true,
		"https://h/a?hunter2hunter2hunter2":                true,
		"https://joe:hunter2%zz@h/a":                       true,
	} {
		if why := SecretURL(raw); secret != (why != "") || strings.Contains(why, "hunter2") {
			t.Errorf("%s: %q", raw, why)
		}
	}
}
