package drivers

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// What a BMC can do beside power and boot device. Each interface is optional;
// Capabilities says the same as data. A BMC that lacks what its protocol has is
// answered with errs.Unsupported.

// BootModer reads and chooses the firmware's boot mode.
type BootModer interface {
	// BootMode is BOOT_MODE_UNKNOWN, without an error, where the BMC leaves
	// the mode to the firmware.
	BootMode(ctx context.Context, t Target) (api.BootMode, error)
	// SetBootMode chooses the mode of the boots to come.
	SetBootMode(ctx context.Context, t Target, g Grant, mode api.BootMode) error
}

// SecureBooter reads and sets the firmware's Secure Boot switch.
type SecureBooter interface {
	SecureBoot(ctx context.Context, t Target) (*api.SecureBoot, error)
	// SetSecureBoot is in force from the next boot on.
	SetSecureBoot(ctx context.Context, t Target, g Grant, enabled bool) error
}

// MediaAttacher puts images served over HTTP into the BMC's virtual drives.
type MediaAttacher interface {
	// Media are the slots, in the BMC's order.
	Media(ctx context.Context, t Target) ([]*api.VirtualMedia, error)
	// InsertMedia puts an image into a slot, "" being the first for a CD.
	// An image that is in it must be ejected before: errs.Busy.
	InsertMedia(ctx context.Context, t Target, g Grant, slot, image string) error
	// EjectMedia empties a slot; an empty one is no error.
	EjectMedia(ctx context.Context, t Target, g Grant, slot string) error
}

// Slot is the slot of that name, or the first for a CD where name is "".
func Slot(all []*api.VirtualMedia, name string) (*api.VirtualMedia, error) {
	var names []string
	for _, m := range all {
		cd := slices.Contains(m.GetTypes(), "CD") || slices.Contains(m.GetTypes(), "DVD")
		if name != "" && strings.EqualFold(m.GetSlot(), name) || name == "" && cd {
			return m, nil
		}
		names = append(names, m.GetSlot())
	}
	return nil, errs.About(errs.Invalid, "slot", "the BMC has no slot %q for virtual media, it has: %s", name, strings.Join(names, ", "))
}

// SensorReader reads the BMC's sensors.
type SensorReader interface {
	Sensors(ctx context.Context, t Target) ([]*api.Sensor, error)
}

// MaxEvents is how many events EventReader gives at most, the latest.
const MaxEvents = 1000

// EventReader reads the BMC's event log.
type EventReader interface {
	// Events are the latest MaxEvents entries, oldest first.
	Events(ctx context.Context, t Target) ([]*api.BmcEvent, error)
}

// EventClearer empties the BMC's event log.
type EventClearer interface {
	ClearEvents(ctx context.Context, t Target, g Grant) error
}

// NMISender interrupts the machine's operating system for diagnosis.
type NMISender interface {
	// SendNMI is the one edge among the levels: nothing shows that it was
	// done, so it is never sent again after an unknown outcome.
	SendNMI(ctx context.Context, t Target, g Grant) error
}

// IndicatorSetter reads and sets the LED that identifies a machine.
type IndicatorSetter interface {
	// Indicator may read a blinking LED as ON where the BMC does not tell
	// them apart.
	Indicator(ctx context.Context, t Target) (api.Indicator, error)
	// SetIndicator lights it where a BMC cannot blink, and the other way
	// round; OFF is always off.
	SetIndicator(ctx context.Context, t Target, g Grant, state api.Indicator) error
}

// ItemReader lists the parts that the BMC knows.
type ItemReader interface {
	Items(ctx context.Context, t Target) ([]*api.HardwareItem, error)
}

// ConsoleReader reads the machine's serial console.
type ConsoleReader interface {
	// ReadConsole writes to w what the console shows from now on, and calls
	// opened before the first byte, once. It returns, always with an error,
	// when ctx or the grant ends (as Ended says), or when the BMC ends the
	// session: errs.Unreachable. w must take everything. Nothing is typed.
	//
	// A BMC has one session. Somebody else's is ended, which needs the grant;
	// it may be that of a process that died. It is errs.Busy to read the
	// console of one BMC twice in one process. Not every BMC tells a reader
	// that its session was taken: silence proves nothing.
	ReadConsole(ctx context.Context, t Target, g Grant, opened func(), w io.Writer) error
}

// Closer gives back what a driver keeps between calls, such as sessions for
// reading. The driver can be used again afterwards.
type Closer interface {
	// Close returns when what was kept is given back or ctx has ended.
	Close(ctx context.Context)
}
