package bmc

import (
	"context"
	"errors"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
	nodes "github.com/ironring/ironring/node"
)

// reading is call for what only reads and gives one value.
func reading[D, V any](a *Access, ctx context.Context, node, what string, read func(D, context.Context, drivers.Target) (V, error)) (v V, err error) {
	err = call(a, ctx, node, what, a.cfg.ReadTimeout, func(ctx context.Context, d D, t drivers.Target) error {
		v, err = read(d, ctx, t)
		return err
	})
	return v, err
}

// changing is call for what changes the machine.
func changing[D any](a *Access, ctx context.Context, node, what string, do func(D, context.Context, drivers.Target) error) error {
	return change(a, ctx, node, what, func(ctx context.Context, d D, t drivers.Target) error { return do(d, ctx, t) })
}

// BootMode reads the firmware's boot mode.
func (a *Access) BootMode(ctx context.Context, node string) (api.BootMode, error) {
	return reading(a, ctx, node, "read boot mode", drivers.BootModer.BootMode)
}

// SetBootMode chooses the firmware's boot mode.
func (a *Access) SetBootMode(ctx context.Context, node string, g drivers.Grant, mode api.BootMode) error {
	return changing(a, ctx, node, "set boot mode", func(d drivers.BootModer, ctx context.Context, t drivers.Target) error {
		return d.SetBootMode(ctx, t, g, mode)
	})
}

// SecureBoot reads the firmware's Secure Boot switch.
func (a *Access) SecureBoot(ctx context.Context, node string) (*api.SecureBoot, error) {
	return reading(a, ctx, node, "read Secure Boot", drivers.SecureBooter.SecureBoot)
}

// SetSecureBoot sets it.
func (a *Access) SetSecureBoot(ctx context.Context, node string, g drivers.Grant, enabled bool) error {
	return changing(a, ctx, node, "set Secure Boot", func(d drivers.SecureBooter, ctx context.Context, t drivers.Target) error {
		return d.SetSecureBoot(ctx, t, g, enabled)
	})
}

// Media reads the slots for virtual media.
func (a *Access) Media(ctx context.Context, node string) ([]*api.VirtualMedia, error) {
	return reading(a, ctx, node, "read virtual media", drivers.MediaAttacher.Media)
}

// InsertMedia puts an image into a slot, "" being the first for a CD.
func (a *Access) InsertMedia(ctx context.Context, node string, g drivers.Grant, slot, image string) error {
	return changing(a, ctx, node, "insert virtual media", func(d drivers.MediaAttacher, ctx context.Context, t drivers.Target) error {
		return d.InsertMedia(ctx, t, g, slot, image)
	})
}

// EjectMedia empties a slot.
func (a *Access) EjectMedia(ctx context.Context, node string, g drivers.Grant, slot string) error {
	return changing(a, ctx, node, "eject virtual media", func(d drivers.MediaAttacher, ctx context.Context, t drivers.Target) error {
		return d.EjectMedia(ctx, t, g, slot)
	})
}

// Indicator reads the LED.
func (a *Access) Indicator(ctx context.Context, node string) (api.Indicator, error) {
	return reading(a, ctx, node, "read indicator", drivers.IndicatorSetter.Indicator)
}

// SetIndicator sets the LED.
func (a *Access) SetIndicator(ctx context.Context, node string, g drivers.Grant, state api.Indicator) error {
	return changing(a, ctx, node, "set indicator", func(d drivers.IndicatorSetter, ctx context.Context, t drivers.Target) error {
		return d.SetIndicator(ctx, t, g, state)
	})
}

// SendNMI interrupts the machine's operating system.
func (a *Access) SendNMI(ctx context.Context, node string, g drivers.Grant) error {
	return changing(a, ctx, node, "send an NMI", func(d drivers.NMISender, ctx context.Context, t drivers.Target) error {
		return d.SendNMI(ctx, t, g)
	})
}

// Events reads the event log.
func (a *Access) Events(ctx context.Context, node string) ([]*api.BmcEvent, error) {
	return reading(a, ctx, node, "read events", drivers.EventReader.Events)
}

