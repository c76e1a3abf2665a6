package bootpath

import (
	"strings"
	"testing"
)

func TestMedium(t *testing.T) {
	path := Medium("n", "0123")
	if path != "/media/n/0123.iso" {
		t.Errorf("%q", path)
	}
	if node, nonce := ParseMedium(strings.TrimPrefix(path, Media)); node != "n" || nonce != "0123" {
		t.Errorf("%q %q", node, nonce)
	}
	if node, nonce := ParseMedium("n"); node != "n" || nonce != "" {
		t.Errorf("%q %q", node, nonce)
	}
}

func TestValidToken(t *testing.T) {
	for s, want := range map[string]bool{
		strings.Repeat("a", 16): true, strings.Repeat("Z9_-", 32): true,
		"": false, strings.Repeat("a", 15): false, strings.Repeat("a", 129): false,
		"0123456789abcde/": false, "0123456789abcdef\n": false, "../../../../../..": false,
	} {
		if ValidToken(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}
