package fake

import (
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/ironring/ironring/api"
)

// maxTrace is how many calls a BMC remembers.
const maxTrace = 1000

// Verb is what a BMC is asked.
type Verb string

// The verbs.
const (
	PowerState    Verb = "power_state"
	SetPower      Verb = "set_power"
	SetBootDevice Verb = "set_boot_device"
	BootDevice    Verb = "boot_device"
	Identify      Verb = "identify"
)

// FaultKind is a way to misbehave.
type FaultKind int

// The faults.
const (
	_         FaultKind = iota
	Slow                // answers and acts after Fault.Delay
	Lie                 // says yes and does nothing; reads the opposite
	Die                 // does not answer, and does nothing
	DieAfter            // does it, and does not answer
	Deny                // refuses the credentials
	Fail                // fails with Fault.Err
	FailAfter           // does it, and fails with Fault.Err
)

// Fault is a fault on demand.
type Fault struct {
	Kind  FaultKind
	Verb  Verb // "": any
	Times int  // how many calls it spoils, 0: all
	Delay time.Duration
	Err   error
}

// Call is one call that a BMC got.
type Call struct {
	Verb      Verb
	Action    api.PowerAction
	Device    api.BootDevice
	Mode      api.BootMode
	Indicator api.Indicator
	On        bool
	Image     string
	Token     uint64
	Received  time.Time
	Effective time.Time // zero: it changed nothing
	Fault     FaultKind // that spoiled it
}

// BMC is one BMC in memory, and the machine behind it.
type BMC struct {
	address string

	mu         sync.Mutex
	power      api.PowerState // guarded by mu
	boot       api.BootDevice // guarded by mu
	persistent bool           // guarded by mu
	password   string         // guarded by mu; "" takes any
	facts      *api.BmcFacts  // guarded by mu
	faults     []*Fault       // guarded by mu
	calls      []Call         // guarded by mu
	changes    int            // guarded by mu
	hw         hardware       // guarded by mu
	console    *console       // guarded by mu; the session that is open
	onPower    func(api.PowerState, api.BootDevice)
}

func newBMC(address string) *BMC {
	return &BMC{
		address: address,
		power:   api.PowerState_POWER_OFF,
		hw:      hardware{mode: api.BootMode_BOOT_MODE_UEFI, led: api.Indicator_INDICATOR_OFF},
		facts: &api.BmcFacts{
			SystemUuid: uuid.NewSHA1(uuid.NameSpaceOID, []byte("ironring fake bmc "+address)).String(),
			Vendor:     "Ironring", Model: "Fake", Firmware: "1",
		},
	}
}

// Inject adds faults. The first that fits a call is used.
func (b *BMC) Inject(faults ...Fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range faults {
		b.faults = append(b.faults, &f)
	}
}

// Heal takes all faults away; calls that are being kept waiting stay so.
func (b *BMC) Heal() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = nil
}

// SetPassword makes the BMC refuse calls whose fake_password is another.
func (b *BMC) SetPassword(password string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.password = password
}

// SetFacts says what Identify answers.
func (b *BMC) SetFacts(facts *api.BmcFacts) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.facts = facts
}

// SetPower changes the power without a call, as a person at the machine does.
func (b *BMC) SetPower(state api.PowerState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.power = state
}

// Power is the true power state.
func (b *BMC) Power() api.PowerState {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.power
}

// OnPower has f called after each change of power that a call made, with the
// device that the machine boots from. It is called without a lock.
func (b *BMC) OnPower(f func(api.PowerState, api.BootDevice)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.onPower = f
}

// Calls returns the latest calls, oldest first.
func (b *BMC) Calls() []Call {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.calls)
}

// Changes counts the calls that asked for a change and were not refused.
func (b *BMC) Changes() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changes
}

// spoil returns the fault for a call, the zero Fault if none.
func (b *BMC) spoil(verb Verb) Fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, f := range b.faults {
		if f.Verb != "" && f.Verb != verb {
			continue
		}
		out := *f
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				b.faults = slices.Delete(b.faults, i, i+1)
			}
		}
		return out
	}
	return Fault{}
}

func (b *BMC) record(c Call) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.calls) >= maxTrace {
		b.calls = slices.Delete(b.calls, 0, 1)
	}
	b.calls = append(b.calls, c)
}

// act carries out a change.
func (b *BMC) act(c Call, persistent bool) {
	b.mu.Lock()
	var tell func()
	switch c.Verb {
	case SetPower:
		want := api.PowerState_POWER_OFF
		if c.Action == api.PowerAction_POWER_ACTION_ON {
			want = api.PowerState_POWER_ON
		}
		if b.power == want {
			break
		}
		b.power = want
		device := b.boot
		if want == api.PowerState_POWER_ON && !b.persistent {
			b.boot = api.BootDevice_BOOT_DEVICE_NONE // used up
		}
		if f := b.onPower; f != nil {
			tell = func() { f(want, device) }
		}
	case SetBootDevice:
		b.boot, b.persistent = c.Device, persistent
	default:
		b.actHardware(c)
	}
	b.mu.Unlock()
	if tell != nil {
		tell()
	}
}
