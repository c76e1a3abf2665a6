package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// Steps that change what a BMC keeps beside the power, as an operator asked.
// They go the way of all changes at a BMC: announced, asked for once, proven by
// reading.

// How long such a change may take to be seen.
const hardwareSettle = 30 * time.Second

func hardwareArgs(p position) (node.HardwareArgs, error) {
	var args node.HardwareArgs
	if err := json.Unmarshal(p.step.GetArgs(), &args); err != nil {
		return args, errs.New(errs.Invalid, "arguments: %w", err)
	}
	return args, nil
}

// set makes a change that can be read back. What a BMC takes and cannot tell is
// believed.
func (r *runner) set(ctx context.Context, p position, kind string, seen func(_ context.Context, _ node.HardwareArgs, asked bool) (bool, error), act func(context.Context, grant, node.HardwareArgs) error) (outcome, error) {
	args, err := hardwareArgs(p)
	if err != nil {
		return outcome{}, err
	}
	asked := false
	ops, err := r.mutate(ctx, change{
		kind: kind, args: string(p.step.GetArgs()), settle: hardwareSettle, tries: 2,
		seen: func(ctx context.Context) (bool, error) {
			ok, err := seen(ctx, args, asked)
			if asked && errors.Is(err, errs.Unsupported) {
				return true, nil
			}
			if !asked && errors.Is(err, errs.Unsupported) {
				return false, nil // whether it can be set, the BMC says itself
			}
			return ok, err
		},
		act: func(ctx context.Context, g grant) error {
			err := act(ctx, g, args)
			asked = asked || err == nil
			return err
		},
	})
	return outcome{ops: ops}, err
}

func (r *runner) setBootDevice(ctx context.Context, p position) (outcome, error) {
	return r.set(ctx, p, "boot_device", func(ctx context.Context, a node.HardwareArgs, asked bool) (bool, error) {
		const none, disk = api.BootDevice_BOOT_DEVICE_NONE, api.BootDevice_BOOT_DEVICE_DISK
		is, err := r.cfg.BMC.BootDevice(ctx, r.node)
		// Whether it is for one boot or for all cannot be read: it is asked for
		// anew. Some BMCs report the disk as "no override", which it is.
		return is == a.Device && (asked || is == none) || asked && a.Device == disk && is == none, err
	}, func(ctx context.Context, g grant, a node.HardwareArgs) error {
		uefi := r.uefi()
		if a.Mode != api.BootMode_BOOT_MODE_UNKNOWN {
			uefi = a.Mode == api.BootMode_BOOT_MODE_UEFI
		}
		return r.cfg.BMC.SetBootDevice(ctx, r.node, g, a.Device, drivers.BootOptions{Persistent: a.Persistent, UEFI: uefi})
	})
}

func (r *runner) setBootMode(ctx context.Context, p position) (outcome, error) {
	out, err := r.set(ctx, p, "boot_mode", func(ctx context.Context, a node.HardwareArgs, _ bool) (bool, error) {
		is, err := r.cfg.BMC.BootMode(ctx, r.node)
		return is == a.Mode, err
	}, func(ctx context.Context, g grant, a node.HardwareArgs) error {
		return r.cfg.BMC.SetBootMode(ctx, r.node, g, a.Mode)
	})
	out.ops = append(out.ops, r.agesBoot(p)...)
	return out, err
}

func (r *runner) setSecureBoot(ctx context.Context, p position) (outcome, error) {
	out, err := r.set(ctx, p, "secure_boot", func(ctx context.Context, a node.HardwareArgs, _ bool) (bool, error) {
		is, err := r.cfg.BMC.SecureBoot(ctx, r.node)
		return err == nil && is.GetEnabled() == a.Enabled, err
	}, func(ctx context.Context, g grant, a node.HardwareArgs) error {
		return r.cfg.BMC.SetSecureBoot(ctx, r.node, g, a.Enabled)
	})
	out.ops = append(out.ops, r.agesBoot(p)...)
	return out, err
}

// insertMedia ejects what is in the slot before; that is a change of its own.
func (r *runner) insertMedia(ctx context.Context, p position) (outcome, error) {
	args, err := hardwareArgs(p)
	if err != nil {
		return outcome{}, err
	}
	now, err := r.slot(ctx, args.Slot)
	if err != nil {
		return outcome{}, r.loginError(err)
	}
	if now.GetInserted() && now.GetImage() != args.Image {
		ops, err := r.eject(ctx, p, now.GetSlot())
		if err != nil {
			return outcome{}, err
		}
		if len(ops) > 0 {
			if _, err := r.commit(ctx, "ejected before another medium", ops...); err != nil {
				return outcome{}, err
			}
		}
	}
	return r.set(ctx, p, "insert_media", func(ctx context.Context, a node.HardwareArgs, _ bool) (bool, error) {
		is, err := r.slot(ctx, a.Slot)
		return err == nil && is.GetInserted() && is.GetImage() == a.Image, err
	}, func(ctx context.Context, g grant, a node.HardwareArgs) error {
		return r.cfg.BMC.InsertMedia(ctx, r.node, g, a.Slot, a.Image)
	})
}

