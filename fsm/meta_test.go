package fsm

import (
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// Every command carries principal, source and reason: one that lacks any of
// them is refused, whatever it would do, and the failure names the field.
func TestCommandWithoutMetaIsRefused(t *testing.T) {
	f := newFixture(t)
	for field, meta := range map[string]*api.Meta{
		"meta.principal":  {Source: "unix", Reason: "test"},
		"meta.source":     {Principal: "client:a", Reason: "test"},
		"meta.reason":     {Principal: "client:a", Source: "unix"},
		"meta.request_id": {Principal: "client:a", Source: "unix", Reason: "test", RequestId: strings.Repeat("r", maxWho+1)},
	} {
		res := f.command(meta, nodeCreate(nodeID(1), "a"))
		if res.GetFailure().GetKind() != errs.Invalid.String() || res.GetFailure().GetSubject() != field {
			t.Errorf("%s: %v", field, res)
		}
	}
	if res := f.command(&api.Meta{}, tick(1, 1)); res.GetFailure() == nil {
		t.Error("a command of nobody was accepted")
	}
	if res := f.command(&api.Meta{Principal: "client:a", Source: "unix", Reason: "test"}, nodeCreate(nodeID(1), "a")); res.GetFailure() != nil {
		t.Errorf("a whole one: %v", res)
	}
}

// What CompleteMeta gives is accepted if there was a reason, says nothing else
// than it was told, and leaves its argument alone.
func TestCompleteMeta(t *testing.T) {
	text := rapid.OneOf(rapid.Just(""), rapid.Just("client:a"), rapid.Just("192.0.2.1:4711"))
	reason := rapid.Custom(func(t *rapid.T) string {
		return strings.Repeat(string(rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bytes")), rapid.IntRange(0, 60).Draw(t, "times"))
	})
	rapid.Check(t, func(t *rapid.T) {
		in := &api.Meta{Principal: text.Draw(t, "principal"), Source: text.Draw(t, "source"), Reason: reason.Draw(t, "reason"), WallMs: rapid.Int64Range(0, 1).Draw(t, "wall")}
		was := proto.CloneOf(in)
		out := CompleteMeta(in, "p1", 7)
		if !proto.Equal(in, was) {
			t.Fatalf("the argument was changed: %v", in)
		}
		for _, f := range [][3]string{{in.GetPrincipal(), out.GetPrincipal(), "peer:p1"}, {in.GetSource(), out.GetSource(), "peer:p1"}} {
			if f[1] != f[0] && (f[0] != "" || f[1] != f[2]) {
				t.Fatalf("%q became %q", f[0], f[1])
			}
		}
		if out.GetWallMs() == 0 || !utf8.ValidString(out.GetReason()) {
			t.Fatalf("incomplete: %v", out)
		}
		if err := checkMeta(out); (err != nil) != (out.GetReason() == "") {
			t.Fatalf("%v: %v", out, err)
		}
	})
	if m := (&api.Meta{Principal: "a", Source: "b", Reason: "c", WallMs: 1}); CompleteMeta(m, "p1", 7) != m {
		t.Error("a whole meta was copied")
	}
	if m := CompleteMeta(nil, "p1", 7); m.GetPrincipal() != "peer:p1" || m.GetReason() != "" {
		t.Errorf("of nothing: %v", m)
	}
}
