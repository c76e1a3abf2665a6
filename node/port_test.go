package node

import (
	"net"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The digits are read as package net reads those of 48-bit addresses.
func TestParseMAC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`[0-9a-fA-F]{2}([:.-]?[0-9a-fA-Fg]{2}){4,7}`).Draw(t, "s")
		want, err := net.ParseMAC(s)
		got, ok := parseMAC(s)
		if ok != (err == nil && len(want) == 6) || (ok && string(got[:]) != string(want)) {
			t.Fatalf("%q: %x %v, net says %v %v", s, got, ok, want, err)
		}
	})
	for _, s := range []string{"52:54:00:ab:cd:01", "52-54-00-AB-CD-01", "5254.00ab.cd01", "525400abcd01"} {
		if hw, ok := parseMAC(s); !ok || string(hw[:]) != "\x52\x54\x00\xab\xcd\x01" {
			t.Errorf("%q: %x %v", s, hw, ok)
		}
	}
	for _, s := range []string{"", "52:54:00:ab:cd", "52.54.00.ab.cd.01", "5254:00ab:cd01", strings.Repeat("é", 9), "52:54-00:ab:cd:01"} {
		if _, ok := parseMAC(s); ok {
			t.Errorf("%q passes", s)
		}
	}
}
