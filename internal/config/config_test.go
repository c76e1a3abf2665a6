package config

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/internal/errs"
)

var update = flag.Bool("update", false, "rewrite golden files")

func testHost() Host {
	return Host{
		Name: func() (string, error) { return "Rack1_P1.example.org", nil },
		Addresses: func() ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("fe80::1"),
				netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("10.9.9.9")}, nil
		},
	}
}

func TestDefaultsGolden(t *testing.T) {
	cfg, err := Parse([]byte("data_dir: /var/lib/ironring\n"), testHost())
	if err != nil {
		t.Fatal(err)
	}
	out, err := cfg.YAML()
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "defaults.yaml")
	if *update {
		if err := os.WriteFile(golden, out, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(out) != string(want) {
		t.Errorf("defaults have changed (-update accepts them):\n%s", out)
	}
	again, err := Parse(out, Host{})
	if err != nil {
		t.Fatalf("the printed configuration is not accepted: %v", err)
	}
	if s, _ := again.YAML(); string(s) != string(out) {
		t.Errorf("printed, parsed and printed again gives\n%s", s)
	}
}

// What is printed for a host without a file can be that host's file.
func TestDefaultsAreAFile(t *testing.T) {
	out, err := Defaults(testHost())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(out), "# data_dir has no default") {
		t.Errorf("it does not say that data_dir is an example:\n%s", out)
	}
	cfg, err := Parse(out, Host{})
	if err != nil || cfg.DataDir != "/var/lib/ironring" {
		t.Errorf("%v, %v", cfg, err)
	}
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct{ name, yaml, listen, advertise string }{
		{"wildcard", "", "0.0.0.0:7482", "10.1.2.3:7482"},
		{"loopback", "listen: {api: 127.0.0.2}", "127.0.0.2:7482", "127.0.0.2:7482"},
		{"port alone", "listen: {api: ':9000'}", "0.0.0.0:9000", "10.1.2.3:9000"},
		{"host for all", "advertise: {host: p1.example}", "0.0.0.0:7482", "p1.example:7482"},
		{"one advertised", "advertise: {api: 192.0.2.1}", "0.0.0.0:7482", "192.0.2.1:7482"},
		{"ipv6", "listen: {api: '::1'}", "[::1]:7482", "[::1]:7482"},
		{"ipv6 wildcard", "listen: {api: '[::]:80'}", "[::]:80", "10.1.2.3:80"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := Parse([]byte("data_dir: /d\n"+c.yaml), testHost())
			if err != nil {
				t.Fatal(err)
			}
			if cfg.Listen.API != c.listen || cfg.Advertise.API != c.advertise {
				t.Errorf("listen %q, advertise %q; want %q, %q", cfg.Listen.API, cfg.Advertise.API, c.listen, c.advertise)
			}
		})
	}
}

func TestBadInput(t *testing.T) {
	for _, c := range []struct{ name, yaml, want string }{
		{"empty", "", "data_dir is not set"},
		{"comment only", "# nothing\n", "data_dir is not set"},
		{"unknown key", "data_dir: /d\ndata_dri: /e\n", `line 2: unknown key "data_dri" (did you mean "data_dir"?)`},
		{"unknown nested", "data_dir: /d\nlisten:\n  cluser: 1.2.3.4\n", `line 3: unknown key "listen.cluser" (did you mean "listen.cluster"?)`},
		{"wrong section", "data_dir: /d\nipxe_dir: /i\n", `line 2: unknown key "ipxe_dir" (did you mean "boot.ipxe_dir"?)`},
		{"nothing near", "data_dir: /d\nlog:\n  kubernetes: yes\n", `unknown key "log.kubernetes" (known here: format, level)`},
		{"two unknown", "a_b_c_d: 1\nlevil: 2\n", "line 2: unknown key \"levil\""},
		{"duplicate key", "data_dir: /d\ndata_dir: /e\n", "line 2"},
		{"not a mapping", "- a\n- b\n", "must hold keys"},
		{"section is a word", "data_dir: /d\nboot: yes\n", "line 2: boot must hold keys"},
		{"syntax", "data_dir: [\n", "line 1"},
		{"two documents", "data_dir: /d\n---\ndata_dir: /e\n", "more than one YAML document"},
		{"type", "data_dir: /d\nweight: heavy\n", "line 2"},
		{"negative weight", "data_dir: /d\nweight: -1\n", "line 2"},
		{"weight", "data_dir: /d\nweight: 101\n", `weight: "101" must be 1 to 100`},
		{"duration", "data_dir: /d\nraft: {heartbeat: soon}\n", "line 2"},
		{"short raft", "data_dir: /d\nraft: {heartbeat: 1ms}\n", `raft.heartbeat: "1ms" must be`},
		{"long lease", "data_dir: /d\nraft: {leader_lease: 2s}\n", `raft.leader_lease: "2s" must not be longer than raft.heartbeat, "500ms"`},
		{"BMC", "data_dir: /d\nbmc: {read_timeout: 90s}\n", `bmc.read_timeout: "1m30s" must be 1s to 1m20s`},
		{"profile", "data_dir: /d\nprofile: wan\n", `profile: "wan" must be default or lan`},
		{"id", "data_dir: /d\nid: 'a b'\n", `id: "a b" must be`},
		{"dhcp", "data_dir: /d\nboot: {dhcp: some}\n", `boot.dhcp: "some" must be full, proxy or off`},
		{"level", "data_dir: /d\nlog: {level: loud}\n", `log.level: "loud" must be`},
		{"port", "data_dir: /d\nlisten: {api: '1.2.3.4:99999'}\n", `listen.api: "1.2.3.4:99999": port must be`},
		{"host", "data_dir: /d\nlisten: {api: 'a b:80'}\n", `listen.api: "a b:80" has no valid host`},
		{"advertised wildcard", "data_dir: /d\nadvertise: {api: '0.0.0.0:1'}\n", `advertise.api: "0.0.0.0:1" is no address`},
		{"same port", "data_dir: /d\nlisten: {api: ':7480'}\n", `listen.api: "0.0.0.0:7480" is taken by listen.cluster`},
		{"no driver", "data_dir: /d\ndrivers: []\n", `drivers: [] must name`},
		{"driver twice", "data_dir: /d\ndrivers: [ipmi, ipmi]\n", `drivers: "ipmi" is listed twice`},
		{"long socket", "data_dir: /" + strings.Repeat("d", 120) + "\n", "at most 107 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse([]byte(c.yaml), testHost())
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is\n%v\nwant\n%s", err, c.want)
			}
			if !errors.Is(err, errs.Invalid) {
				t.Errorf("kind of %v is not Invalid", err)
			}
		})
	}
}

