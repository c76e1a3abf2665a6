package fake

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// The verbs beside power and boot device.
const (
	BootMode      Verb = "boot_mode"
	SetBootMode   Verb = "set_boot_mode"
	SecureBoot    Verb = "secure_boot"
	SetSecureBoot Verb = "set_secure_boot"
	Media         Verb = "media"
	InsertMedia   Verb = "insert_media"
	EjectMedia    Verb = "eject_media"
	Sensors       Verb = "sensors"
	Events        Verb = "events"
	ClearEvents   Verb = "clear_events"
	SendNMI       Verb = "send_nmi"
	Indicator     Verb = "indicator"
	SetIndicator  Verb = "set_indicator"
	Items         Verb = "items"
	ReadConsole   Verb = "read_console"
)

// changing are the verbs that change something.
var changing = map[Verb]bool{
	SetPower: true, SetBootDevice: true, SetBootMode: true, SetSecureBoot: true, InsertMedia: true, EjectMedia: true,
	ClearEvents: true, SendNMI: true, SetIndicator: true,
}

var (
	_ drivers.BootModer       = (*Driver)(nil)
	_ drivers.SecureBooter    = (*Driver)(nil)
	_ drivers.MediaAttacher   = (*Driver)(nil)
	_ drivers.SensorReader    = (*Driver)(nil)
	_ drivers.EventReader     = (*Driver)(nil)
	_ drivers.EventClearer    = (*Driver)(nil)
	_ drivers.NMISender       = (*Driver)(nil)
	_ drivers.IndicatorSetter = (*Driver)(nil)
	_ drivers.ItemReader      = (*Driver)(nil)
	_ drivers.ConsoleReader   = (*Driver)(nil)
)

// hardware is guarded by BMC.mu.
type hardware struct {
	mode   api.BootMode
	secure bool
	image  string
	led    api.Indicator
	events []*api.BmcEvent
	nmis   int
}

// slot is the only one for virtual media.
const slot = "Cd"

// actHardware carries out a change; called with mu held.
func (b *BMC) actHardware(c Call) {
	switch c.Verb {
	case SetBootMode:
		b.hw.mode = c.Mode
	case SetSecureBoot:
		b.hw.secure = c.On
	case InsertMedia:
		b.hw.image = c.Image
	case EjectMedia:
		b.hw.image = ""
	case SetIndicator:
		b.hw.led = c.Indicator
	case SendNMI:
		b.hw.nmis++
	case ClearEvents:
		b.hw.events = []*api.BmcEvent{{Id: "1", AtMs: time.Now().UnixMilli(), Severity: "ok", Text: "log cleared"}}
	}
}

// NMIs is how often the machine was interrupted.
func (b *BMC) NMIs() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.hw.nmis
}

// Image is the virtual medium, "" for none.
func (b *BMC) Image() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.hw.image
}

// Log adds an event.
func (b *BMC) Log(e *api.BmcEvent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hw.events = append(b.hw.events, e)
}

