package journal

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/ironring/ironring/api"
)

func TestMerge(t *testing.T) {
	for _, c := range []struct {
		name              string
		mine, other, want *api.LiveFacts
	}{
		{"nothing is known", &api.LiveFacts{}, &api.LiveFacts{}, &api.LiveFacts{}},
		{
			"the boot was seen elsewhere", &api.LiveFacts{BmcContactMs: 5, BmcError: "mine"},
			&api.LiveFacts{BmcContactMs: 9, BmcError: "theirs", DhcpContactMs: 10, BootContactMs: 11, BootStage: "kernel", AgentContactMs: 12, AgentPeer: "p2", Waits: "theirs"},
			&api.LiveFacts{BmcContactMs: 5, BmcError: "mine", DhcpContactMs: 10, BootContactMs: 11, BootStage: "kernel", AgentContactMs: 12, AgentPeer: "p2"},
		},
		{
			"they saw an earlier boot", &api.LiveFacts{DhcpContactMs: 20, BootStage: "dhcp"},
			&api.LiveFacts{DhcpContactMs: 10, BootContactMs: 11, BootStage: "initramfs"},
			&api.LiveFacts{DhcpContactMs: 20, BootContactMs: 11, BootStage: "dhcp"},
		},
		{
			"the same moment", &api.LiveFacts{BootContactMs: 20, BootStage: "script"}, &api.LiveFacts{BootContactMs: 20, BootStage: "kernel"},
			&api.LiveFacts{BootContactMs: 20, BootStage: "kernel"},
		},
		{
			"an older stream and progress", &api.LiveFacts{AgentContactMs: 20, AgentPeer: "p1", Progress: &api.Progress{AtMs: 20, Percent: 50}},
			&api.LiveFacts{AgentContactMs: 10, AgentPeer: "p2", Progress: &api.Progress{AtMs: 10, Percent: 10}},
			&api.LiveFacts{AgentContactMs: 20, AgentPeer: "p1", Progress: &api.Progress{AtMs: 20, Percent: 50}},
		},
	} {
		Merge(c.mine, c.other)
		if d := cmp.Diff(c.want, c.mine, protocmp.Transform()); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}
