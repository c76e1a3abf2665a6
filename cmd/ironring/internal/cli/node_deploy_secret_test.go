package cli

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ironring/ironring/internal/errs"
)

// What gives a secret away is not taken from the command line, and the error
// does not repeat it.
func TestTypedURL(t *testing.T) {
	const secret = "hunter2"
	for arg, refused := range map[string]bool{
		"":                                                 false,
		"http://images/debian.raw":                         false,
		"http://images/a.raw?machine=n001":                 false,
		"https://h/a?version=3&arch=x86_64":                false,
		"https://h/a?download":                             false,
		"https://h/a?design=flat":                          false,
		"nonsense":                                         false,
		"https://joe:hunter2@h/a":                          true,
		"https://hunter2@h/a":                              true,
		"https://h/a?token=hunter2":                        true,
		"https://h/a?x=1&sig=hunter2":                      true,
		"https://h/a?x=1;Signature=hunter2":                true,
		"https://h/a?X-Amz-Signature=hunter2&X-Amz-Date=1": true,
		"https://h/a?X-Goog-Credential=hunter2":            true,
		"https://h/a?temp_url_sig=hunter2":                 true,
		"https://h/a?%73ig=hunter2":                        true,
		"https://h/a?key=hunter2":                          true,
		"https://h/a?hunter2hunter2hunter2":                true,
		"https://joe:hunter2%zz@h/a":                       true,
	} {
		got, err := (&values{}).url("image", arg)
		if refused != (err != nil) || err != nil && (!errors.Is(err, errs.Invalid) || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "--image @FILE")) {
			t.Errorf("%s: %v", arg, err)
		}
		if err == nil && got != arg {
			t.Errorf("%s became %s", arg, got)
		}
		if refused && strings.HasPrefix(arg, "http") {
			if err := (&driveFlags{drive: arg}).into(map[string]any{}, &values{}); err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("config drive %s: %v", arg, err)
			}
		}
	}
}

// Each flag takes what is secret from a file, standard input or the environment,
// and standard input once.
func TestDeploySecrets(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	const url, token = "https://joe:hunter2@h/a?sig=x", "0123456789abcdef"
	for name, text := range map[string]string{"f": url + "\n", "t": token + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fresh := func(stdin string) *values {
		return &values{f: &Factory{In: strings.NewReader(stdin), Getenv: func(name string) string {
			return map[string]string{"URL": url, "TOKEN": token}[name]
		}}}
	}
	for _, from := range []string{"@" + file, "-", "env:URL"} {
		if got, err := fresh(url+"\n").url("image", from); err != nil || got != url {
			t.Errorf("image %s: %q, %v", from, got, err)
		}
		doc := map[string]any{}
		err := (&driveFlags{drive: from}).into(doc, fresh(url+"\n"))
		if raw, ok := doc["config_drive"].(json.RawMessage); err != nil || !ok || string(raw) != `"`+url+`"` {
			t.Errorf("config drive %s: %s, %v", from, raw, err)
		}
	}
	for _, from := range []string{"@" + filepath.Join(dir, "t"), "-", "env:TOKEN"} {
		doc := map[string]any{}
		if err := (&evidenceFlags{token: from}).into(doc, fresh(token), true); err != nil || doc["phone_home_token"] != token {
			t.Errorf("token %s: %v, %v", from, doc, err)
		}
	}
	err := (&evidenceFlags{token: token}).into(map[string]any{}, fresh(""), true)
	if !errors.Is(err, errs.Invalid) || strings.Contains(err.Error(), token) {
		t.Errorf("a typed token: %v", err)
	}
	v := fresh(url)
	if _, err := v.url("image", "-"); err != nil {
		t.Error(err)
	}
	for name, again := range map[string]error{
		"user data":    (&driveFlags{userData: "-"}).into(map[string]any{}, v),
		"config drive": (&driveFlags{drive: "-"}).into(map[string]any{}, v),
		"token":        (&evidenceFlags{token: "-"}).into(map[string]any{}, v, true),
	} {
		if !errors.Is(again, errs.Invalid) || !strings.Contains(again.Error(), "was read for --image already") {
			t.Errorf("%s: %v", name, again)
		}
	}
}
