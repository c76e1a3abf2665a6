package flow

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/node"
)

// Steps that talk to the BMC or set the boot record.

// How long a power change may take to be seen.
const (
	powerSettle   = 60 * time.Second
	softOffSettle = 10 * time.Minute
	deviceSettle  = 10 * time.Second
)

// identifyBMC logs in, reads who the BMC and its machine are, and the power.
func (r *runner) identifyBMC(ctx context.Context, p position) (outcome, error) {
	facts, err := r.cfg.BMC.Identify(ctx, r.node)
	if err != nil {
		return outcome{}, r.loginError(err)
	}
	power, err := r.cfg.BMC.Power(ctx, r.node)
	if err != nil {
		return outcome{}, r.loginError(err)
	}
	if err := r.unclaimed(facts); err != nil {
		return outcome{}, err
	}
	if was := r.cfg.Store.View().Node(r.node).GetBmc(); node.Compare(facts, was) == node.SameMachine {
		facts = r.richer(facts, was)
	}
	return outcome{
		result: map[string]any{"vendor": facts.GetVendor(), "model": facts.GetModel(), "power": power.String()},
		ops:    []*api.Op{r.write(p.flow, []string{"bmc", "power_state"}, &api.Node{Bmc: facts, PowerState: power})},
	}, nil
}

func (r *runner) powerOn(ctx context.Context, p position) (outcome, error) {
	if err := r.watchBeforePowerOn(ctx, p); err != nil {
		return outcome{}, err
	}
	return r.power(ctx, p, "power_on", api.PowerState_POWER_ON, api.PowerAction_POWER_ACTION_ON, powerSettle)
}

func (r *runner) powerOff(ctx context.Context, p position) (outcome, error) {
	return r.power(ctx, p, "power_off", api.PowerState_POWER_OFF, api.PowerAction_POWER_ACTION_OFF, powerSettle)
}

func (r *runner) powerSoftOff(ctx context.Context, p position) (outcome, error) {
	return r.power(ctx, p, "power_soft_off", api.PowerState_POWER_OFF, api.PowerAction_POWER_ACTION_SOFT_OFF, softOffSettle)
}

func (r *runner) power(ctx context.Context, p position, kind string, want api.PowerState, action api.PowerAction, settle time.Duration) (outcome, error) {
	medium := r.mediumLeft(p)
	if medium {
		// Whoever wants the power changed gets it with a medium in the drive too:
		// its path is dead, and the next flow ejects it.
		err := r.ejectBootMedia(ctx, p)
		if err != nil && (ctx.Err() != nil || r.hard.Err() != nil || r.lost() != nil) {
			return outcome{}, err
		} else if err != nil {
			r.log.Warn("the boot medium is left in the drive", "err", err)
		}
		medium = err != nil
	}
	ops, err := r.mutate(ctx, change{
		kind: kind, settle: settle, tries: 2,
		seen: func(ctx context.Context) (bool, error) {
			is, err := r.cfg.BMC.Power(ctx, r.node)
			return is == want, err
		},
		act: func(ctx context.Context, g grant) error {
			if want == api.PowerState_POWER_ON {
				r.cfg.Journal.NewBoot(r.node, r.cfg.Store.View().Node(r.node).GetBoot().GetNonce())
			}
			return r.cfg.BMC.SetPower(ctx, r.node, g, action)
		},
	})
	if err != nil {
		return outcome{}, err
	}
	out := outcome{ops: append(ops, r.write(p.flow, []string{"power_state", "target_power"}, &api.Node{PowerState: want}))}
	out.ops = append(out.ops, r.endsBoot(p, medium)...)
	if len(ops) > 0 && want == api.PowerState_POWER_ON { // an intent is closed: it was not on before
		out.powerOns = 1
	}
	return out, nil
}

