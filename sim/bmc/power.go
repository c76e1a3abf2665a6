package bmc

import (
	"context"
	"time"

	"github.com/ironring/ironring/api"
)

// The power states of Redfish.
const (
	powerOn     = "On"
	powerOff    = "Off"
	poweringOn  = "PoweringOn"
	poweringOff = "PoweringOff"
)

// maxPending is how many changes of power may wait.
const maxPending = 16

// change is an accepted reset.
type change struct {
	reset string // Redfish ResetType
	event *Event
}

// resetTypes are those that the BMC offers.
var resetTypes = []string{
	"On", "ForceOn", "ForceOff", "GracefulShutdown", "GracefulRestart",
	"ForceRestart", "PowerCycle", "PushPowerButton", "Nmi",
}

// reset accepts a change of power; false when too many wait already.
func (b *BMC) reset(kind string, e *Event) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case b.queue <- change{kind, e}:
	default:
		return false
	}
	b.pending++
	b.hw.lastReset = time.Now()
	switch {
	case (kind == "On" || kind == "ForceOn") && b.power == powerOff:
		b.power = poweringOn
	case kind == "ForceOff" && b.power != powerOff:
		b.power = poweringOff
	}
	b.etag++
	return true
}

// engine brings accepted changes into effect, one after another.
func (b *BMC) engine(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-b.queue:
			if d := b.cfg.PowerDelay; d > 0 {
				timer := time.NewTimer(d)
				select {
				case <-ctx.Done():
					timer.Stop()
					return
				case <-timer.C:
				}
			}
			b.effect(c)
		}
	}
}

// effect carries out one reset. The Machine is called without the lock: it may
// call back.
func (b *BMC) effect(c change) {
	running := b.running()
	switch c.reset {
	case "On", "ForceOn":
		if !running {
			b.start()
		}
	case "ForceOff":
		b.stop()
	case "GracefulShutdown":
		if running {
			b.soft()
		}
	case "PushPowerButton":
		if running {
			b.soft()
		} else {
			b.start()
		}
	case "Nmi":
		b.mu.Lock()
		b.hw.nmis++
		b.logLocked("Warning", "NMI/Diag Interrupt")
		b.mu.Unlock()
	case "ForceRestart", "PowerCycle", "GracefulRestart":
		// A guest that would obey a graceful restart is not simulated.
		b.stop()
		b.start()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pending--
	c.event.Effective = time.Now()
	c.event.After = b.power
	b.etag++
}

// running is whether the machine behind has power; while a change is pending
// the state that is shown is ahead of it.
func (b *BMC) running() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stats.powered
}

func (b *BMC) start() {
	boot := b.NextBoot()
	b.setPowered(true)
	if b.cfg.Machine != nil {
		b.cfg.Machine.PowerOn(boot)
	}
}

func (b *BMC) stop() {
	if b.running() && b.cfg.Machine != nil {
		b.cfg.Machine.PowerOff()
	}
	b.setPowered(false)
}

func (b *BMC) soft() {
	if b.cfg.Machine != nil {
		b.cfg.Machine.SoftOff()
		return
	}
	b.setPowered(false)
}

func (b *BMC) setPowered(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stats.powered = on
	b.power = powerOff
	if on {
		b.power = powerOn
		b.stats.PowerOns++
	}
	b.etag++
}

// Power is the state as clients see it.
func (b *BMC) Power() api.PowerState {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.power {
	case powerOn:
		return api.PowerState_POWER_ON
	case powerOff:
		return api.PowerState_POWER_OFF
	}
	return api.PowerState_POWER_UNKNOWN
}

// SetPowered says what the power was when the BMC started: a machine that ran
// before its BMC did. The Machine is not called.
func (b *BMC) SetPowered(on bool) { b.setPowered(on) }

// PoweredOff is called by a machine that has switched itself off. It does
// nothing when the machine has no power, or is about to get some.
func (b *BMC) PoweredOff() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.stats.powered {
		return
	}
	b.stats.powered = false
	if b.power == powerOn {
		b.power = powerOff
	}
	b.etag++
}

// NextBoot is the device that the machine boots from now, and uses up an
// override that is for one boot. A machine calls it when it reboots by itself.
func (b *BMC) NextBoot() api.BootDevice {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.overrideLocked()
	once := o.enabled == "Once"
	device := targets[o.target]
	if o.enabled == "Disabled" || once && b.is.OnceLost {
		device = api.BootDevice_BOOT_DEVICE_NONE
	}
	if once {
		o.enabled, o.target, o.uri = "Disabled", "None", ""
		b.etag++
	}
	return device
}

// overrideLocked is the override in force: what waits at the settings resource
// is in force from the next boot, which is when it is asked for.
func (b *BMC) overrideLocked() *override {
	if b.is.SettingsBoot {
		return &b.hw.sd
	}
	return &b.boot
}

// Boot is the boot device in force, without using it up.
func (b *BMC) Boot() api.BootDevice {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.overrideLocked()
	if o.enabled == "Disabled" {
		return api.BootDevice_BOOT_DEVICE_NONE
	}
	return targets[o.target]
}

// targets are the boot override targets on offer.
var targets = map[string]api.BootDevice{
	"None":     api.BootDevice_BOOT_DEVICE_NONE,
	"Pxe":      api.BootDevice_BOOT_DEVICE_PXE,
	"UefiHttp": api.BootDevice_BOOT_DEVICE_PXE,
	"Hdd":      api.BootDevice_BOOT_DEVICE_DISK,
	"Cd":       api.BootDevice_BOOT_DEVICE_CDROM,
}
