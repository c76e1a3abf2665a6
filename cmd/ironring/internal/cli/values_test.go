package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ironring/ironring/internal/seal"
)

func TestValueTooLarge(t *testing.T) {
	f, _, _ := testFactory(strings.Repeat("x", maxValue+1), nil)
	v := &values{f: f}
	if _, _, err := v.parse("extra", "a=-"); err == nil || len(err.Error()) > 200 {
		t.Errorf("got %v", err)
	}
}

// A value that may be a secret is in no error; what is accepted is JSON.
func FuzzValues(f *testing.F) {
	f.Add("key=value", "in")
	f.Add("password=hunter2", "in")
	f.Add("a:={\"b\":1}", "")
	f.Add("a=-", "x\n")
	f.Add("a=env:X", "")
	f.Add("=", "")
	f.Fuzz(func(t *testing.T, arg, in string) {
		if strings.Contains(arg, "=@") {
			return // would read files of this host
		}
		fac, _, _ := testFactory(in, map[string]string{"X": "y"})
		key, value, err := (&values{f: fac}).parse("extra", arg)
		if err == nil {
			if !json.Valid(value) || key == "" {
				t.Errorf("%q gives %q = %q", arg, key, value)
			}
			return
		}
		if _, secret, ok := strings.Cut(arg, "="); ok && seal.LooksSecret(strings.SplitN(arg, "=", 2)[0]) && len(secret) > 8 &&
			!strings.HasPrefix(secret, "env:") && strings.Contains(err.Error(), secret) && !strings.Contains(plainSecret("extra", strings.SplitN(arg, "=", 2)[0]).Error(), secret) {
			t.Errorf("the error tells the secret: %v", err)
		}
	})
}
