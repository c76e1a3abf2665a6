package ipmi

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
)

func sample(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestParseSensors(t *testing.T) {
	got := parseSensors(sample(t, "sdr_list.txt"))
	want := []struct {
		name, kind, unit, text string
		value                  float64
		state                  api.Sensor_State
	}{
		{"Inlet Temp", "temperature", "C", "", 23, api.Sensor_OK},
		{"CPU2 Temp", "discrete", "", "", 0, api.Sensor_ABSENT},
		{"Fan1 RPM", "fan", "RPM", "", 5640, api.Sensor_OK},
		{"12V", "voltage", "V", "", 12.1, api.Sensor_WARNING},
		{"Pwr Consumption", "power", "W", "", 211, api.Sensor_OK},
		{"Sys Usage", "other", "%", "", 3, api.Sensor_OK},
		{"Intrusion", "discrete", "", "0x01", 0, api.Sensor_CRITICAL},
		{"Fan Redundancy", "discrete", "", "", 0, api.Sensor_ABSENT},
	}
	if len(got) != len(want) {
		t.Fatalf("%d sensors: %v", len(got), got)
	}
	for i, w := range want {
		s := got[i]
		if s.GetName() != w.name || s.GetKind() != w.kind || s.GetUnit() != w.unit || s.GetText() != w.text ||
			s.GetValue() != w.value || s.GetState() != w.state || (s.Value == nil) != (w.kind == "discrete") {
			t.Errorf("sensor %d is %v, want %+v", i, s, w)
		}
	}
}

func TestParseEvents(t *testing.T) {
	got := parseEvents("SEL has no entries\n" + sample(t, "sel_list.txt") + "rubbish,,,\n")
	if len(got) != 3 {
		t.Fatalf("%d events: %v", len(got), got)
	}
	for i, w := range []*api.BmcEvent{
		{Id: "1", Sensor: "Temperature #0x30", Text: "Upper Critical going high, Asserted", Severity: "critical"},
		{Id: "2", AtMs: 1711974896000, Sensor: "Power Supply #0x51", Text: "Presence detected, Asserted"},
		{Id: "a", AtMs: 1795341600000, Sensor: "Voltage #0x60", Text: "Lower Non-critical going low , Asserted", Severity: "warning"},
	} {
		if e := got[i]; e.GetId() != w.GetId() || e.GetAtMs() != w.GetAtMs() || e.GetSensor() != w.GetSensor() || e.GetText() != w.GetText() || e.GetSeverity() != w.GetSeverity() {
			t.Errorf("event %d is %v, want %v", i, e, w)
		}
	}
}

func TestParseFRUs(t *testing.T) {
	got := parseFRUs(sample(t, "fru_all.txt"))
	var text []string
	for _, it := range got {
		text = append(text, it.GetKind()+"/"+it.GetModel()+"/"+it.GetSerial())
	}
	if s := strings.Join(text, " "); s != "system/Server 7/SN7 board/Board 7/BRD1 board/PWR SPLY,750W/PSU7" {
		t.Errorf("parts are %s", s)
	}
}

func TestParseBootFlags(t *testing.T) {
	for digits, want := range map[string]api.BootMode{
		"a004000000": api.BootMode_BOOT_MODE_UEFI, "8004000000": api.BootMode_BOOT_MODE_BIOS, "2004000000": api.BootMode_BOOT_MODE_UNKNOWN,
	} {
		f, err := parseBootFlags("Boot parameter data: " + digits + "\n")
		if err != nil || f.mode() != want {
			t.Errorf("%s: %v, %v", digits, f.mode(), err)
		}
	}
}

// fit tells that a text from outside was made fit for a log.
func fit(t *testing.T, text string) {
	t.Helper()
	if len([]rune(text)) > 420 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("not fit for a log: %q", text)
	}
}

// FuzzHardware: whatever ipmitool prints, the parsers end, stay within their
// bounds and let nothing through that is not fit for a log.
func FuzzHardware(f *testing.F) {
	for _, name := range []string{"sdr_list.txt", "sel_list.txt", "fru_all.txt", "bootparam_disk_valid.txt", "fru.product.txt"} {
		f.Add(sample(f, name))
	}
	f.Add("x | nan degrees C | ok\ny | 1e999 RPM | ok\n|||\n,,,,,\nffffffff,\x00,\xff,a,b")
	f.Fuzz(func(t *testing.T, text string) {
		sensors, events, frus := parseSensors(text), parseEvents(text), parseFRUs(text)
		if len(sensors) > maxSensors || len(events) > drivers.MaxEvents || len(frus) > 2*maxFRUs {
			t.Errorf("%d sensors, %d events, %d parts", len(sensors), len(events), len(frus))
		}
		for _, s := range sensors {
			if s.GetName() == "" || math.IsNaN(s.GetValue()) || math.IsInf(s.GetValue(), 0) {
				t.Errorf("sensor %v", s)
			}
			fit(t, s.GetName())
			fit(t, s.GetText())
			fit(t, s.GetUnit())
		}
		for _, e := range events {
			fit(t, e.GetId())
			fit(t, e.GetText())
			fit(t, e.GetSensor())
		}
		for _, it := range frus {
			fit(t, it.GetName())
			fit(t, it.GetModel())
			fit(t, it.GetSerial())
		}
		_, _ = parseBootFlags(text)
		_, _ = parseBoot(text)
	})
}
