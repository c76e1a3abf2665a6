package node

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

const someID = "b5c0e2a4-7d1f-4a43-9a57-0c6f3a2d1e00"

func TestCheckSpec(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		why   string
		spoil func(*api.Node)
		field string // "" when it stays valid
	}{
		{"as it is", func(n *api.Node) {}, ""},
		{"no name", func(n *api.Node) { n.Name = "" }, ""},
		{"name of metal3", func(n *api.Node) { n.Name = "ns~machine.1_x-y" }, ""},
		{"longest name", func(n *api.Node) { n.Name = long(255) }, ""},
		{"name too long", func(n *api.Node) { n.Name = long(256) }, "name"},
		{"name with a slash", func(n *api.Node) { n.Name = "a/b" }, "name"},
		{"name with a newline", func(n *api.Node) { n.Name = "a\n" }, "name"},
		{"name outside ASCII", func(n *api.Node) { n.Name = "é" }, "name"},
		{"name is a UUID", func(n *api.Node) { n.Name = strings.ToUpper(someID) }, "name"},
		{"name is a UUID without dashes", func(n *api.Node) { n.Name = strings.ReplaceAll(someID, "-", "") }, "name"},
		{"reserved name", func(n *api.Node) { n.Name = "Detail" }, "name"},
		{"dots", func(n *api.Node) { n.Name = ".." }, "name"},
		{"id in upper case", func(n *api.Node) { n.Id = strings.ToUpper(someID) }, "id"},
		{"no id", func(n *api.Node) { n.Id = "" }, "id"},
		{"id with a dash too many", func(n *api.Node) { n.Id = "-" + someID[1:] }, "id"},
		{"no driver", func(n *api.Node) { n.Driver = "" }, "driver"},
		{"driver in upper case", func(n *api.Node) { n.Driver = "IPMI" }, "driver"},
		{"group in upper case", func(n *api.Node) { n.ConductorGroup = "Rack1" }, "conductor_group"},
		{"group with a space", func(n *api.Node) { n.ConductorGroup = "rack 1" }, "conductor_group"},
		{"no documents", func(n *api.Node) { n.DriverInfo, n.Extra = nil, nil }, ""},
		{"document is an array", func(n *api.Node) { n.Properties = []byte("[]") }, "properties"},
		{"document is malformed", func(n *api.Node) { n.DriverInfo = []byte("{") }, "driver_info"},
		{"document is too big", func(n *api.Node) { n.Extra = []byte(`{"a":"` + long(MaxDocument) + `"}`) }, "extra"},
		{"document is too deep", func(n *api.Node) {
			n.InstanceInfo = []byte(`{"a":` + strings.Repeat("[", 25) + strings.Repeat("]", 25) + "}")
		}, "instance_info"},
		{"longest description", func(n *api.Node) { n.Description = long(4096) }, ""},
		{"description too long", func(n *api.Node) { n.Description = long(4097) }, "description"},
		{"description with an escape", func(n *api.Node) { n.Description = "\x1b[2J" }, "description"},
		{"description with lines", func(n *api.Node) { n.Description = "a\n\tb" }, ""},
		{"reason without maintenance", func(n *api.Node) { n.MaintenanceReason = "fan" }, "maintenance_reason"},
		{"class too long", func(n *api.Node) { n.ResourceClass = long(81) }, "resource_class"},
	} {
		n := &api.Node{Id: someID, Name: "rack1-7", Driver: "ipmi", DriverInfo: []byte(`{"ipmi_address":"10.0.0.1"}`), Extra: []byte("{}")}
		c.spoil(n)
		err := CheckSpec(n)
		if c.field == "" && err != nil {
			t.Errorf("%s: %v", c.why, err)
		}
		if c.field != "" && (!errors.Is(err, errs.Invalid) || errs.SubjectOf(err) != c.field || len(err.Error()) > 300) {
			t.Errorf("%s: %v; want an error about %s", c.why, err, c.field)
		}
	}
}

func TestNormalizeSpec(t *testing.T) {
	n := &api.Node{Id: someID, Driver: "fake", ConductorGroup: "Rack1", Properties: []byte(` { "b": 1, "a": 2 } `)}
	if err := NormalizeSpec(n); err != nil {
		t.Fatal(err)
	}
	if n.ConductorGroup != "rack1" || string(n.Properties) != `{"a":2,"b":1}` || string(n.Extra) != "{}" {
		t.Errorf("%v", n)
	}
	again := proto.CloneOf(n)
	if err := NormalizeSpec(again); err != nil || !proto.Equal(n, again) {
		t.Errorf("not idempotent: %v, %v", again, err)
	}
	if err := CheckSpec(n); err != nil {
		t.Error(err)
	}
	if err := NormalizeSpec(&api.Node{Extra: []byte("1")}); errs.SubjectOf(err) != "extra" {
		t.Errorf("%v", err)
	}
}

// A valid name can stand in a path and is never taken for an id.
func TestValidNameLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-fA-F0-9._~/ -]{0,40}`).Draw(t, "name")
		if ValidName(name) == nil && (ValidID(strings.ToLower(name)) || strings.ContainsAny(name, "/ ") || name == "") {
			t.Fatalf("%q is a name", name)
		}
	})
}

func TestNormalizeMAC(t *testing.T) {
	for in, want := range map[string]string{
		"52:54:00:AB:cd:01":       "52:54:00:ab:cd:01",
		"52-54-00-AB-CD-01":       "52:54:00:ab:cd:01",
		"5254.00ab.cd01":          "52:54:00:ab:cd:01",
		" 52:54:00:ab:cd:01\n":    "52:54:00:ab:cd:01",
		"01:00:5e:00:00:01":       "",
		"ff:ff:ff:ff:ff:ff":       "",
		"00:00:00:00:00:00":       "",
		"52:54:00:ab:cd":          "",
		"52:54:00:ab:cd:01:02:03": "",
		"":                        "",
		"525400abcd01":            "52:54:00:ab:cd:01",
	} {
		got, err := NormalizeMAC(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("NormalizeMAC(%q) = %q, %v", in, got, err)
		}
	}
	if !ValidMAC("52:54:00:ab:cd:01") || ValidMAC("52:54:00:AB:cd:01") {
		t.Error("ValidMAC")
	}
}

func TestCheckPort(t *testing.T) {
	good := &api.Port{Id: someID, NodeId: someID, Address: "52-54-00-AB-CD-01", PhysicalNetwork: "rack.1"}
	if err := CheckPort(good); errs.SubjectOf(err) != "address" {
		t.Errorf("not normalised: %v", err)
	}
	if err := NormalizePort(good); err != nil {
		t.Fatal(err)
	}
	if err := CheckPort(good); err != nil {
		t.Error(err)
	}
	for field, spoil := range map[string]func(*api.Port){
		"id":               func(p *api.Port) { p.Id = "x" },
		"node_id":          func(p *api.Port) { p.NodeId = "" },
		"address":          func(p *api.Port) { p.Address = "" },
		"physical_network": func(p *api.Port) { p.PhysicalNetwork = "a b" },
		"extra":            func(p *api.Port) { p.Extra = []byte("[]") },
	} {
		p := proto.CloneOf(good)
		spoil(p)
		if err := CheckPort(p); !errors.Is(err, errs.Invalid) || errs.SubjectOf(err) != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}
