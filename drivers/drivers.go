package drivers

import (
	"context"
	"errors"
	"time"

	"github.com/ironring/ironring/api"
)

// Target is the machine that a call is about.
type Target struct {
	NodeID string // for messages only
	Driver string
	Info   Info // unsealed driver_info
	// Trust is asked about certificates that driver_info does not settle;
	// nil trusts none.
	Trust Trust
}

// Trust remembers the certificate that a BMC was first known by.
type Trust interface {
	// Known is the fingerprint that is trusted for an address (host:port), ""
	// when there is none yet.
	Known(address string) string
	// First records the first fingerprint seen at an address. Nothing may be
	// sent to the BMC unless it returns nil.
	First(ctx context.Context, address, fingerprint string) error
}

// CertificateError says that a BMC has shown another certificate than the one
// that is trusted. It is of kind errs.Denied, but no login was tried.
type CertificateError struct {
	Address string // host:port
	Want    string // "sha256:HEX" that is trusted
	Seen    string
	How     string // what accepts the new one
}

func (e *CertificateError) Error() string {
	return "the certificate of the BMC at " + e.Address + " has changed: trusted is " + e.Want + ", seen is " + e.Seen +
		"; nothing was sent. Find out why, then " + e.How
}

// ErrRight marks an errs.Denied of a BMC that had taken the login: the account
// lacks a right. It says nothing about the password.
var ErrRight = errors.New("the account lacks the right")

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
	BootMode       bool // BootModer
	SecureBoot     bool // SecureBooter
	Media          bool // MediaAttacher
	Sensors        bool // SensorReader
	Events         bool // EventReader
	ClearEvents    bool // EventClearer
	NMI            bool // NMISender
	Indicator      bool // IndicatorSetter
	Items          bool // ItemReader
	Console        bool // ConsoleReader
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
	// Identify leaves empty what the BMC does not say. bmc_key is the same
	// for two driver_infos that lead to one system of one BMC: its host,
	// port and system. The caller fills in read_ms.
	Identify(ctx context.Context, t Target) (*api.BmcFacts, error)
}
