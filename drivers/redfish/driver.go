package redfish

import (
	"context"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/governor"
)

// Config says how the driver behaves towards all BMCs; everything else is in
// the nodes' driver_info.
type Config struct {
	// Idle is how long a session for reading is kept unused; 0: 3 min.
	Idle time.Duration
}

// Driver is the Redfish driver.
type Driver struct {
	governor *governor.Set
	sessions *sessions
}

var (
	_ drivers.Driver           = (*Driver)(nil)
	_ drivers.PowerReader      = (*Driver)(nil)
	_ drivers.PowerSetter      = (*Driver)(nil)
	_ drivers.BootDeviceSetter = (*Driver)(nil)
	_ drivers.BootDeviceReader = (*Driver)(nil)
	_ drivers.Identifier       = (*Driver)(nil)
	_ drivers.BootModer        = (*Driver)(nil)
	_ drivers.SecureBooter     = (*Driver)(nil)
	_ drivers.MediaAttacher    = (*Driver)(nil)
	_ drivers.SensorReader     = (*Driver)(nil)
	_ drivers.EventReader      = (*Driver)(nil)
	_ drivers.EventClearer     = (*Driver)(nil)
	_ drivers.NMISender        = (*Driver)(nil)
	_ drivers.IndicatorSetter  = (*Driver)(nil)
	_ drivers.ItemReader       = (*Driver)(nil)
	_ drivers.Closer           = (*Driver)(nil)
)

// New makes the driver.
func New(cfg Config) (*Driver, error) {
	if cfg.Idle <= 0 {
		cfg.Idle = idleLimit
	}
	return &Driver{governor: governor.New(1), sessions: newSessions(cfg.Idle)}, nil
}

// Close implements drivers.Closer: it logs out the sessions kept for reading.
func (d *Driver) Close(ctx context.Context) { d.sessions.close(ctx) }

// Name implements drivers.Driver.
func (*Driver) Name() string { return "redfish" }

// Fields implements drivers.Driver.
func (*Driver) Fields() []drivers.Field { return append([]drivers.Field(nil), fields...) }

// Validate implements drivers.Driver.
func (*Driver) Validate(info drivers.Info) error {
	_, err := parse(info)
	return err
}

// Capabilities implements drivers.Driver.
func (*Driver) Capabilities() drivers.Capabilities {
	return drivers.Capabilities{
		PowerRead: true, PowerSet: true, SoftOff: true,
		BootDeviceSet: true, BootDeviceRead: true, PersistentBoot: true, UEFIBoot: true,
		Identify: true, BootMode: true, SecureBoot: true, Media: true, Sensors: true,
		Events: true, ClearEvents: true, NMI: true, Indicator: true, Items: true,
	}
}

// readSystem reads with the one system that the call is about.
func (d *Driver) readSystem(ctx context.Context, t drivers.Target, do func(*link, *system) error) error {
	return d.read(ctx, t, func(l *link) error {
		s, err := l.system()
		if err != nil {
			return err
		}
		return do(l, s)
	})
}

// changeSystem changes with the one system that the call is about, knowing the
// quirks of its BMC.
func (d *Driver) changeSystem(ctx context.Context, t drivers.Target, g drivers.Grant, do func(context.Context, *link, *system, behaviour) error) error {
	return d.change(ctx, t, g, func(ctx context.Context, l *link) error {
		s, err := l.system()
		if err != nil {
			return err
		}
		q, err := l.behaviour(s)
		if err != nil {
			return err
		}
		return do(ctx, l, s, q)
	})
}

// power is what a Redfish PowerState says; known is false for what Redfish
// does not have.
func power(text string) (state api.PowerState, known bool) {
	switch text {
	case "On":
		return api.PowerState_POWER_ON, true
	case "Off":
		return api.PowerState_POWER_OFF, true
	case "PoweringOn", "PoweringOff", "Paused":
		return api.PowerState_POWER_UNKNOWN, true
	}
	return api.PowerState_POWER_UNKNOWN, false
}
