package drivers

import (
	"context"
	"time"

	"github.com/ironring/ironring/api"
)

// Target is the machine that a call is about.
type Target struct {
	NodeID string // for messages only
	Driver string
	Info   Info // unsealed driver_info
}

// Grant is the right to change a machine, of the holder of a lease and a lock.
// It is checked before and during each mutating call, from several goroutines.
type Grant interface {
	// Check returns an error of kind errs.Fenced, or another kind that says
	// more, once the right has ended. It does not block.
	Check() error
	// Deadline is when the right ends unless it is renewed. It may move
	// later while a call is under way. The zero time has passed.
	Deadline() time.Time
	// Token is the lock's fencing token.
	Token() uint64
}

// Doner is what a Grant may be as well, so that its end is noticed at once and
// not at the next check.
type Doner interface {
	// Done is closed when the right has ended for good.
	Done() <-chan struct{}
}

// Driver is what each driver is at least. What it can do beyond that is in the
// interfaces below; Capabilities says the same as data.
type Driver interface {
	// Name is what nodes have in their driver field.
	Name() string
	// Fields are the driver_info keys that the driver understands.
	Fields() []Field
	// Validate checks driver_info without any I/O. Errors are of kind
	// errs.Invalid and have the key as subject.
	Validate(Info) error
	// Capabilities is what the driver can do with a BMC that can do all.
	Capabilities() Capabilities
}

// Field describes one key of driver_info.
type Field struct {
	Name     string
	Required bool
	Secret   bool // sealed at rest, never shown
	Help     string
}

// Capabilities are what a driver can do.
type Capabilities struct {
	PowerRead      bool // PowerReader
	PowerSet       bool // PowerSetter
	SoftOff        bool // SetPower takes POWER_ACTION_SOFT_OFF
	BootDeviceSet  bool // BootDeviceSetter
	BootDeviceRead bool // BootDeviceReader
	PersistentBoot bool // BootOptions.Persistent
	UEFIBoot       bool // BootOptions.UEFI
	Identify       bool // Identifier
}

// PowerReader reads the power state.
type PowerReader interface {
	// PowerState is POWER_UNKNOWN, without an error, while the BMC itself
	// says that the machine is between on and off.
	PowerState(ctx context.Context, t Target) (api.PowerState, error)
}

// PowerSetter changes the power state.
type PowerSetter interface {
	// SetPower asks for ON, OFF or SOFT_OFF and returns when the BMC has
	// accepted it: the caller reads back. All else is errs.Unsupported;
	// a reboot is off, seen off, on, seen on. Asking for what already is,
	// is no error.
	SetPower(ctx context.Context, t Target, g Grant, action api.PowerAction) error
}

// BootOptions go with a boot device.
type BootOptions struct {
	Persistent bool // for all boots to come, not only the next
	UEFI       bool // boot in UEFI mode, not legacy BIOS
}

// BootDeviceSetter chooses where the machine boots from.
type BootDeviceSetter interface {
	// SetBootDevice chooses for the next power-on; BOOT_DEVICE_NONE leaves
	// the choice to the firmware again.
	SetBootDevice(ctx context.Context, t Target, g Grant, device api.BootDevice, opts BootOptions) error
}

// BootDeviceReader reads what SetBootDevice chose.
type BootDeviceReader interface {
	// BootDevice is BOOT_DEVICE_NONE when the firmware chooses, and
	// errs.Unsupported when the BMC cannot tell.
	BootDevice(ctx context.Context, t Target) (api.BootDevice, error)
}

// Identifier asks a BMC who it is and which machine it belongs to.
type Identifier interface {
	// Identify leaves empty what the BMC does not say. The caller fills in
	// read_ms.
	Identify(ctx context.Context, t Target) (*api.BmcFacts, error)
}
