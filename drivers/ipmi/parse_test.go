package ipmi

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

func golden(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestParseBoot(t *testing.T) {
	for text, want := range map[string]struct {
		device api.BootDevice
		kind   errs.Kind
	}{
		golden(t, "bootparam_disk_valid.txt"):        {api.BootDevice_BOOT_DEVICE_DISK, -1},
		golden(t, "bootparam_pxe.ipmi_sim.txt"):      {0, errs.Unsupported}, // never marked valid
		"Boot parameter data: 0000000000":            {api.BootDevice_BOOT_DEVICE_NONE, -1},
		"x\n Boot parameter data: 8014000000\n":      {api.BootDevice_BOOT_DEVICE_CDROM, -1},
		"Boot parameter data: 8018000000":            {0, errs.Unsupported}, // setup
		"Boot parameter data: 80":                    {0, errs.Internal},
		"Boot parameter data: zz":                    {0, errs.Internal},
		"Get Chassis Boot Parameter 5 failed":        {0, errs.Internal},
		"Boot parameter data: 80040000000000000000 ": {api.BootDevice_BOOT_DEVICE_PXE, -1},
	} {
		device, err := parseBoot(text)
		if (want.kind < 0) != (err == nil) || (err == nil && device != want.device) || (err != nil && errs.KindOf(err) != want.kind) {
			t.Errorf("%q: %v, %v", text, device, err)
		}
	}
}

func TestReadings(t *testing.T) {
	const dell = "4c4c4544-0035-4d10-8032-b4c04f4a3332"
	raw, ok, err := parseGUID(golden(t, "guid.ipmi_sim.txt"))
	if err != nil || !ok || !slices.Contains(readings(raw), "33221100-5544-7766-8899-aabbccddeeff") {
		t.Errorf("%v %v %v", raw, ok, err)
	}
	for _, blank := range []byte{0, 0xff} {
		text := strings.Repeat(" "+string("0123456789abcdef"[blank>>4])+string("0123456789abcdef"[blank&15]), 16)
		if _, ok, err := parseGUID(text); ok || err != nil {
			t.Errorf("%q counts as an identity", text)
		}
	}
	u := uuid.MustParse(dell)
	slices.Reverse(u[0:4])
	slices.Reverse(u[4:6])
	slices.Reverse(u[6:8])
	if got := readings(u); got[0] != dell {
		t.Errorf("readings of SMBIOS bytes are %v", got)
	}
}

// TestReadingsHoldTheTruth shows that whatever order a BMC sends, the UUID of
// SMBIOS is among the readings.
func TestReadingsHoldTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		truth := uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid"))
		smbios, reversed := truth, truth
		slices.Reverse(smbios[0:4])
		slices.Reverse(smbios[4:6])
		slices.Reverse(smbios[6:8])
		slices.Reverse(reversed[:])
		for _, raw := range []uuid.UUID{truth, smbios, reversed} {
			if !slices.Contains(readings(raw), truth.String()) {
				t.Fatalf("%x is not read as %v: %v", raw[:], truth, readings(raw))
			}
		}
	})
}

func TestLANWithoutAddress(t *testing.T) {
	facts := &api.BmcFacts{}
	readLAN(facts, golden(t, "lan_print.ipmi_sim.txt"))
	if facts.BmcAddresses != nil || facts.BmcMacs != nil {
		t.Errorf("zeros count as addresses: %v", facts)
	}
}

func TestInSession(t *testing.T) {
	for name, test := range map[string]struct {
		packet []byte
		want   bool
	}{
		"open session":   {append([]byte{6, 0, 0xff, 7, 6, 0x10}, make([]byte, 32)...), false},
		"RAKP 3":         {append([]byte{6, 0, 0xff, 7, 6, 0x14}, make([]byte, 32)...), false},
		"command":        {append([]byte{6, 0, 0xff, 7, 6, 0xc0}, make([]byte, 32)...), true},
		"no session":     {append([]byte{6, 0, 0xff, 7, 0, 0}, make([]byte, 32)...), false},
		"SOL":            {append([]byte{6, 0, 0xff, 7, 6, 0xc1}, make([]byte, 32)...), false},
		"short":          {[]byte{6, 0, 0xff, 7, 6, 0xc0}, false},
		"something else": {append([]byte("220 "), make([]byte, 32)...), false},
	} {
		if got := inSession(test.packet); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// FuzzOutput feeds whatever a BMC may make ipmitool print to all parsers.
func FuzzOutput(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		f.Fatal("no golden files")
	}
	for _, name := range files {
		f.Add(golden(f, filepath.Base(name)))
	}
	f.Add("Chassis Power is on\n")
	f.Fuzz(func(t *testing.T, text string) {
		if state, err := parsePower(text); (err == nil) == (state == api.PowerState_POWER_UNKNOWN) {
			t.Errorf("power %v, %v", state, err)
		}
		if _, err := parseBoot(text); err != nil && strings.ContainsAny(err.Error(), "\n\x00") {
			t.Error("an error is not one line")
		}
		if raw, ok, err := parseGUID(text); err == nil && ok {
			for _, s := range readings(raw) {
				if len(s) != 36 || s != strings.ToLower(s) {
					t.Errorf("reading %q", s)
				}
			}
		}
		facts := &api.BmcFacts{}
		readInfo(facts, text)
		readLAN(facts, text)
		readFRU(facts, text)
		if s := facts.Serial + facts.Vendor + facts.Model + facts.Firmware; strings.ContainsAny(s, "\n\x00") || len(s) > 4*4*210 {
			t.Errorf("facts %q", s)
		}
		set := &settings{pass: "hunter2"}
		if line := lastWords(set, text); strings.Contains(line, "hunter2") || strings.Contains(line, "\n") {
			t.Errorf("last words %q", line)
		}
	})
}
