package ipmi

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/governor"
	"github.com/ironring/ironring/internal/errs"
)

// Config says how the driver reaches ipmitool.
type Config struct {
	// Ipmitool is its name or path; default "ipmitool", looked up in PATH at
	// each call: a peer without it serves nodes of other drivers.
	Ipmitool string
}

// Driver is the IPMI driver.
type Driver struct {
	tool     tool
	governor *governor.Set
	consoles *consoles
}

var (
	_ drivers.Driver           = (*Driver)(nil)
	_ drivers.PowerReader      = (*Driver)(nil)
	_ drivers.PowerSetter      = (*Driver)(nil)
	_ drivers.BootDeviceSetter = (*Driver)(nil)
	_ drivers.BootDeviceReader = (*Driver)(nil)
	_ drivers.Identifier       = (*Driver)(nil)
	_ drivers.BootModer        = (*Driver)(nil)
	_ drivers.SensorReader     = (*Driver)(nil)
	_ drivers.EventReader      = (*Driver)(nil)
	_ drivers.EventClearer     = (*Driver)(nil)
	_ drivers.NMISender        = (*Driver)(nil)
	_ drivers.IndicatorSetter  = (*Driver)(nil)
	_ drivers.ItemReader       = (*Driver)(nil)
	_ drivers.ConsoleReader    = (*Driver)(nil)
)

// New makes the driver.
func New(cfg Config) (*Driver, error) {
	if cfg.Ipmitool == "" {
		cfg.Ipmitool = "ipmitool"
	}
	return &Driver{tool{cfg.Ipmitool}, governor.New(1), &consoles{}}, nil
}

// Name implements drivers.Driver.
func (*Driver) Name() string { return "ipmi" }

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
		Identify: true, BootMode: true, Sensors: true, Events: true, ClearEvents: true, NMI: true, Indicator: true, Items: true, Console: true,
	}
}

// read runs a command that changes nothing.
func (d *Driver) read(ctx context.Context, set *settings, args ...string) (string, error) {
	if ctx.Err() != nil {
		return "", drivers.Ended(ctx)
	}
	done, err := d.governor.Read(ctx, set.address)
	if err != nil {
		return "", err
	}
	out, err := d.tool.run(ctx, set, nil, args...)
	done(err)
	return out, err
}

// change runs the one command of a call that changes something; it must print
// want.
func (d *Driver) change(ctx context.Context, t drivers.Target, g drivers.Grant, want string, args ...string) error {
	set, err := parse(t.Info)
	if err != nil {
		return err
	}
	ctx, stop, err := drivers.Bind(ctx, g)
	if err != nil {
		return err
	}
	defer stop()
	done, err := d.governor.Change(ctx, set.address)
	if err != nil {
		return err
	}
	out, err := d.tool.run(ctx, set, g, args...)
	done(err)
	if err == nil && !strings.Contains(out, want) {
		return strange("answer", out)
	}
	return err
}

// PowerState implements drivers.PowerReader.
func (d *Driver) PowerState(ctx context.Context, t drivers.Target) (api.PowerState, error) {
	set, err := parse(t.Info)
	if err != nil {
		return api.PowerState_POWER_UNKNOWN, err
	}
	out, err := d.read(ctx, set, "chassis", "power", "status")
	if err != nil {
		return api.PowerState_POWER_UNKNOWN, err
	}
	return parsePower(out)
}

// SetPower implements drivers.PowerSetter.
func (d *Driver) SetPower(ctx context.Context, t drivers.Target, g drivers.Grant, action api.PowerAction) error {
	var verb, want string
	level := api.PowerState_POWER_OFF
	switch action {
	case api.PowerAction_POWER_ACTION_ON:
		verb, want, level = "on", "Up/On", api.PowerState_POWER_ON
	case api.PowerAction_POWER_ACTION_OFF:
		verb, want = "off", "Down/Off"
	case api.PowerAction_POWER_ACTION_SOFT_OFF:
		verb, want = "soft", "Soft"
	default:
		return errs.New(errs.Unsupported, "power action %v is not a level: use on, off, soft off", action)
	}
	err := d.change(ctx, t, g, "Chassis Power Control: "+want, "chassis", "power", verb)
	if err == nil || errs.KindOf(err) != errs.Busy || err.Error() != notInThisState {
		return err
	}
	// A definite no, from a BMC to which off is no state to be switched off
	// in. Asking for what already is, is no error.
	if now, readErr := d.PowerState(ctx, t); readErr == nil && now == level {
		return nil
	}
	return err
}

