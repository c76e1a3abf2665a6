package pxe

import (
	"testing"
	"time"
)

func TestSolicitor(t *testing.T) {
	head := []byte{typeSolicit, 0, 0, 0, 0, 0, 0, 0}
	mac := []byte{1, 1, 0x52, 0x54, 0, 0, 0, 1}
	other := []byte{14, 1, 0, 0, 0, 0, 0, 0}
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"plain", append(head[:8:8], mac...), macDeploying},
		{"second option", append(append(head[:8:8], other...), mac...), macDeploying},
		{"no option", head, ""},
		{"cut", append(head[:8:8], mac[:7]...), ""},
		{"zero length", append(head[:8:8], 1, 0, 0, 0, 0, 0, 0, 0), ""},
		{"too long", append(head[:8:8], 1, 9, 0, 0, 0, 0, 0, 0), ""},
		{"advertisement", append([]byte{typeAdvert, 0, 0, 0, 0, 0, 0, 0}, mac...), ""},
		{"short", head[:4], ""},
	} {
		if got, ok := solicitor(c.b); got != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q, %v", c.name, got, ok)
		}
	}
}

func TestSolicitorsForget(t *testing.T) {
	now := time.Hour
	s := &solicitors{now: func() time.Duration { return now }, at: map[string]time.Duration{}}
	if s.recent(macDeploying) {
		t.Error("never seen, but recent")
	}
	s.saw(macDeploying)
	now += solicitWindow
	if !s.recent(macDeploying) {
		t.Error("forgotten too early")
	}
	if now++; s.recent(macDeploying) || len(s.at) != 0 {
		t.Error("not forgotten")
	}
	for i := range maxSolicitors * 2 {
		s.saw(string(rune(i)))
	}
	if len(s.at) > maxSolicitors {
		t.Errorf("%d are remembered", len(s.at))
	}
}

func FuzzSolicitor(f *testing.F) {
	f.Add([]byte{typeSolicit, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0x52, 0x54, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if mac, ok := solicitor(b); ok {
			if again, ok := ParseMAC(mac); !ok || again != mac {
				t.Errorf("%q", mac)
			}
		}
	})
}
