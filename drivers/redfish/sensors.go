package redfish

import (
	"context"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// maxSensors is how many readings a call gives at most.
const maxSensors = 500

// reading is what the old resources (Thermal, Power) have for one sensor, each
// under another name.
type reading struct {
	Name, FanName          string
	ReadingCelsius         *float64
	Reading                *float64
	ReadingUnits           string
	ReadingVolts           *float64
	PowerConsumedWatts     *float64
	PowerOutputWatts       *float64
	LastPowerOutputWatts   *float64
	UpperThresholdCritical *float64
	LowerThresholdCritical *float64
	Status                 status
}

func (r reading) sensor(kind, unit string, value *float64) *api.Sensor {
	name := r.Name
	if name == "" {
		name = r.FanName
	}
	out := &api.Sensor{
		Name: clean(name), Kind: kind, Unit: unit, Value: value,
		UpperCritical: r.UpperThresholdCritical, LowerCritical: r.LowerThresholdCritical,
	}
	out.State = r.Status.sensor(value != nil)
	return out
}

func (s status) sensor(read bool) api.Sensor_State {
	switch {
	case s.State == "Absent" || s.State == "UnavailableOffline" || s.State == "Disabled":
		return api.Sensor_ABSENT
	case s.Health == "OK":
		return api.Sensor_OK
	case s.Health == "Warning":
		return api.Sensor_WARNING
	case s.Health == "Critical":
		return api.Sensor_CRITICAL
	case !read:
		return api.Sensor_ABSENT
	}
	return api.Sensor_UNKNOWN
}

// sensorResource is a Sensor of the newer kind.
type sensorResource struct {
	Name         string
	Reading      *float64
	ReadingType  string
	ReadingUnits string
	Status       status
	Thresholds   struct {
		UpperCritical, LowerCritical struct{ Reading *float64 }
	}
}

// Sensors implements drivers.SensorReader. A chassis has its readings in
// Thermal and Power, or in Sensors where it is newer.
func (d *Driver) Sensors(ctx context.Context, t drivers.Target) (out []*api.Sensor, err error) {
	err = d.readSystem(ctx, t, func(l *link, s *system) error {
		chassis, err := l.chassis(s)
		if err != nil {
			return err
		}
		for _, path := range chassis {
			var c struct{ Thermal, Power, Sensors ref }
			if ok, err := l.optional(path, &c); err != nil || !ok {
				return err
			}
			before := len(out)
			if err := l.thermal(c.Thermal.ID, &out); err != nil {
				return err
			}
			if err := l.watts(c.Power.ID, &out); err != nil {
				return err
			}
			if len(out) == before {
				if err := l.sensors(c.Sensors.ID, &out); err != nil {
					return err
				}
			}
		}
		if len(out) == 0 {
			return errs.New(errs.Unsupported, "the BMC offers no sensors")
		}
		out = out[:min(len(out), maxSensors)]
		return nil
	})
	return out, err
}

// chassis are those of the system; where the BMC links none, all it has.
func (l *link) chassis(s *system) ([]string, error) {
	var out []string
	for _, c := range s.Links.Chassis {
		out = append(out, c.ID)
	}
	if len(out) > 0 {
		return out[:min(len(out), 8)], nil
	}
	all, err := l.list(l.root.Chassis.ID)
	return all[:min(len(all), 8)], err
}

func (l *link) thermal(path string, out *[]*api.Sensor) error {
	var th struct{ Temperatures, Fans []reading }
	if ok, err := l.optional(path, &th); err != nil || !ok {
		return err
	}
	for _, r := range th.Temperatures {
		*out = append(*out, r.sensor("temperature", "C", r.ReadingCelsius))
	}
	for _, r := range th.Fans {
		unit := "RPM"
		if r.ReadingUnits == "Percent" {
			unit = "%"
		}
		*out = append(*out, r.sensor("fan", unit, r.Reading))
	}
	return nil
}

func (l *link) watts(path string, out *[]*api.Sensor) error {
	var p struct{ Voltages, PowerControl, PowerSupplies []reading }
	if ok, err := l.optional(path, &p); err != nil || !ok {
		return err
	}
	for _, r := range p.Voltages {
		*out = append(*out, r.sensor("voltage", "V", r.ReadingVolts))
	}
	for _, r := range p.PowerControl {
		*out = append(*out, r.sensor("power", "W", r.PowerConsumedWatts))
	}
	for _, r := range p.PowerSupplies {
		value := r.PowerOutputWatts
		if value == nil {
			value = r.LastPowerOutputWatts
		}
		*out = append(*out, r.sensor("power", "W", value))
	}
	return nil
}

var sensorKinds = map[string]string{
	"Temperature": "temperature", "Rotational": "fan", "Voltage": "voltage", "Power": "power", "Current": "current",
}

var sensorUnits = map[string]string{"Cel": "C", "RPM": "RPM", "V": "V", "W": "W", "A": "A", "%": "%"}

func (l *link) sensors(path string, out *[]*api.Sensor) error {
	paths, err := l.list(path)
	if err != nil {
		return err
	}
	for _, p := range paths {
		var r sensorResource
		if ok, err := l.optional(p, &r); err != nil {
			return err
		} else if !ok {
			continue
		}
		kind := sensorKinds[r.ReadingType]
		if kind == "" {
			kind = "other"
		}
		*out = append(*out, &api.Sensor{
			Name: clean(r.Name), Kind: kind, Unit: sensorUnits[r.ReadingUnits], Value: r.Reading, State: r.Status.sensor(r.Reading != nil),
			UpperCritical: r.Thresholds.UpperCritical.Reading, LowerCritical: r.Thresholds.LowerCritical.Reading,
		})
	}
	return nil
}
