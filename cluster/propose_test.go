package cluster

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/clock"
	"github.com/ironring/ironring/internal/errs"
)

// Every command says who asked, from where and why: what a client did not say
// is this peer. A reason is never made up, and cut when it is long.
func TestCommandNamesItsOrigin(t *testing.T) {
	c := &Cluster{creds: &membership{identity: &identity{ID: "p1"}}, clock: clock.System{}}
	sent := func(in *api.Meta) *api.Meta {
		t.Helper()
		was := proto.CloneOf(in)
		raw, err := c.marshal(&api.Command{Meta: in})
		if err != nil {
			t.Fatal(err)
		}
		var out api.Command
		if err := proto.Unmarshal(raw, &out); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(in, was) {
			t.Errorf("the caller's command was changed")
		}
		return out.GetMeta()
	}
	for given, want := range map[string]string{"": "peer:p1", "192.0.2.1:4711": "192.0.2.1:4711"} {
		m := sent(&api.Meta{Principal: "system", Source: given, Reason: "r", WallMs: 7})
		if m.GetSource() != want || m.GetPrincipal() != "system" || m.GetReason() != "r" || m.GetWallMs() != 7 {
			t.Errorf("source %q becomes %v", given, m)
		}
	}
	if m := sent(&api.Meta{Reason: "r"}); m.GetPrincipal() != "peer:p1" || m.GetSource() != "peer:p1" || m.GetWallMs() == 0 {
		t.Errorf("a peer's own command: %v", m)
	}
	if m := sent(&api.Meta{Reason: "deploy failed: \xff" + strings.Repeat("x", 5000)}); len(m.GetReason()) > 1024 {
		t.Errorf("a reason of %d bytes", len(m.GetReason()))
	}
	for _, cmd := range []*api.Command{{}, {Meta: &api.Meta{Principal: "client:a", Source: "unix"}}} {
		if _, err := c.marshal(cmd); !errors.Is(err, errs.Invalid) {
			t.Errorf("%v without a reason: %v", cmd, err)
		}
	}
}
