package errs

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestKinds(t *testing.T) {
	for k := Internal; k <= Unreachable; k++ {
		if got := ParseKind(k.String()); got != k {
			t.Errorf("ParseKind(%q) = %v, want %v", k.String(), got, k)
		}
		err := fmt.Errorf("outer: %w", About(k, "n1", "inner: %w", io.EOF))
		if !errors.Is(err, k) || KindOf(err) != k {
			t.Errorf("%v is not found in %v", k, err)
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("%v hides its cause", err)
		}
		if SubjectOf(err) != "n1" {
			t.Errorf("SubjectOf(%v) = %q", err, SubjectOf(err))
		}
		if err.Error() != "outer: inner: EOF" {
			t.Errorf("text is %q", err)
		}
	}
	if KindOf(io.EOF) != Internal || ParseKind("no such kind") != Internal {
		t.Error("what is unknown must be Internal")
	}
}