// ask is call for what only reads; take runs with the BMC's lock held, and not
// when the BMC lies.
func (d *Driver) ask(ctx context.Context, t drivers.Target, v Verb, take func(*BMC)) error {
	b, f, err := d.call(ctx, t, Call{Verb: v}, false)
	if err != nil || f.Kind == Lie {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	take(b)
	return nil
}

// BootMode implements drivers.BootModer.
func (d *Driver) BootMode(ctx context.Context, t drivers.Target) (mode api.BootMode, err error) {
	err = d.ask(ctx, t, BootMode, func(b *BMC) { mode = b.hw.mode })
	return mode, err
}

// SetBootMode implements drivers.BootModer.
func (d *Driver) SetBootMode(ctx context.Context, t drivers.Target, g drivers.Grant, mode api.BootMode) error {
	if mode != api.BootMode_BOOT_MODE_UEFI && mode != api.BootMode_BOOT_MODE_BIOS {
		return errs.New(errs.Unsupported, "boot mode %v is not supported: use uefi or bios", mode)
	}
	return d.change(ctx, t, g, Call{Verb: SetBootMode, Mode: mode}, false)
}

// SecureBoot implements drivers.SecureBooter.
func (d *Driver) SecureBoot(ctx context.Context, t drivers.Target) (*api.SecureBoot, error) {
	out := &api.SecureBoot{}
	err := d.ask(ctx, t, SecureBoot, func(b *BMC) { out.Enabled, out.Active = b.hw.secure, b.hw.secure })
	return out, err
}

// SetSecureBoot implements drivers.SecureBooter.
func (d *Driver) SetSecureBoot(ctx context.Context, t drivers.Target, g drivers.Grant, enabled bool) error {
	return d.change(ctx, t, g, Call{Verb: SetSecureBoot, On: enabled}, false)
}

// Media implements drivers.MediaAttacher.
func (d *Driver) Media(ctx context.Context, t drivers.Target) ([]*api.VirtualMedia, error) {
	m := &api.VirtualMedia{Slot: slot, Types: []string{"CD", "DVD"}}
	err := d.ask(ctx, t, Media, func(b *BMC) { m.Image, m.Inserted = b.hw.image, b.hw.image != "" })
	return []*api.VirtualMedia{m}, err
}

func checkSlot(name string) error {
	if name != "" && name != slot {
		return errs.About(errs.Invalid, "slot", "the BMC has no slot %q for virtual media, it has: %s", name, slot)
	}
	return nil
}

// InsertMedia implements drivers.MediaAttacher.
func (d *Driver) InsertMedia(ctx context.Context, t drivers.Target, g drivers.Grant, name, image string) error {
	if err := checkSlot(name); err != nil {
		return err
	}
	b, _, err := d.find(t)
	if err != nil {
		return err
	}
	if is := b.Image(); is != "" && is != image {
		return errs.New(errs.Busy, "slot %s has another image: eject it first", slot)
	}
	return d.change(ctx, t, g, Call{Verb: InsertMedia, Image: image}, false)
}

// EjectMedia implements drivers.MediaAttacher.
func (d *Driver) EjectMedia(ctx context.Context, t drivers.Target, g drivers.Grant, name string) error {
	if err := checkSlot(name); err != nil {
		return err
	}
	return d.change(ctx, t, g, Call{Verb: EjectMedia}, false)
}

// Sensors implements drivers.SensorReader.
func (d *Driver) Sensors(ctx context.Context, t drivers.Target) (out []*api.Sensor, err error) {
	err = d.ask(ctx, t, Sensors, func(*BMC) {
		out = []*api.Sensor{
			{Name: "Inlet Temp", Kind: "temperature", Unit: "C", Value: proto.Float64(23), State: api.Sensor_OK, UpperCritical: proto.Float64(47)},
			{Name: "Fan1", Kind: "fan", Unit: "RPM", Value: proto.Float64(5640), State: api.Sensor_OK},
			{Name: "CPU2 Temp", Kind: "temperature", Unit: "C", State: api.Sensor_ABSENT},
		}
	})
	return out, err
}

// Events implements drivers.EventReader.
func (d *Driver) Events(ctx context.Context, t drivers.Target) (out []*api.BmcEvent, err error) {
	err = d.ask(ctx, t, Events, func(b *BMC) {
		for _, e := range b.hw.events {
			out = append(out, proto.CloneOf(e))
		}
	})
	return out, err
}

// ClearEvents implements drivers.EventClearer.
func (d *Driver) ClearEvents(ctx context.Context, t drivers.Target, g drivers.Grant) error {
	return d.change(ctx, t, g, Call{Verb: ClearEvents}, false)
}

// SendNMI implements drivers.NMISender.
func (d *Driver) SendNMI(ctx context.Context, t drivers.Target, g drivers.Grant) error {
	return d.change(ctx, t, g, Call{Verb: SendNMI}, false)
}

// Indicator implements drivers.IndicatorSetter.
func (d *Driver) Indicator(ctx context.Context, t drivers.Target) (state api.Indicator, err error) {
	err = d.ask(ctx, t, Indicator, func(b *BMC) { state = b.hw.led })
	return state, err
}

// SetIndicator implements drivers.IndicatorSetter.
func (d *Driver) SetIndicator(ctx context.Context, t drivers.Target, g drivers.Grant, state api.Indicator) error {
	if _, ok := api.Indicator_name[int32(state)]; !ok || state == api.Indicator_INDICATOR_UNKNOWN {
		return errs.New(errs.Unsupported, "indicator %v is no state to set", state)
	}
	return d.change(ctx, t, g, Call{Verb: SetIndicator, Indicator: state}, false)
}

// Items implements drivers.ItemReader.
func (d *Driver) Items(ctx context.Context, t drivers.Target) (out []*api.HardwareItem, err error) {
	err = d.ask(ctx, t, Items, func(b *BMC) {
		out = []*api.HardwareItem{
			{Kind: "system", Vendor: b.facts.GetVendor(), Model: b.facts.GetModel(), Serial: b.facts.GetSerial()},
			{Kind: "bmc", Version: b.facts.GetFirmware()},
		}
	})
	return out, err
}
