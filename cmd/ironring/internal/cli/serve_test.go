package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ironring/ironring/internal/config"
	"github.com/ironring/ironring/internal/errs"
)

// A host without a configuration is shown one to begin with; a file that was
// named must be there.
func TestPrintConfigWithoutFile(t *testing.T) {
	host := config.Host{
		Name:      func() (string, error) { return "rack1-p1.example", nil },
		Addresses: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("10.1.2.3")}, nil },
	}
	var out bytes.Buffer
	f := &Factory{Out: &out}
	path := filepath.Join(t.TempDir(), "none.yaml")
	if err := f.printConfig(path, false, host); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# There is no " + path, "# data_dir has no default", "data_dir: /var/lib/ironring\n", "heartbeat: 500ms"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, &out)
		}
	}
	if cfg, err := config.Parse(out.Bytes(), host); err != nil || cfg.ID != "rack1-p1" {
		t.Errorf("what was printed is no configuration: %v, %v", cfg, err)
	}
	out.Reset()
	f.output = "json"
	var doc map[string]any
	if err := f.printConfig(path, false, host); err != nil || json.Unmarshal(out.Bytes(), &doc) != nil || doc["data_dir"] != "/var/lib/ironring" {
		t.Errorf("as JSON: %v\n%s", err, &out)
	}
	if err := f.printConfig(path, true, host); !errors.Is(err, errs.Invalid) {
		t.Errorf("a named file that is not there: %v", err)
	}
}
