package ipmi

import (
	"context"
	"encoding/hex"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// What IPMI has beside power and boot device. Secure Boot and virtual media it
// has not.

// BootMode implements drivers.BootModer. IPMI has no mode of its own: it is a
// flag of the boot device.
func (d *Driver) BootMode(ctx context.Context, t drivers.Target) (api.BootMode, error) {
	set, err := parse(t.Info)
	if err != nil {
		return api.BootMode_BOOT_MODE_UNKNOWN, err
	}
	flags, err := d.bootFlags(ctx, set)
	if err != nil {
		return api.BootMode_BOOT_MODE_UNKNOWN, err
	}
	if !flags.valid() {
		return api.BootMode_BOOT_MODE_UNKNOWN, errs.New(errs.Unsupported, "the BMC does not tell whether the boot mode is in force")
	}
	return flags.mode(), nil
}

func (d *Driver) bootFlags(ctx context.Context, set *settings) (bootFlags, error) {
	out, err := d.read(ctx, set, "chassis", "bootparam", "get", "5")
	if err != nil {
		return bootFlags{}, err
	}
	return parseBootFlags(out)
}

// SetBootMode implements drivers.BootModer. The boot device stays as it is.
func (d *Driver) SetBootMode(ctx context.Context, t drivers.Target, g drivers.Grant, mode api.BootMode) error {
	if mode != api.BootMode_BOOT_MODE_UEFI && mode != api.BootMode_BOOT_MODE_BIOS {
		return errs.New(errs.Unsupported, "boot mode %v is not supported: use uefi or bios", mode)
	}
	if err := drivers.CheckGrant(g); err != nil {
		return err
	}
	set, err := parse(t.Info)
	if err != nil {
		return err
	}
	opts := drivers.BootOptions{UEFI: mode == api.BootMode_BOOT_MODE_UEFI, Persistent: true}
	device := api.BootDevice_BOOT_DEVICE_NONE
	flags, err := d.bootFlags(ctx, set)
	switch {
	case err == nil && flags.valid():
		if known, ok := selectors[flags.selector()]; ok {
			device = known
		}
		opts.Persistent = flags.persistent() || device == api.BootDevice_BOOT_DEVICE_NONE
	case err != nil && errs.KindOf(err) != errs.Unsupported && errs.KindOf(err) != errs.Internal:
		return err
	}
	return d.SetBootDevice(ctx, t, g, device, opts)
}

// Sensors implements drivers.SensorReader. ipmitool fills a repository of
// sensor records that is empty, and erases it before: so it is asked first
// whether there are any.
func (d *Driver) Sensors(ctx context.Context, t drivers.Target) ([]*api.Sensor, error) {
	set, err := parse(t.Info)
	if err != nil {
		return nil, err
	}
	info, err := d.read(ctx, set, "sdr", "info")
	if err != nil {
		return nil, err
	}
	if n := table(info)["Record Count"]; n == "" || n == "0" {
		return nil, errs.New(errs.Unsupported, "the BMC has no sensor records")
	}
	out, err := d.read(ctx, set, quiet, "sdr", "list")
	if err != nil {
		return nil, err
	}
	return parseSensors(out), nil
}

// Events implements drivers.EventReader.
func (d *Driver) Events(ctx context.Context, t drivers.Target) ([]*api.BmcEvent, error) {
	set, err := parse(t.Info)
	if err != nil {
		return nil, err
	}
	if _, err := d.read(ctx, set, "sel", "info"); err != nil {
		return nil, err
	}
	out, err := d.read(ctx, set, quiet, "-c", "sel", "list")
	if err != nil {
		return nil, err
	}
	return parseEvents(out), nil
}

// ClearEvents implements drivers.EventClearer.
func (d *Driver) ClearEvents(ctx context.Context, t drivers.Target, g drivers.Grant) error {
	return d.change(ctx, t, g, "Clearing SEL", "sel", "clear")
}

// SendNMI implements drivers.NMISender.
func (d *Driver) SendNMI(ctx context.Context, t drivers.Target, g drivers.Grant) error {
	return d.change(ctx, t, g, "Chassis Power Control: Diag", "chassis", "power", "diag")
}

// Indicator implements drivers.IndicatorSetter. `chassis status` does not
// print it, so the bytes are asked for.
func (d *Driver) Indicator(ctx context.Context, t drivers.Target) (api.Indicator, error) {
	const unknown = api.Indicator_INDICATOR_UNKNOWN
	set, err := parse(t.Info)
	if err != nil {
		return unknown, err
	}
	out, err := d.read(ctx, set, "raw", "0x00", "0x01")
	if err != nil {
		return unknown, err
	}
	data, err := hex.DecodeString(strings.Join(strings.Fields(out), ""))
	if err != nil || len(data) < 3 {
		return unknown, strange("chassis status", out)
	}
	switch misc := data[2]; {
	case misc&0x40 == 0:
		return unknown, errs.New(errs.Unsupported, "the BMC does not tell whether the indicator is lit")
	case misc&0x30 == 0:
		return api.Indicator_INDICATOR_OFF, nil
	}
	return api.Indicator_INDICATOR_ON, nil
}

// SetIndicator implements drivers.IndicatorSetter. Whether a lit one blinks is
// the BMC's choice.
func (d *Driver) SetIndicator(ctx context.Context, t drivers.Target, g drivers.Grant, state api.Indicator) error {
	switch state {
	case api.Indicator_INDICATOR_OFF:
		return d.change(ctx, t, g, "Chassis identify interval: off", "chassis", "identify", "0")
	case api.Indicator_INDICATOR_ON, api.Indicator_INDICATOR_BLINKING:
		return d.change(ctx, t, g, "Chassis identify interval: indefinite", "chassis", "identify", "force")
	}
	return errs.New(errs.Unsupported, "indicator %v is no state to set", state)
}

// Items implements drivers.ItemReader.
func (d *Driver) Items(ctx context.Context, t drivers.Target) ([]*api.HardwareItem, error) {
	set, err := parse(t.Info)
	if err != nil {
		return nil, err
	}
	info, err := d.read(ctx, set, "mc", "info")
	if err != nil {
		return nil, err
	}
	facts := &api.BmcFacts{}
	readInfo(facts, info)
	items := []*api.HardwareItem{{Kind: "bmc", Vendor: facts.GetVendor(), Version: facts.GetFirmware()}}
	fru, err := d.read(ctx, set, "fru", "print")
	if err != nil && errs.KindOf(err) != errs.Unsupported && errs.KindOf(err) != errs.Internal {
		return nil, err
	}
	parts := parseFRUs(fru)
	if len(parts) == 0 {
		return nil, errs.New(errs.Unsupported, "the BMC has no FRU records")
	}
	return append(items, parts...), nil
}