func (r *runner) ejectMedia(ctx context.Context, p position) (outcome, error) {
	args, err := hardwareArgs(p)
	if err != nil {
		return outcome{}, err
	}
	ops, err := r.eject(ctx, p, args.Slot)
	return outcome{ops: ops}, err
}

func (r *runner) eject(ctx context.Context, _ position, slot string) ([]*api.Op, error) {
	return r.mutate(ctx, change{
		kind: "eject_media", args: slot, settle: hardwareSettle, tries: 2,
		seen: func(ctx context.Context) (bool, error) {
			is, err := r.slot(ctx, slot)
			return err == nil && !is.GetInserted(), err
		},
		act: func(ctx context.Context, g grant) error { return r.cfg.BMC.EjectMedia(ctx, r.node, g, slot) },
	})
}

// slot is the state of the slot of that name, or of the first for a CD.
func (r *runner) slot(ctx context.Context, name string) (*api.VirtualMedia, error) {
	all, err := r.cfg.BMC.Media(ctx, r.node)
	if err != nil {
		return nil, err
	}
	return drivers.Slot(all, name)
}

func (r *runner) setIndicator(ctx context.Context, p position) (outcome, error) {
	return r.set(ctx, p, "indicator", func(ctx context.Context, a node.HardwareArgs, _ bool) (bool, error) {
		is, err := r.cfg.BMC.Indicator(ctx, r.node)
		lit := a.Indicator != api.Indicator_INDICATOR_OFF
		// Lit may stand for blinking where a BMC knows one of them only.
		return is != api.Indicator_INDICATOR_UNKNOWN && (is != api.Indicator_INDICATOR_OFF) == lit, err
	}, func(ctx context.Context, g grant, a node.HardwareArgs) error {
		return r.cfg.BMC.SetIndicator(ctx, r.node, g, a.Indicator)
	})
}

// clearEvents is seen once none of the entries from before is left: a BMC
// may note the clearing itself, or something else meanwhile. A new holder
// clears again what is there then.
func (r *runner) clearEvents(ctx context.Context, p position) (outcome, error) {
	key := func(e *api.BmcEvent) string { return fmt.Sprint(e.GetId(), " ", e.GetAtMs(), " ", e.GetText()) }
	var before map[string]bool
	out, err := r.set(ctx, p, "clear_events", func(ctx context.Context, _ node.HardwareArgs, asked bool) (bool, error) {
		now, err := r.cfg.BMC.Events(ctx, r.node)
		if err != nil {
			return false, err
		}
		if before == nil {
			before = map[string]bool{}
			for _, e := range now {
				before[key(e)] = true
			}
		}
		if asked && len(now) <= 1 {
			return true, nil
		}
		for _, e := range now {
			if before[key(e)] {
				return false, nil
			}
		}
		return true, nil
	}, func(ctx context.Context, g grant, _ node.HardwareArgs) error {
		return r.cfg.BMC.ClearEvents(ctx, r.node, g)
	})
	out.result = map[string]any{"cleared": len(before)}
	return out, err
}

// sendNMI asks once, and never again: nothing shows whether it was done. A
// definite refusal is the only failure after which the step may be tried anew;
// the intent is closed when the NMI can no longer land late.
func (r *runner) sendNMI(ctx context.Context, p position) (outcome, error) {
	if _, err := r.landed(ctx, false); err != nil {
		return outcome{}, err
	}
	if in := r.intent(); in != nil {
		if err := r.close("not seen"); err != nil {
			return outcome{}, err
		}
	}
	acted, sent := false, false
	_, err := r.attempt(ctx, change{
		kind: "nmi", tries: 1,
		seen: func(context.Context) (bool, error) { return sent, nil },
		act: func(ctx context.Context, g grant) error {
			acted = true
			err := r.cfg.BMC.SendNMI(ctx, r.node, g)
			sent = err == nil
			return err
		},
	})
	switch {
	case err != nil && (!acted || definite(err)):
		return outcome{}, r.loginError(err) // nothing was sent
	case errors.Is(err, errMoved), errors.Is(err, errs.Fenced), r.hard.Err() != nil:
		return outcome{}, err // not ours to judge any more
	case !sent:
		return outcome{}, errs.New(errs.Internal, "whether the machine was interrupted is not known, and it is not done twice: %v", err)
	}
	return outcome{ops: r.closing("sent")}, nil
}