// SetBootDevice implements drivers.BootDeviceSetter.
func (d *Driver) SetBootDevice(ctx context.Context, t drivers.Target, g drivers.Grant, device api.BootDevice, opts drivers.BootOptions) error {
	var name string
	switch device {
	case api.BootDevice_BOOT_DEVICE_NONE:
		name = "none"
	case api.BootDevice_BOOT_DEVICE_PXE:
		name = "pxe"
	case api.BootDevice_BOOT_DEVICE_DISK:
		name = "disk"
	case api.BootDevice_BOOT_DEVICE_CDROM:
		name = "cdrom"
	default:
		return errs.New(errs.Unsupported, "boot device %v is not supported", device)
	}
	args := []string{"chassis", "bootdev", name}
	var more []string
	if opts.Persistent {
		more = append(more, "persistent")
	}
	if opts.UEFI {
		more = append(more, "efiboot")
	}
	if len(more) > 0 {
		args = append(args, "options="+strings.Join(more, ","))
	}
	return d.change(ctx, t, g, "Set Boot Device to "+name, args...)
}

// BootDevice implements drivers.BootDeviceReader.
func (d *Driver) BootDevice(ctx context.Context, t drivers.Target) (api.BootDevice, error) {
	set, err := parse(t.Info)
	if err != nil {
		return api.BootDevice_BOOT_DEVICE_NONE, err
	}
	out, err := d.read(ctx, set, "chassis", "bootparam", "get", "5")
	if err != nil {
		return api.BootDevice_BOOT_DEVICE_NONE, err
	}
	return parseBoot(out)
}

// Identify implements drivers.Identifier. `mc guid` itself prints the GUID in
// a byte order that it guesses, so its bytes are asked for.
func (d *Driver) Identify(ctx context.Context, t drivers.Target) (*api.BmcFacts, error) {
	set, err := parse(t.Info)
	if err != nil {
		return nil, err
	}
	facts := &api.BmcFacts{BmcKey: set.key()}
	out, err := d.read(ctx, set, "raw", "0x06", "0x37")
	switch {
	case err == nil:
		raw, ok, err := parseGUID(out)
		if err != nil {
			return nil, err
		}
		if ok {
			facts.SystemUuids = readings(raw)
			facts.SystemUuid = facts.SystemUuids[0]
		}
	case !noAnswer(err):
		return nil, err
	}
	for _, ask := range []struct {
		args []string
		take func(*api.BmcFacts, string)
		who  bool // the answer tells machines apart
	}{
		{[]string{"mc", "info"}, readInfo, false},
		{[]string{"lan", "print"}, readLAN, true},
		{[]string{"fru", "print", "0"}, readFRU, true},
	} {
		out, err := d.read(ctx, set, ask.args...)
		switch {
		case err == nil:
			ask.take(facts, out)
		case noAnswer(err):
		case errs.KindOf(err) == errs.Internal && (!ask.who || facts.SystemUuid != ""):
		default:
			return nil, err
		}
	}
	return facts, nil
}

// nothingThere is what ipmitool prints last where a BMC says that it has not
// what was asked for.
var nothingThere = []string{
	"Device not present (Requested sensor", "Requested sensor, data, or record not found", "Unknown FRU header version", "Unspecified error",
	"Parameter not supported", "Invalid channel", "Command disabled",
}

// noAnswer is whether an error means that the BMC has no answer to this
// question. An answer that is not understood is no such error, nor is that nobody
// asked: who the BMC is is not known then, and it must not pass for one that
// tells nothing.
func noAnswer(err error) bool {
	return errors.Is(err, errs.Unsupported) && !errors.Is(err, errNoTool) || errs.KindOf(err) == errs.Internal &&
		slices.ContainsFunc(nothingThere, func(text string) bool { return strings.Contains(err.Error(), text) })
}
