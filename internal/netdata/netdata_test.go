package netdata

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ironring/ironring/internal/errs"
)

const whole = `{
 "links": [
  {"id": "vlan7", "type": "vlan", "vlan_link": "bond0", "vlan_id": 7, "vlan_mac_address": "52:54:00:AA:00:01"},
  {"id": "bond0", "type": "bond", "bond_links": ["a", "b"], "bond_mode": "802.3ad", "bond_lacp_rate": "fast", "mtu": 9000},
  {"id": "a", "type": "phy", "ethernet_mac_address": "52:54:00:AA:00:01"},
  {"id": "b", "type": "phy", "ethernet_mac_address": "52-54-00-aa-00-02", "mtu": null}
 ],
 "networks": [
  {"id": "n4", "type": "ipv4", "link": "vlan7", "ip_address": "192.0.2.10", "netmask": "255.255.255.0", "gateway": "192.0.2.1",
   "routes": [{"network": "198.51.100.0", "netmask": "255.255.255.0", "gateway": "192.0.2.2"}], "network_id": "x"},
  {"id": "n6", "type": "ipv6", "link": "vlan7", "ip_address": "2001:db8::10/64", "gateway": "fe80::1"}
 ],
 "services": [{"type": "dns", "address": "192.0.2.53"}, {"type": "dns", "address": "2001:db8::53"}, {"type": "ntp", "address": "ntp.example.org"}]
}`