// ClearEvents empties the event log.
func (a *Access) ClearEvents(ctx context.Context, node string, g drivers.Grant) error {
	return changing(a, ctx, node, "clear events", func(d drivers.EventClearer, ctx context.Context, t drivers.Target) error {
		return d.ClearEvents(ctx, t, g)
	})
}

// parts has a reader for each part of the hardware.
var parts = map[api.HardwarePart]func(a *Access, ctx context.Context, node string, out *api.GetHardwareReply) error{
	api.HardwarePart_HARDWARE_BOOT: func(a *Access, ctx context.Context, node string, out *api.GetHardwareReply) (err error) {
		if out.BootDevice, err = a.BootDevice(ctx, node); err != nil {
			return err
		}
		if out.BootMode, err = a.BootMode(ctx, node); errors.Is(err, errs.Unsupported) {
			return nil // unknown, as it says
		}
		return err
	},
	api.HardwarePart_HARDWARE_SECURE_BOOT: func(a *Access, ctx context.Context, node string, out *api.GetHardwareReply) (err error) {
		out.SecureBoot, err = a.SecureBoot(ctx, node)
		return err
	},
	api.HardwarePart_HARDWARE_MEDIA: func(a *Access, ctx context.Context, node string, out *api.GetHardwareReply) (err error) {
		out.Media, err = a.Media(ctx, node)
		return err
	},
	api.HardwarePart_HARDWARE_INDICATOR: func(a *Access, ctx context.Context, node string, out *api.GetHardwareReply) (err error) {
		out.Indicator, err = a.Indicator(ctx, node)
		return err
	},
	api.HardwarePart_HARDWARE_SENSORS: func(a *Access, ctx context.Context, node string, out *api.GetHardwareReply) (err error) {
		out.Sensors, err = reading(a, ctx, node, "read sensors", drivers.SensorReader.Sensors)
		return err
	},
	api.HardwarePart_HARDWARE_EVENTS: func(a *Access, ctx context.Context, node string, out *api.GetHardwareReply) (err error) {
		out.Events, err = a.Events(ctx, node)
		return err
	},
	api.HardwarePart_HARDWARE_ITEMS: func(a *Access, ctx context.Context, node string, out *api.GetHardwareReply) (err error) {
		out.Items, err = reading(a, ctx, node, "list hardware", drivers.ItemReader.Items)
		return err
	},
}

// Hardware reads some parts. What this BMC lacks is named in the reply where
// other parts could be read; an error is returned where nothing could.
func (a *Access) Hardware(ctx context.Context, node string, want []api.HardwarePart) (*api.GetHardwareReply, error) {
	out := &api.GetHardwareReply{NodeId: node, From: a.cfg.Member}
	n, err := a.node(node)
	if err != nil {
		return nil, err
	}
	var last error
	for _, p := range want {
		read := parts[p]
		if read == nil {
			return nil, errs.About(errs.Invalid, "parts", "there is no part %v of the hardware", p)
		}
		if err := read(a, ctx, node, out); err != nil {
			if errs.KindOf(err) != errs.Unsupported {
				return nil, err
			}
			last = err
			out.Problems = append(out.Problems, &api.HardwareProblem{Part: p, Kind: errs.KindOf(err).String(), Message: err.Error()})
		}
	}
	if last != nil && len(out.Problems) == len(want) {
		return nil, last
	}
	out.ReadMs = a.cfg.Clock.Now().UnixMilli()
	now, err := a.node(node)
	if err != nil {
		return nil, err
	}
	out.Warning = unverified(n, now)
	return out, nil
}

// unverified warns of what may have been read of another machine. Reading is
// allowed there: it is how a person finds out which one it is.
func unverified(before, now *api.Node) string {
	switch {
	case before.GetDriverRev() != now.GetDriverRev():
		return "driver or driver_info changed meanwhile: parts of this may be of one machine and parts of another"
	case nodes.Verified(now):
		return ""
	case now.GetBmc() == nil:
		return "whose BMC this is was never verified: it may be another machine's than the one that is meant"
	}
	was, _ := nodes.Machine(now.GetBmc())
	return "driver or driver_info have changed since the BMC was verified: this may be another machine than the node's, which is " + was
}
