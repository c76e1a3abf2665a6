package cli

import "testing"

// Two spellings of one BMC are one; several systems of a chassis are not.
func TestSameBMC(t *testing.T) {
	type doc = map[string]any
	for _, c := range []struct {
		a, b doc
		same bool
	}{
		{doc{"redfish_address": "https://b/"}, doc{"redfish_address": "HTTPS://B:443"}, true},
		{doc{"redfish_address": "b", "redfish_system_id": "/redfish/v1/Systems/1"}, doc{"redfish_address": "b"}, true},
		{doc{"redfish_address": "b", "redfish_system_id": "/redfish/v1/Systems/1"}, doc{"redfish_address": "https://b", "redfish_system_id": "1"}, true},
		{doc{"redfish_address": "b", "redfish_system_id": "1"}, doc{"redfish_address": "b", "redfish_system_id": "2"}, false},
		{doc{"redfish_address": "b"}, doc{"redfish_address": "c"}, false},
		{doc{"ipmi_address": "b"}, doc{"ipmi_address": "b", "ipmi_port": 623}, true},
		{doc{"ipmi_address": "b"}, doc{"ipmi_address": "b", "ipmi_port": 6230}, false},
		{doc{"ipmi_address": "b"}, doc{"redfish_address": "https://b"}, true},
		{doc{}, doc{}, false},
		{doc{"redfish_system_id": "1"}, doc{"redfish_system_id": "1"}, false},
	} {
		if a, b := placeOf(c.a), placeOf(c.b); a.same(b) != c.same || b.same(a) != c.same {
			t.Errorf("%v and %v: same is %v", c.a, c.b, !c.same)
		}
	}
}
