package ipmi

import (
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
)

// The most that is taken from a BMC.
const (
	maxSensors = 500
	maxFRUs    = 64
)

// bootFlags is boot parameter 5, IPMI 2.0 table 28-14.
type bootFlags struct{ data1, data2 byte }

func (f bootFlags) valid() bool      { return f.data1&0x80 != 0 }
func (f bootFlags) persistent() bool { return f.data1&0x40 != 0 }
func (f bootFlags) selector() byte   { return f.data2 >> 2 & 0x0f }

// mode is not known unless the flags are in force.
func (f bootFlags) mode() api.BootMode {
	switch {
	case !f.valid():
		return api.BootMode_BOOT_MODE_UNKNOWN
	case f.data1&0x20 != 0:
		return api.BootMode_BOOT_MODE_UEFI
	}
	return api.BootMode_BOOT_MODE_BIOS
}

// parseBootFlags reads the output of `chassis bootparam get 5`.
func parseBootFlags(text string) (bootFlags, error) {
	for line := range strings.Lines(text) {
		digits, ok := strings.CutPrefix(strings.TrimSpace(line), "Boot parameter data:")
		if !ok {
			continue
		}
		data, err := hex.DecodeString(strings.TrimSpace(digits))
		if err != nil || len(data) < 2 {
			return bootFlags{}, strange("boot parameter", line)
		}
		return bootFlags{data[0], data[1]}, nil
	}
	return bootFlags{}, strange("boot parameter", text)
}

// sensorUnits are how ipmitool writes units, and what they are of.
var sensorUnits = []struct{ text, unit, kind string }{
	{"degrees C", "C", "temperature"}, {"degrees F", "F", "temperature"}, {"RPM", "RPM", "fan"}, {"Volts", "V", "voltage"},
	{"Watts", "W", "power"}, {"Amps", "A", "current"}, {"percent", "%", "other"},
}

var sensorStates = map[string]api.Sensor_State{
	"ok": api.Sensor_OK, "nc": api.Sensor_WARNING, "cr": api.Sensor_CRITICAL, "nr": api.Sensor_CRITICAL,
	"ns": api.Sensor_ABSENT, "na": api.Sensor_ABSENT,
}

// parseSensors reads the output of `sdr list`: "Inlet Temp | 23 degrees C | ok".
// What is no sensor is passed over.
func parseSensors(text string) []*api.Sensor {
	var out []*api.Sensor
	for line := range strings.Lines(text) {
		cells := strings.Split(line, "|")
		if len(cells) != 3 || len(out) >= maxSensors {
			continue
		}
		name, value := clean(cells[0]), clean(cells[1])
		state, known := sensorStates[clean(cells[2])]
		if name == "" || !known {
			continue
		}
		s := &api.Sensor{Name: name, Kind: "discrete", State: state, Text: value}
		number, rest, _ := strings.Cut(value, " ")
		if n, err := strconv.ParseFloat(number, 64); err == nil && !strings.HasPrefix(number, "0x") && !math.IsNaN(n) && !math.IsInf(n, 0) {
			s.Kind, s.Value, s.Unit, s.Text = "other", &n, clean(rest), ""
			for _, u := range sensorUnits {
				if rest == u.text {
					s.Kind, s.Unit = u.kind, u.unit
				}
			}
		} else if state == api.Sensor_ABSENT {
			s.Text = ""
		}
		out = append(out, s)
	}
	return out
}

// eventTimes are how ipmitool 1.8.18 and 1.8.19 write dates.
var eventTimes = []string{"01/02/2006 15:04:05", "01/02/06 15:04:05"}

// parseEvents reads the output of `-c sel list`:
// "1a,11/22/26,10:00:00 UTC,Temperature #0x30,Upper Critical going high,Asserted".
// A time before the BMC had one ("Pre-Init") is none.
func parseEvents(text string) []*api.BmcEvent {
	var out []*api.BmcEvent
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.TrimSpace(line), ",")
		if len(cells) < 5 {
			continue
		}
		if _, err := strconv.ParseUint(strings.TrimSpace(cells[0]), 16, 32); err != nil {
			continue
		}
		e := &api.BmcEvent{Id: clean(cells[0]), Sensor: clean(cells[3]), Text: clean(strings.Join(cells[4:], ", "))}
		at := clean(cells[1]) + " " + strings.TrimSuffix(clean(cells[2]), " UTC")
		for _, layout := range eventTimes {
			if t, err := time.Parse(layout, at); err == nil {
				e.AtMs = t.UnixMilli()
				break
			}
		}
		e.Severity = severity(e.GetText())
		out = append(out, e)
	}
	return out[max(0, len(out)-drivers.MaxEvents):]
}

// severity is what a threshold's name says; IPMI has none of its own.
func severity(text string) string {
	text = strings.ToLower(text)
	switch {
	case strings.Contains(text, "deasserted"):
		return "ok"
	case strings.Contains(text, "non-critical") || strings.Contains(text, "noncritical"):
		return "warning"
	case strings.Contains(text, "critical") || strings.Contains(text, "non-recoverable") || strings.Contains(text, "failure"):
		return "critical"
	}
	return ""
}

// parseFRUs reads the output of `fru print`: one block for each device. One
// device can be board and product at the same time.
func parseFRUs(text string) []*api.HardwareItem {
	var out []*api.HardwareItem
	var block strings.Builder
	flush := func() {
		t := table(block.String())
		block.Reset()
		name := t["FRU Device Description"]
		if name == "" || len(out) >= maxFRUs {
			return
		}
		kind := "board"
		if strings.HasSuffix(name, "(ID 0)") {
			kind = "system"
		}
		if t["Product Name"] != "" || t["Product Serial"] != "" {
			out = append(out, &api.HardwareItem{
				Kind: kind, Name: name, Vendor: t["Product Manufacturer"], Model: t["Product Name"],
				Serial: t["Product Serial"], PartNumber: t["Product Part Number"], Version: t["Product Version"],
			})
		}
		if t["Board Product"] != "" || t["Board Serial"] != "" {
			out = append(out, &api.HardwareItem{
				Kind: "board", Name: name, Vendor: t["Board Mfg"], Model: t["Board Product"], Serial: t["Board Serial"], PartNumber: t["Board Part Number"],
			})
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "FRU Device Description") {
			flush()
		}
		block.WriteString(line)
	}
	flush()
	return out
}
