package errs

import (
	"strings"
	"testing"
)

func TestClip(t *testing.T) {
	long := strings.Repeat("x", 63)
	for s, want := range map[string]string{"": "", "a": "a", long + "y": long + "y", long + "yz": long + "y...", long + "\u00e9": long + "..."} {
		if got := Clip(s); got != want {
			t.Errorf("%q: %q", s, got)
		}
	}
}
