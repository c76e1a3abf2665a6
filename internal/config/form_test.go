package config

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/ironring/ironring/internal/errs"
)

const formFile = `
data_dir: /d
cluster_id: rack-1
join: [p1.example.org, "p2:9999", 10.0.0.3, "2001:db8::4", "[2001:db8::5]:9999"]
expect: 3
key_file: /etc/ironring/key
`

func TestForm(t *testing.T) {
	cfg, err := Parse([]byte(formFile), testHost())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"p1.example.org:7480", "p2:9999", "10.0.0.3:7480", "[2001:db8::4]:7480", "[2001:db8::5]:9999"}
	if !cfg.Forms() || !slices.Equal(cfg.Join, want) || cfg.Expect != 3 {
		t.Errorf("join %v, expect %d", cfg.Join, cfg.Expect)
	}
	out, err := cfg.YAML()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Parse(out, testHost()); err != nil || !slices.Equal(again.Join, want) {
		t.Errorf("printed and read again: %v", err)
	}
	all, err := Parse([]byte(strings.Replace(formFile, "expect: 3", "", 1)), testHost())
	if err != nil || all.Expect != 5 {
		t.Errorf("expect is %d by default: %v", all.Expect, err)
	}
}

func TestFormMistakes(t *testing.T) {
	for _, c := range []struct{ from, to, key string }{
		{"expect: 3", "expect: 2", "expect"},
		{"expect: 3", "expect: 6", "expect"},
		{"cluster_id: rack-1", "", "cluster_id"},
		{"cluster_id: rack-1", "cluster_id: Rack_1", "cluster_id"},
		{"cluster_id: rack-1", "cluster_id: 10.0.0.1", "cluster_id"},
		{"key_file: /etc/ironring/key", "", "key_file"},
		{"p1.example.org", "\":7480\"", "join"},
		{"p1.example.org", "0.0.0.0", "join"},
		{"p1.example.org", "p1:x", "join"},
		{"join: ", "drivers: [fake]\nzone: x\n#", "cluster_id"},
	} {
		_, err := Parse([]byte(strings.Replace(formFile, c.from, c.to, 1)), testHost())
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.key) {
			t.Errorf("%s: %v", c.to, err)
		}
	}
}

// A host without IPv4 listens on IPv6 by default, and so does one that is told
// to advertise such an address.
func TestDefaultsOnIPv6(t *testing.T) {
	only6 := Host{Name: testHost().Name, Addresses: func() ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("2001:db8::7")}, nil
	}}
	for name, c := range map[string]struct {
		host Host
		text string
	}{
		"no other": {only6, "data_dir: /d\n"},
		"asked":    {testHost(), "data_dir: /d\nadvertise: {host: '2001:db8::7'}\n"},
	} {
		cfg, err := Parse([]byte(c.text), c.host)
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Listen.Cluster != "[::]:7480" || cfg.Listen.API != "[::]:7482" || cfg.Advertise.Cluster != "[2001:db8::7]:7480" || cfg.Advertise.Agent != "[2001:db8::7]:7483" || cfg.Listen.DHCP != "0.0.0.0:67" {
			t.Errorf("%s: listen %+v advertise %+v", name, cfg.Listen, cfg.Advertise)
		}
	}
}
