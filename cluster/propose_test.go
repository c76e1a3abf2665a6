package cluster

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
)

// Every command says where it comes from: who asked, or else this peer.
func TestCommandNamesItsSource(t *testing.T) {
	c := &Cluster{creds: &membership{identity: &identity{ID: "p1"}}}
	for given, want := range map[string]string{"": "peer:p1", "192.0.2.1:4711": "192.0.2.1:4711"} {
		in := &api.Command{Meta: &api.Meta{Principal: "system", Source: given, Reason: "r", WallMs: 7}}
		raw, err := c.marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var out api.Command
		if err := proto.Unmarshal(raw, &out); err != nil {
			t.Fatal(err)
		}
		m := out.GetMeta()
		if m.GetSource() != want || m.GetPrincipal() != "system" || m.GetReason() != "r" || m.GetWallMs() != 7 {
			t.Errorf("source %q becomes %v", given, m)
		}
		if in.GetMeta().GetSource() != given {
			t.Errorf("the caller's command was changed")
		}
	}
}
