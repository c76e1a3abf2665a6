package redfish

import (
	"encoding/json"
	"testing"
)

// TestVendorOf: whoever a text names, the answer is always the same, also when
// it names two.
func TestVendorOf(t *testing.T) {
	for _, c := range []struct {
		name   string
		root   root
		maker  string // of the system
		vendor string
	}{
		{"nobody", root{}, "", ""},
		{"the root before the system", root{Vendor: "HPE"}, "Dell Inc.", hpe},
		{"the system", root{}, "Dell Inc.", dell},
		{"an unknown root", root{Vendor: "Contoso"}, "Lenovo", lenovo},
		{"a machine with bought firmware", root{Vendor: "Supermicro, BMC by American Megatrends"}, "", supermicro},
		{"the other way round", root{Vendor: "American Megatrends for Super Micro"}, "", supermicro},
		{"two who build machines", root{Vendor: "Lenovo, formerly Dell, OpenBMC"}, "", dell},
		{"OpenBMC on a Lenovo", root{Vendor: "OpenBMC"}, "Lenovo", openBMC},
		{"the product", root{Vendor: "Lenovo", Product: "AMI Redfish Server"}, "Lenovo", ami},
		{"an extension", root{Vendor: "Dell", Oem: map[string]json.RawMessage{"openbmc": nil}}, "", openBMC},
	} {
		for range 50 { // an order that changes would show
			if got := vendorOf(c.root, &system{Manufacturer: c.maker}); got != c.vendor {
				t.Fatalf("%s: %q, want %q", c.name, got, c.vendor)
			}
		}
	}
}
