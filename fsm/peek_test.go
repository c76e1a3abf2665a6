package fsm

import (
	"bytes"
	"errors"
	"testing"

	"github.com/ironring/ironring/internal/errs"
)

func TestPeek(t *testing.T) {
	s := populated(t).s
	whole := snapshotOf(t, s)
	if id, err := Peek(bytes.NewReader(whole)); err != nil || id != s.View().Globals().GetClusterId() || id == "" {
		t.Errorf("%q, %v", id, err)
	}
	newer := bytes.Clone(whole)
	newer[len(snapshotMagic)+3] = snapshotVersion + 1
	for name, c := range map[string]struct {
		b    []byte
		kind errs.Kind
	}{
		"newer":     {newer, errs.Unsupported},
		"empty":     {nil, errs.Invalid},
		"truncated": {whole[:20], errs.Invalid},
		"foreign":   {bytes.Repeat([]byte("x"), 100), errs.Invalid},
	} {
		if _, err := Peek(bytes.NewReader(c.b)); !errors.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
