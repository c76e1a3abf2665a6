package cli

import (
	"errors"
	"testing"

	"github.com/ironring/ironring/internal/errs"
)

// A pattern on the console is one policy, and given by two flags that belong
// together.
func TestEvidenceFlags(t *testing.T) {
	for _, test := range []struct {
		flags evidenceFlags
		want  any // the policy; nil: refused
	}{
		{evidenceFlags{policy: "console", pattern: "login: *$"}, "console:login: *$"},
		{evidenceFlags{policy: "port:22"}, "port:22"},
		{evidenceFlags{policy: "console"}, nil},
		{evidenceFlags{pattern: "login:"}, nil},
		{evidenceFlags{policy: "port:22", pattern: "login:"}, nil},
	} {
		doc := map[string]any{}
		err := test.flags.into(doc, &values{}, true)
		if test.want == nil != errors.Is(err, errs.Invalid) || doc["evidence"] != test.want {
			t.Errorf("%+v: %v, %v", test.flags, doc, err)
		}
	}
}
