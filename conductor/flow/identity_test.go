package flow

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

func TestSameMachine(t *testing.T) {
	const (
		uuid    = "4c4c4544-0044-4710-8051-b4c04f4d3132"
		swapped = "44454c4c-4400-1047-8051-b4c04f4d3132"
		other   = "4c4c4544-0044-4710-8051-ffffffffffff"
		dummy   = "03000200-0400-0500-0006-000700080009"
	)
	inventory := func(change func(*agentproto.Inventory)) *agentproto.Inventory {
		i := &agentproto.Inventory{
			SystemUUID: uuid, Serial: "ABC123", Interfaces: []agentproto.Interface{{MAC: "52:54:00:00:00:99"}, {MAC: "52-54-00-00-00-01"}},
			BMC: agentproto.BMC{Addresses: []string{"10.0.0.7"}, MACs: []string{"52:54:00:00:00:aa"}},
		}
		if change != nil {
			change(i)
		}
		return i
	}
	ports := []*api.Port{{Address: "52:54:00:00:00:01"}}
	whole := &api.BmcFacts{SystemUuid: uuid, Serial: "abc123 ", BmcAddresses: []string{"10.0.0.7"}, BmcMacs: []string{"52:54:00:00:00:AA"}}
	nothing := func(i *agentproto.Inventory) { i.SystemUUID, i.Serial, i.BMC = "", "", agentproto.BMC{} }
	for _, test := range []struct {
		name  string
		inv   *agentproto.Inventory
		facts *api.BmcFacts
		known *api.BmcFacts // at verification
		props string
		proof string // "" for a refusal
		says  string // in the refusal
	}{
		{"all agree", inventory(nil), whole, whole, "", "bmc_address mac serial uuid", ""},
		{"the UUID alone", inventory(nil), &api.BmcFacts{SystemUuid: uuid}, nil, "", "mac uuid", ""},
		{"the UUID in the other byte order", inventory(nil), &api.BmcFacts{SystemUuid: swapped}, nil, "", "mac uuid", ""},
		{"the UUID in a reading of IPMI", inventory(nil), &api.BmcFacts{SystemUuid: other, SystemUuids: []string{other, uuid}}, nil, "", "mac uuid", ""},
		{"the serial number alone", inventory(nil), &api.BmcFacts{Serial: "ABC123"}, nil, "", "mac serial", ""},
		{"the BMC's address alone", inventory(nil), &api.BmcFacts{BmcAddresses: []string{"::ffff:10.0.0.7"}}, nil, "", "bmc_address mac", ""},
		{"known at verification only", inventory(nil), &api.BmcFacts{}, whole, "", "bmc_address mac serial uuid", ""},
		{"nothing but a MAC", inventory(nothing), whole, whole, "", "", "nothing ties them together"},
		{"nothing but a MAC, accepted", inventory(nothing), whole, whole, `{"identity_check":"mac-only"}`, "mac", ""},
		{"mac-only does not hide a mismatch", inventory(nil), &api.BmcFacts{SystemUuid: other}, nil, `{"identity_check":"mac-only"}`, "", "UUID"},
		{"no known MAC", inventory(func(i *agentproto.Inventory) { i.Interfaces = i.Interfaces[:1] }), whole, whole, "", "", "MAC addresses"},
		{"no interface", inventory(func(i *agentproto.Inventory) { i.Interfaces = nil }), whole, whole, "", "", "MAC addresses"},
		{"swapped BMCs", inventory(nil), &api.BmcFacts{SystemUuid: other, Serial: "XYZ"}, nil, "", "", "UUID"},
		{"another serial number", inventory(nil), &api.BmcFacts{Serial: "XYZ999"}, nil, "", "", "serial number"},
		{"another BMC address", inventory(nil), &api.BmcFacts{BmcAddresses: []string{"10.0.0.8"}}, nil, "", "", "own BMC"},
		{"another BMC MAC", inventory(nil), &api.BmcFacts{SystemUuid: uuid, BmcMacs: []string{"52:54:00:00:00:bb"}}, nil, "", "", "own BMC"},
		{"another BMC than was verified", inventory(nil), whole, &api.BmcFacts{SystemUuid: other}, "", "", "UUID"},
		{"a UUID that nobody filled in", inventory(func(i *agentproto.Inventory) { nothing(i); i.SystemUUID = dummy }), &api.BmcFacts{SystemUuid: dummy}, nil, "", "", "nothing ties"},
		{"a serial number that nobody filled in", inventory(func(i *agentproto.Inventory) { nothing(i); i.Serial = "To Be Filled By O.E.M." }),
			&api.BmcFacts{Serial: "To be filled by O.E.M."}, nil, "", "", "nothing ties"},
		{"a dummy on one side is no mismatch", inventory(func(i *agentproto.Inventory) { i.Serial = "Default string" }), whole, nil, "", "bmc_address mac uuid", ""},
		{"link-local addresses name no machine", inventory(func(i *agentproto.Inventory) { nothing(i); i.BMC.Addresses = []string{"fe80::1%eth0", "169.254.0.17"} }),
			&api.BmcFacts{BmcAddresses: []string{"fe80::1", "169.254.0.17"}}, nil, "", "", "nothing ties"},
		{"a BMC that cannot be asked in-band", inventory(func(i *agentproto.Inventory) {
			i.BMC = agentproto.BMC{Addresses: []string{"0.0.0.0"}, MACs: []string{"00:00:00:00:00:00"}}
		}), whole, nil, "", "mac serial uuid", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := &api.Node{Id: "n1", Bmc: test.known, Properties: []byte(test.props)}
			proof, err := sameMachine(test.inv, n, test.facts, ports)
			if test.proof != "" {
				if err != nil || !slices.Equal(proof, strings.Fields(test.proof)) {
					t.Fatalf("%v, %v; want %s", proof, err, test.proof)
				}
				return
			}
			if !errors.Is(err, errs.Denied) || !strings.HasPrefix(err.Error(), "identity mismatch") ||
				!strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "nothing was written") {
				t.Errorf("%v, %v; want a refusal about %q", proof, err, test.says)
			}
		})
	}
}
