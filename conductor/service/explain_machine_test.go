package service

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
)

// What is said of a machine that is kept on is what is done with it.
func TestMachineNotes(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	kept := &api.Node{
		Assigned: "p1", StateSinceTick: 60_000, Bmc: &api.BmcFacts{Serial: "S-17"},
		Boot: &api.Boot{Target: api.BootTarget_BOOT_RAMDISK},
	}
	with := func(change func(n *api.Node)) *api.Node {
		n := proto.CloneOf(kept)
		change(n)
		return n
	}
	busy := &api.Flow{Status: api.FlowStatus_FLOW_RUNNING}
	for name, c := range map[string]struct {
		n     *api.Node
		f     *api.Flow
		live  *api.LiveFacts
		ticks uint64
		want  string // "": no note
	}{
		"nothing to say":    {n: &api.Node{Bmc: &api.BmcFacts{}}},
		"on for a while":    {n: kept, ticks: 60_000 + 150_000, want: "is switched off in 7m30s, at about 12:07:30 UTC, if nothing comes"},
		"its flow has come": {n: kept, f: busy, ticks: 60_000},
		"due":               {n: kept, ticks: 60_000 + 600_000, want: "is about to be switched off"},
		"due, silent":       {n: kept, live: &api.LiveFacts{BmcError: "did not answer"}, ticks: 60_000 + 600_000, want: "the BMC does not let us: did not answer. It is tried again"},
		"in maintenance":    {n: with(func(n *api.Node) { n.Maintenance = true }), ticks: 60_000 + 900_000, want: "in maintenance no machine is switched off"},
		"no owner":          {n: with(func(n *api.Node) { n.Assigned = "" }), ticks: 60_000, want: "while no peer looks after the node"},
		"never verified":    {n: with(func(n *api.Node) { n.Bmc = nil }), ticks: 60_000, want: "was never verified"},
		"new driver_info":   {n: &api.Node{Bmc: &api.BmcFacts{Serial: "S-17"}, DriverRev: 3}, want: "it must show that it is still that of serial number S-17"},
		"a medium is left":  {n: &api.Node{Boot: &api.Boot{Medium: true}}, want: "boot medium may still be in the drive"},
	} {
		got := strings.Join(machineNotes(c.n, c.f, c.live, c.ticks, now), "; ")
		if !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
