package redfish

import (
	"context"
	"net/http"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// boot is the boot override of a system.
type boot struct {
	Target  string `json:"BootSourceOverrideTarget"`
	Enabled string `json:"BootSourceOverrideEnabled"`
	Mode    string `json:"BootSourceOverrideMode"`
}

var bootTargets = map[api.BootDevice]string{
	api.BootDevice_BOOT_DEVICE_NONE:  "None",
	api.BootDevice_BOOT_DEVICE_PXE:   "Pxe",
	api.BootDevice_BOOT_DEVICE_DISK:  "Hdd",
	api.BootDevice_BOOT_DEVICE_CDROM: "Cd",
}

// bootAt is where the override is written and read: the system itself, or the
// resource of its settings to come.
func (l *link) bootAt(s *system, q behaviour) (path, etag string, b boot, err error) {
	pending := s.Settings.SettingsObject.ID
	if !q.has(settingsBoot) || pending == "" {
		return s.path, s.etag, s.Boot, nil
	}
	var sd struct{ Boot boot }
	etag, err = l.get(pending, &sd)
	if sd.Boot.Mode == "" {
		sd.Boot.Mode = s.Boot.Mode
	}
	return pending, etag, sd.Boot, err
}

// SetBootDevice implements drivers.BootDeviceSetter.
func (d *Driver) SetBootDevice(ctx context.Context, t drivers.Target, g drivers.Grant, device api.BootDevice, opts drivers.BootOptions) error {
	target, ok := bootTargets[device]
	if !ok {
		return errs.New(errs.Unsupported, "boot device %v is not supported", device)
	}
	return d.changeSystem(ctx, t, g, func(_ context.Context, l *link, s *system, q behaviour) error {
		path, etag, now, err := l.bootAt(s, q)
		if err != nil {
			return err
		}
		mode := "Legacy"
		if opts.UEFI {
			mode = "UEFI"
		}
		props := map[string]any{"BootSourceOverrideTarget": target, "BootSourceOverrideEnabled": "Once"}
		switch {
		case device == api.BootDevice_BOOT_DEVICE_NONE:
			props["BootSourceOverrideEnabled"] = "Disabled"
			if mode = ""; q.has(withMode) {
				mode = now.Mode
			}
			if q.has(keepTarget) {
				props["BootSourceOverrideTarget"] = "Pxe" // not heeded once disabled
			}
		case opts.Persistent, q.has(persistBoot):
			props["BootSourceOverrideEnabled"] = "Continuous"
		}
		if mode == "" || q.has(omitMode) {
			return l.patch(path, map[string]any{"Boot": props}, etag, q)
		}
		full := map[string]any{"BootSourceOverrideMode": mode}
		for k, v := range props {
			full[k] = v
		}
		err = l.patch(path, map[string]any{"Boot": full}, etag, q)
		if s := statusOf(err); s != http.StatusBadRequest && s != http.StatusUnprocessableEntity {
			return err
		}
		// Refused for its form: there are BMCs that do not let the mode be set.
		return l.patch(path, map[string]any{"Boot": props}, etag, q)
	})
}

// BootDevice implements drivers.BootDeviceReader.
func (d *Driver) BootDevice(ctx context.Context, t drivers.Target) (api.BootDevice, error) {
	var now boot
	err := d.readBoot(ctx, t, func(b boot) { now = b })
	if err != nil || now.Enabled == "Disabled" {
		return api.BootDevice_BOOT_DEVICE_NONE, err
	}
	for device, target := range bootTargets {
		if now.Target == target {
			return device, nil
		}
	}
	if now.Target == "" {
		return api.BootDevice_BOOT_DEVICE_NONE, errs.New(errs.Unsupported, "the BMC does not tell the boot device")
	}
	return api.BootDevice_BOOT_DEVICE_NONE, errs.New(errs.Unsupported, "the boot device is set to %q, which is not one of ours", clean(now.Target))
}

// BootMode implements drivers.BootModer.
func (d *Driver) BootMode(ctx context.Context, t drivers.Target) (api.BootMode, error) {
	var now boot
	if err := d.readBoot(ctx, t, func(b boot) { now = b }); err != nil {
		return api.BootMode_BOOT_MODE_UNKNOWN, err
	}
	switch now.Mode {
	case "UEFI":
		return api.BootMode_BOOT_MODE_UEFI, nil
	case "Legacy":
		return api.BootMode_BOOT_MODE_BIOS, nil
	}
	return api.BootMode_BOOT_MODE_UNKNOWN, nil
}

func (d *Driver) readBoot(ctx context.Context, t drivers.Target, take func(boot)) error {
	return d.readSystem(ctx, t, func(l *link, s *system) error {
		q, err := l.behaviour(s)
		if err != nil {
			return err
		}
		_, _, b, err := l.bootAt(s, q)
		if err == nil {
			take(b)
		}
		return err
	})
}

// SetBootMode implements drivers.BootModer.
func (d *Driver) SetBootMode(ctx context.Context, t drivers.Target, g drivers.Grant, mode api.BootMode) error {
	text := map[api.BootMode]string{api.BootMode_BOOT_MODE_UEFI: "UEFI", api.BootMode_BOOT_MODE_BIOS: "Legacy"}[mode]
	if text == "" {
		return errs.New(errs.Unsupported, "boot mode %v is not supported: use uefi or bios", mode)
	}
	return d.changeSystem(ctx, t, g, func(_ context.Context, l *link, s *system, q behaviour) error {
		path, etag, now, err := l.bootAt(s, q)
		switch {
		case err != nil:
			return err
		case q.has(omitMode) || now.Mode == "":
			return errs.New(errs.Unsupported, "this BMC does not let the boot mode be set by Redfish: set it in the firmware's setup")
		}
		props := map[string]any{"BootSourceOverrideMode": text}
		if q.has(withMode) { // it takes all three together
			props["BootSourceOverrideTarget"], props["BootSourceOverrideEnabled"] = now.Target, now.Enabled
		}
		return l.patch(path, map[string]any{"Boot": props}, etag, q)
	})
}

// SecureBoot implements drivers.SecureBooter.
func (d *Driver) SecureBoot(ctx context.Context, t drivers.Target) (out *api.SecureBoot, err error) {
	err = d.readSystem(ctx, t, func(l *link, s *system) error {
		sb, _, err := l.secureBoot(s)
		if err == nil {
			out = &api.SecureBoot{Enabled: *sb.SecureBootEnable, Active: sb.SecureBootCurrentBoot == "Enabled", Mode: clean(sb.SecureBootMode)}
		}
		return err
	})
	return out, err
}

type secureBoot struct {
	SecureBootEnable      *bool
	SecureBootCurrentBoot string
	SecureBootMode        string
}

func (l *link) secureBoot(s *system) (sb secureBoot, etag string, err error) {
	if etag, err = l.get(s.SecureBoot.ID, &sb); err == nil && sb.SecureBootEnable == nil {
		err = errs.New(errs.Unsupported, "the BMC does not offer Secure Boot")
	}
	return sb, etag, err
}

// SetSecureBoot implements drivers.SecureBooter.
func (d *Driver) SetSecureBoot(ctx context.Context, t drivers.Target, g drivers.Grant, enabled bool) error {
	return d.changeSystem(ctx, t, g, func(_ context.Context, l *link, s *system, q behaviour) error {
		_, etag, err := l.secureBoot(s)
		if err != nil {
			return err
		}
		return l.patch(s.SecureBoot.ID, map[string]any{"SecureBootEnable": enabled}, etag, q)
	})
}