func TestHostWithoutAddress(t *testing.T) {
	h := testHost()
	h.Addresses = func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil }
	if _, err := Parse([]byte("data_dir: /d\n"), h); err == nil || !strings.Contains(err.Error(), "set advertise.host") {
		t.Errorf("got %v", err)
	}
	// Nothing is looked up that is not needed.
	h.Addresses = nil
	if _, err := Parse([]byte("data_dir: /d\nadvertise: {host: 10.0.0.1}\n"), h); err != nil {
		t.Error(err)
	}
}

func TestLoad(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, os.ErrNotExist) || !errors.Is(err, errs.Invalid) {
		t.Errorf("missing file: %v", err)
	}
	p := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(p, []byte("data_dir: /d\nx_x: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(p); err == nil || !strings.Contains(err.Error(), p) || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("got %v", err)
	}
}

// TestStalls: files that keep a YAML parser busy are refused at once, and what
// aliases multiply is not followed.
func TestStalls(t *testing.T) {
	laughs := "data_dir: /d\nid: &a0 [x, x, x, x, x, x, x, x]\n"
	for i := range 12 {
		laughs += fmt.Sprintf("a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n", i+1, i+1, i, i, i, i, i, i, i, i)
	}
	inside := "data_dir: /d\njoin: &a0 [x, x]\ndrivers: "
	for i := range 30 {
		inside += fmt.Sprintf("&a%d [*a%d, ", i+1, i)
	}
	for name, c := range map[string]struct{ text, want string }{
		"deep":           {"data_dir: /d\njoin: " + strings.Repeat("[", 900), "line 2: nested more than 64 deep"},
		"empty lines":    {"data_dir: |\n /d\n" + strings.Repeat("\n", 1<<16), "more than 100 empty lines in a row"},
		"aliases":        {laughs, "unknown key"},
		"nested aliases": {inside + "x" + strings.Repeat("]", 30) + "\n", ""},
	} {
		start := time.Now()
		_, err := Parse([]byte(c.text), testHost())
		if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 4000 {
			t.Errorf("%s: got %v", name, err)
		}
		if took := time.Since(start); took > 5*time.Second { // hundredths of one, without a race detector beside it
			t.Errorf("%s: refused after %s", name, took)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("data_dir: /d\n"))
	f.Add([]byte("data_dir: /d\nlisten: {api: '[::1]:80'}\nraft:\n  heartbeat: 1s\n"))
	f.Add([]byte("a: &x {b: *x}\n<<: *x\n"))
	f.Add([]byte("data_dir: ['\n--- !!binary |\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := Parse(data, testHost())
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a text")
			}
			return
		}
		out, err := cfg.YAML()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(out, Host{})
		if err != nil {
			t.Fatalf("printed configuration is refused: %v\n%s", err, out)
		}
		if s, _ := again.YAML(); string(s) != string(out) {
			t.Fatalf("not stable:\n%s\n%s", out, s)
		}
	})
}
