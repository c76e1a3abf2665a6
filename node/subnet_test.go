package node

import (
	"testing"

	"github.com/ironring/ironring/api"
)

func TestBMCSubnet(t *testing.T) {
	for _, c := range []struct {
		info  string
		facts []string
		want  string
	}{
		{`{"ipmi_address":"10.1.2.3"}`, nil, "10.1.2.0/24"},
		{`{"ipmi_address":"10.1.2.3:6230"}`, []string{"10.9.9.9"}, "10.1.2.0/24"},
		{`{"redfish_address":"https://10.1.2.3:8443/x"}`, nil, "10.1.2.0/24"},
		{`{"redfish_address":"https://[2001:db8:0:7::5]/"}`, nil, "2001:db8:0:7::/64"},
		{`{"ipmi_address":"[2001:db8::5]:623"}`, nil, "2001:db8::/64"},
		{`{"ipmi_address":"2001:db8::5"}`, nil, "2001:db8::/64"},
		{`{"ipmi_address":"::ffff:10.1.2.3"}`, nil, "10.1.2.0/24"},
		{`{"redfish_address":"https://bmc7.example"}`, []string{"fe80::1", "10.4.5.6"}, "10.4.5.0/24"},
		{`{"redfish_address":"https://bmc7.example"}`, nil, ""},
		{`{"ipmi_address":7}`, []string{"x"}, ""},
		{`{}`, nil, ""},
		{`not JSON`, nil, ""},
	} {
		n := &api.Node{DriverInfo: []byte(c.info), Bmc: &api.BmcFacts{BmcAddresses: c.facts}}
		if got := BMCSubnet(n); got != c.want {
			t.Errorf("%s %v: %q, want %q", c.info, c.facts, got, c.want)
		}
		if n.DriverRev = 7; len(c.facts) > 0 && BMCSubnet(n) == "10.4.5.0/24" {
			t.Errorf("%s: by what was known before the name changed", c.info)
		}
	}
}
