package node

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/ironring/ironring/api"
)

const (
	uuidA       = "4c4c4544-0035-4d10-8032-b4c04f4a3332"
	uuidASMBIOS = "44454C4C-3500-104D-8032-B4C04F4A3332" // the same in SMBIOS's order
	uuidAIPMI   = "32334a4f-c0b4-3280-104d-350044454c4c" // and as IPMI sends it
	uuidB       = "4c4c4544-0036-4d10-8032-b4c04f4a3332"
)

func TestCompare(t *testing.T) {
	facts := func(uuid, serial, mac, key string) *api.BmcFacts {
		f := &api.BmcFacts{SystemUuid: uuid, Serial: serial, BmcKey: key}
		if mac != "" {
			f.BmcMacs = []string{mac}
		}
		return f
	}
	for name, c := range map[string]struct {
		is, was *api.BmcFacts
		want    Likeness
	}{
		"one UUID":                         {facts(uuidA, "", "", "x"), facts(uuidA, "", "", "y"), SameMachine},
		"in SMBIOS's order":                {facts(uuidA, "", "", ""), facts(uuidASMBIOS, "", "", ""), SameMachine},
		"in IPMI's order":                  {facts(uuidAIPMI, "", "", ""), facts(uuidASMBIOS, "", "", ""), SameMachine},
		"one of the readings":              {&api.BmcFacts{SystemUuid: uuidB, SystemUuids: []string{uuidB, uuidA}}, facts(uuidA, "", "", ""), SameMachine},
		"two UUIDs, one serial, one BMC":   {facts(uuidA, "S-17", "", "x"), facts(uuidB, "S-17", "", "x"), AnotherMachine},
		"one UUID, serials of two drivers": {facts(uuidA, "S-17", "", ""), facts(uuidA, "BOARD-9", "", ""), SameMachine},
		"only one side has a UUID":         {facts(uuidA, "S-17", "", ""), facts("", " s-17 ", "", ""), SameMachine},
		"two serials":                      {facts("", "S-17", "", "x"), facts("", "S-18", "", "x"), AnotherMachine},
		"what many machines have":          {facts("00000000-0000-0000-0000-000000000000", "To be filled by O.E.M.", "", "x"), facts("00000000-0000-0000-0000-000000000000", "To be filled by O.E.M.", "", "y"), Untold},
		"one MAC":                          {facts("", "", "52:54:00:00:00:01", "x"), facts("", "", "52-54-00-00-00-01", "y"), SameMachine},
		"two MACs":                         {facts("", "", "52:54:00:00:00:01", "x"), facts("", "", "52:54:00:00:00:02", "x"), AnotherMachine},
		"only the address":                 {facts("", "", "", "x"), facts("", "", "", "x"), SameMachine},
		"less than before":                 {facts("", "", "", "x"), facts(uuidA, "S-17", "", "x"), Untold},
		"another mark":                     {facts("", "S-17", "", "x"), facts(uuidA, "", "", "x"), Untold},
		"only a MAC, and nothing":          {facts("", "", "52:54:00:00:00:01", "x"), facts("", "", "", "x"), Untold},
		"nobody's MAC, and nothing":        {facts("", "", "00:00:00:00:00:00", "x"), facts("", "", "", "x"), SameMachine},
		"MACs that many BMCs have":         {facts("", "", "ac:1f:6b:00:00:00", "x"), facts("", "", "ac:1f:6b:00:00:00", "y"), Untold},
		"two systems of one BMC":           {facts("", "", "52:54:00:00:00:01", "h 443 /1"), facts("", "", "52:54:00:00:00:01", "h 443 /2"), Untold},
		"one system, two drivers":          {facts("", "", "52:54:00:00:00:01", "h 443 /1"), facts("", "", "52:54:00:00:00:01", "h 623"), SameMachine},
		"another address":                  {facts("", "", "", "x"), facts("", "", "", "y"), Untold},
		"nothing at all":                   {facts("", "", "", ""), nil, Untold},
	} {
		if got := Compare(c.is, c.was); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if got := Compare(c.was, c.is); got != c.want {
			t.Errorf("%s, the other way round: %v, want %v", name, got, c.want)
		}
	}
}

// What Machine names, IsMachine knows, and so it is the same machine.
func TestMachineNames(t *testing.T) {
	facts := rapid.Custom(func(t *rapid.T) *api.BmcFacts {
		return &api.BmcFacts{
			SystemUuid: rapid.SampledFrom([]string{"", uuidA, uuidASMBIOS, uuidB, "00000000-0000-0000-0000-000000000000"}).Draw(t, "uuid"),
			Serial:     rapid.SampledFrom([]string{"", "S-17", " s-17", "S-18", "None"}).Draw(t, "serial"),
			BmcMacs:    rapid.SliceOfN(rapid.SampledFrom([]string{"52:54:00:00:00:01", "52-54-00-00-00-01", "52:54:00:00:00:02", "00:00:00:00:00:00"}), 0, 2).Draw(t, "macs"),
			BmcKey:     rapid.SampledFrom([]string{"h 443 /1", "i 443 /1"}).Draw(t, "key"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := facts.Draw(t, "a"), facts.Draw(t, "b")
		_, name := Machine(a)
		if !IsMachine(a, name) {
			t.Errorf("%v is not what it is called: %q", a, name)
		}
		if IsMachine(b, name) && Compare(a, b) == AnotherMachine {
			t.Errorf("%q names %v and %v, which differ", name, a, b)
		}
		if Compare(a, b) != Compare(b, a) || Compare(a, a) != SameMachine {
			t.Errorf("%v, %v", Compare(a, b), Compare(b, a))
		}
		overlap := slices.ContainsFunc(Claims(a), func(c string) bool { return slices.Contains(Claims(b), c) })
		if Compare(a, b) == SameMachine && !overlap && a.GetBmcKey() != b.GetBmcKey() {
			t.Errorf("%v is not found by the marks of %v", a, b)
		}
		richer := Richer(a, b)
		if Compare(a, b) == SameMachine && (Compare(richer, a) != SameMachine || Compare(richer, b) != SameMachine) {
			t.Errorf("%v with what %v told is another machine: %v", a, b, richer)
		}
		if len(Claims(richer)) < len(Claims(a)) || len(Claims(Richer(&api.BmcFacts{}, b))) != len(Claims(b)) {
			t.Errorf("%v with what %v told has lost something: %v", a, b, richer)
		}
		if IsMachine(a, "") {
			t.Error("no name is a name")
		}
	})
}

func TestVerified(t *testing.T) {
	for name, c := range map[string]struct {
		n    *api.Node
		want bool
	}{
		"never":           {&api.Node{}, false},
		"verified":        {&api.Node{Bmc: &api.BmcFacts{}}, true},
		"changed since":   {&api.Node{Bmc: &api.BmcFacts{}, DriverRev: 4}, false},
		"verified anew":   {&api.Node{Bmc: &api.BmcFacts{DriverRev: 4}, DriverRev: 4}, true},
		"before that":     {&api.Node{Bmc: &api.BmcFacts{DriverRev: 4}, DriverRev: 9}, false},
		"changed, no BMC": {&api.Node{DriverRev: 4}, false},
	} {
		if Verified(c.n) != c.want {
			t.Errorf("%s: %v", name, !c.want)
		}
	}
}