func TestParse(t *testing.T) {
	d, err := Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range d.Links {
		got = append(got, fmt.Sprintf("%s %s mtu %d vlan %d on %s members %v %s %v %v", l.ID, l.MAC, l.MTU, l.VLAN, l.Parent, l.Members, l.BondMode, l.Addresses, l.Routes))
	}
	want := []string{
		"a 52:54:00:aa:00:01 mtu 0 vlan 0 on  members []  [] []",
		"b 52:54:00:aa:00:02 mtu 0 vlan 0 on  members []  [] []",
		"bond0  mtu 9000 vlan 0 on  members [a b] 802.3ad [] []",
		"vlan7 52:54:00:aa:00:01 mtu 0 vlan 7 on bond0 members []  [192.0.2.10/24 2001:db8::10/64] [{198.51.100.0/24 192.0.2.2} {0.0.0.0/0 192.0.2.1} {::/0 fe80::1}]",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if fmt.Sprint(d.DNS, d.NTP) != "[192.0.2.53 2001:db8::53] [ntp.example.org]" {
		t.Errorf("services %v %v", d.DNS, d.NTP)
	}
	if o := d.Links[2].BondOpts; o["lacp_rate"] != "fast" || o["miimon"] != "100" {
		t.Errorf("bond options %v", o)
	}
}

func TestRefused(t *testing.T) {
	const nic = `{"id":"a","type":"phy","ethernet_mac_address":"52:54:00:00:00:01"}`
	with := func(links, networks string) string {
		return `{"links":[` + links + `],"networks":[` + networks + `]}`
	}
	ok := `{"id":"n","type":"ipv4","link":"a","ip_address":"192.0.2.1/24"}`
	if _, err := Parse([]byte(with(nic, ok))); err != nil {
		t.Fatal(err)
	}
	for name, doc := range map[string]string{
		"nothing":               `{}`,
		"no JSON":               `{`,
		"no address":            with(nic, ``),
		"link twice":            with(nic+","+nic, ok),
		"no MAC":                with(`{"id":"a","type":"phy"}`, ok),
		"group MAC":             with(`{"id":"a","type":"phy","ethernet_mac_address":"01:00:00:00:00:01"}`, ok),
		"unknown type":          with(`{"id":"a","type":"infiniband","ethernet_mac_address":"52:54:00:00:00:01"}`, ok),
		"VLAN 0":                with(nic+`,{"id":"v","type":"vlan","vlan_link":"a","vlan_id":0}`, ok),
		"VLAN 4095":             with(nic+`,{"id":"v","type":"vlan","vlan_link":"a","vlan_id":4095}`, ok),
		"VLAN on nothing":       with(nic+`,{"id":"v","type":"vlan","vlan_link":"x","vlan_id":5}`, ok),
		"VLAN on VLAN":          with(nic+`,{"id":"v","type":"vlan","vlan_link":"a","vlan_id":5},{"id":"w","type":"vlan","vlan_link":"v","vlan_id":6}`, ok),
		"VLAN on itself":        with(nic+`,{"id":"v","type":"vlan","vlan_link":"v","vlan_id":5}`, ok),
		"empty bond":            with(nic+`,{"id":"b","type":"bond","bond_links":[]}`, ok),
		"bond of nothing":       with(nic+`,{"id":"b","type":"bond","bond_links":["x"]}`, ok),
		"bond of itself":        with(nic+`,{"id":"b","type":"bond","bond_links":["b"]}`, ok),
		"member of two":         with(nic+`,{"id":"b","type":"bond","bond_links":["a"]},{"id":"c","type":"bond","bond_links":["a"]}`, ok),
		"bond mode":             with(nic+`,{"id":"b","type":"bond","bond_links":["a"],"bond_mode":"fast"}`, ok),
		"tiny mtu":              with(`{"id":"a","type":"phy","ethernet_mac_address":"52:54:00:00:00:01","mtu":100}`, ok),
		"network on no link":    with(nic, `{"type":"ipv4","link":"x","ip_address":"192.0.2.1/24"}`),
		"family":                with(nic, `{"type":"ipv6","link":"a","ip_address":"192.0.2.1/24"}`),
		"no mask":               with(nic, `{"type":"ipv4","link":"a","ip_address":"192.0.2.1"}`),
		"mask with holes":       with(nic, `{"type":"ipv4","link":"a","ip_address":"192.0.2.1","netmask":"255.0.255.0"}`),
		"mask of the other":     with(nic, `{"type":"ipv6","link":"a","ip_address":"2001:db8::1","netmask":"255.255.255.0"}`),
		"prefix of 33":          with(nic, `{"type":"ipv4","link":"a","ip_address":"192.0.2.1","netmask":"33"}`),
		"multicast":             with(nic, `{"type":"ipv4","link":"a","ip_address":"224.0.0.1/24"}`),
		"gateway elsewhere":     with(nic, `{"type":"ipv4","link":"a","ip_address":"192.0.2.1/24","gateway":"198.51.100.1"}`),
		"gateway of the other":  with(nic, `{"type":"ipv4","link":"a","ip_address":"192.0.2.1/24","gateway":"fe80::1"}`),
		"route without gateway": with(nic, `{"type":"ipv4","link":"a","ip_address":"192.0.2.1/24","routes":[{"network":"0.0.0.0/0"}]}`),
		"too large":             `{"links":["` + strings.Repeat("x", MaxBytes) + `"]}`,
	} {
		if _, err := Parse([]byte(doc)); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOfNode(t *testing.T) {
	for doc, want := range map[string]string{``: ``, `{}`: ``, `{"network_data":null}`: ``, `{"network_data":` + whole + `}`: whole} {
		if got, err := OfNode([]byte(doc)); err != nil || string(got) != want {
			t.Errorf("%.30s: %.30s, %v", doc, got, err)
		}
	}
	if _, err := OfNode([]byte(`{"network_data":{}}`)); !errors.Is(err, errs.Invalid) {
		t.Errorf("empty: %v", err)
	}
}

// Whatever comes in, what comes out can be applied in order.
func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(`{"links":[{"id":"a","type":"vlan","vlan_link":"a","vlan_id":"7"}]}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		d, err := Parse(doc)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, l := range d.Links {
			if seen[l.ID] || l.Type == VLAN && !seen[l.Parent] || l.Type == Physical && l.MAC == "" {
				t.Fatalf("%+v", d)
			}
			for _, m := range l.Members {
				if !seen[m] {
					t.Fatalf("%s stands on %s: %+v", l.ID, m, d)
				}
			}
			seen[l.ID] = true
		}
	})
}