// bootDevice sets what the machine boots from next: the network for the next
// boot only, the disk for good.
func (r *runner) bootDevice(ctx context.Context, p position) (outcome, error) {
	var args node.BootDeviceArgs
	if err := json.Unmarshal(p.step.GetArgs(), &args); err != nil {
		return outcome{}, errs.New(errs.Invalid, "arguments: %w", err)
	}
	want, opts := api.BootDevice_BOOT_DEVICE_PXE, drivers.BootOptions{UEFI: r.uefi()}
	if args.Device == "disk" {
		want, opts.Persistent = api.BootDevice_BOOT_DEVICE_DISK, true
	} else if r.usesMedia() {
		if err := r.insertBootMedia(ctx, p); err != nil {
			return outcome{}, err
		}
		want, args.Device = api.BootDevice_BOOT_DEVICE_CDROM, "cdrom"
	}
	asked := false
	ops, err := r.mutate(ctx, change{
		kind: "boot_device", args: args.Device, settle: deviceSettle, tries: 2,
		seen: func(ctx context.Context) (bool, error) {
			is, err := r.cfg.BMC.BootDevice(ctx, r.node)
			switch {
			case errors.Is(err, errs.Unsupported):
				return asked, nil // what cannot be read is believed once it was accepted
			case err != nil:
				return false, err
			}
			// Some BMCs report the disk as "no override", which it is.
			return is == want || asked && want == api.BootDevice_BOOT_DEVICE_DISK && is == api.BootDevice_BOOT_DEVICE_NONE, nil
		},
		act: func(ctx context.Context, g grant) error {
			err := r.cfg.BMC.SetBootDevice(ctx, r.node, g, want, opts)
			asked = asked || err == nil
			return err
		},
	})
	return outcome{ops: ops}, err
}

// uefi is the firmware mode of the node: properties/boot_mode, "uefi" unless
// it says "bios".
func (r *runner) uefi() bool { return r.bootMode() != "bios" }

// bootMode is what properties/boot_mode says, "" for nothing.
func (r *runner) bootMode() string {
	var props struct {
		BootMode string `json:"boot_mode"`
	}
	_ = json.Unmarshal(r.cfg.Store.View().Node(r.node).GetProperties(), &props) // canonical JSON: checked on entry
	return props.BootMode
}

// bootRamdisk mints the nonce of the boot that follows. The machine is off.
func (r *runner) bootRamdisk(_ context.Context, p position) (outcome, error) {
	boot := r.newBoot(p.flow.GetRewinds() + 1)
	r.cfg.Journal.NewBoot(r.node, boot.GetNonce())
	return outcome{ops: []*api.Op{r.write(p.flow, []string{"boot"}, &api.Node{Boot: boot})}}, nil
}

// newBoot is a record of a boot of the ramdisk that no machine has claimed. No
// machine can be on its way into the ramdisk: it is off, or an agent runs on it.
func (r *runner) newBoot(tries uint32) *api.Boot {
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // never fails
	v := r.cfg.Store.View()
	return &api.Boot{
		Target: api.BootTarget_BOOT_RAMDISK, Nonce: hex.EncodeToString(nonce),
		MintedTick: v.Globals().GetTicks(), Tries: tries, Medium: v.Node(r.node).GetBoot().GetMedium(),
	}
}

func (r *runner) bootLocal(ctx context.Context, p position) (outcome, error) {
	return r.bootRecord(ctx, p, api.BootTarget_BOOT_LOCAL)
}

func (r *runner) bootNothing(ctx context.Context, p position) (outcome, error) {
	return r.bootRecord(ctx, p, api.BootTarget_BOOT_NOTHING)
}

// bootRecord ends the boots of the ramdisk, and takes its medium out.
func (r *runner) bootRecord(ctx context.Context, p position, target api.BootTarget) (outcome, error) {
	if r.usesMedia() || r.cfg.Store.View().Node(r.node).GetBoot().GetMedium() {
		if err := r.ejectBootMedia(ctx, p); err != nil {
			return outcome{}, err
		}
	}
	return outcome{ops: []*api.Op{r.write(p.flow, []string{"boot"}, &api.Node{Boot: &api.Boot{Target: target}})}}, nil
}
