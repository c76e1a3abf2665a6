package fake

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// The keys of driver_info.
const (
	keyAddress  = "fake_address"
	keyPassword = "fake_password"
)

var fields = []drivers.Field{
	{Name: keyAddress, Help: "names the BMC; default: the node's id"},
	{Name: keyPassword, Secret: true, Help: "compared with the password that a test has set"},
}

// Config is empty.
type Config struct{}

// Driver is the fake driver.
type Driver struct {
	mu   sync.Mutex
	bmcs map[string]*BMC // guarded by mu; by address
}

var (
	_ drivers.Driver           = (*Driver)(nil)
	_ drivers.PowerReader      = (*Driver)(nil)
	_ drivers.PowerSetter      = (*Driver)(nil)
	_ drivers.BootDeviceSetter = (*Driver)(nil)
	_ drivers.BootDeviceReader = (*Driver)(nil)
	_ drivers.Identifier       = (*Driver)(nil)
)

// New makes a driver without BMCs.
func New(Config) (*Driver, error) {
	return &Driver{bmcs: map[string]*BMC{}}, nil
}

// BMC is the BMC at an address; it is made when it is not there.
func (d *Driver) BMC(address string) *BMC {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.bmcs[address]
	if b == nil {
		b = newBMC(address)
		d.bmcs[address] = b
	}
	return b
}

// Name implements drivers.Driver.
func (*Driver) Name() string { return "fake" }

// Fields implements drivers.Driver.
func (*Driver) Fields() []drivers.Field { return append([]drivers.Field(nil), fields...) }

// Validate implements drivers.Driver.
func (*Driver) Validate(info drivers.Info) error {
	if err := info.CheckFields("fake_", fields); err != nil {
		return err
	}
	for _, key := range []string{keyAddress, keyPassword} {
		if _, err := info.Text(key); err != nil {
			return err
		}
	}
	return nil
}

// Capabilities implements drivers.Driver.
func (*Driver) Capabilities() drivers.Capabilities {
	return drivers.Capabilities{
		PowerRead: true, PowerSet: true, SoftOff: true,
		BootDeviceSet: true, BootDeviceRead: true, PersistentBoot: true, UEFIBoot: true,
		Identify: true, BootMode: true, SecureBoot: true, Media: true, Sensors: true,
		Events: true, ClearEvents: true, NMI: true, Indicator: true, Items: true, Console: true,
	}
}

// find is the BMC of a target, and whether the target's password fits.
func (d *Driver) find(t drivers.Target) (b *BMC, password string, err error) {
	if err := d.Validate(t.Info); err != nil {
		return nil, "", err
	}
	address, _ := t.Info.Text(keyAddress) // validated
	if address == "" {
		address = t.NodeID
	}
	password, _ = t.Info.Text(keyPassword) // validated
	return d.BMC(address), password, nil
}

// call is what all verbs have in common. It returns the fault that answers
// have to heed.
func (d *Driver) call(ctx context.Context, t drivers.Target, c Call, persistent bool) (*BMC, Fault, error) {
	b, password, err := d.find(t)
	if err != nil {
		return nil, Fault{}, err
	}
	if err := drivers.Ended(ctx); err != nil {
		return nil, Fault{}, errs.New(errs.Unreachable, "nothing was changed: %w", err)
	}
	changes := changing[c.Verb]
	c.Received = time.Now()
	f := b.spoil(c.Verb)
	c.Fault = f.Kind
	defer func() { b.record(c) }()

	b.mu.Lock()
	denied := b.password != "" && b.password != password
	b.mu.Unlock()
	switch {
	case denied || f.Kind == Deny:
		return nil, f, errs.New(errs.Denied, "the BMC refuses the password")
	case f.Kind == Slow:
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return nil, f, drivers.Ended(ctx)
		case <-timer.C:
		}
	case f.Kind == Die:
		<-ctx.Done()
		return nil, f, drivers.Ended(ctx)
	case f.Kind == Fail:
		return nil, f, f.Err
	}
	if changes {
		b.mu.Lock()
		b.changes++
		b.mu.Unlock()
		if f.Kind != Lie {
			b.act(c, persistent)
			c.Effective = time.Now()
		}
	}
	switch f.Kind {
	case DieAfter:
		<-ctx.Done()
		return nil, f, drivers.Ended(ctx)
	case FailAfter:
		return nil, f, f.Err
	}
	return b, f, nil
}

// change is call under a grant.
func (d *Driver) change(ctx context.Context, t drivers.Target, g drivers.Grant, c Call, persistent bool) error {
	ctx, stop, err := drivers.Bind(ctx, g)
	if err != nil {
		return err
	}
	defer stop()
	c.Token = g.Token()
	_, _, err = d.call(ctx, t, c, persistent)
	return err
}

// PowerState implements drivers.PowerReader.
func (d *Driver) PowerState(ctx context.Context, t drivers.Target) (api.PowerState, error) {
	b, f, err := d.call(ctx, t, Call{Verb: PowerState}, false)
	if err != nil {
		return api.PowerState_POWER_UNKNOWN, err
	}
	state := b.Power()
	if f.Kind == Lie {
		state = api.PowerState_POWER_ON + api.PowerState_POWER_OFF - state
	}
	return state, nil
}

// SetPower implements drivers.PowerSetter.
func (d *Driver) SetPower(ctx context.Context, t drivers.Target, g drivers.Grant, action api.PowerAction) error {
	switch action {
	case api.PowerAction_POWER_ACTION_ON, api.PowerAction_POWER_ACTION_OFF, api.PowerAction_POWER_ACTION_SOFT_OFF:
		return d.change(ctx, t, g, Call{Verb: SetPower, Action: action}, false)
	}
	return errs.New(errs.Unsupported, "power action %v is not a level: use on, off, soft off", action)
}

// SetBootDevice implements drivers.BootDeviceSetter.
func (d *Driver) SetBootDevice(ctx context.Context, t drivers.Target, g drivers.Grant, device api.BootDevice, opts drivers.BootOptions) error {
	if _, ok := api.BootDevice_name[int32(device)]; !ok {
		return errs.New(errs.Unsupported, "boot device %v is not supported", device)
	}
	return d.change(ctx, t, g, Call{Verb: SetBootDevice, Device: device}, opts.Persistent)
}

// BootDevice implements drivers.BootDeviceReader.
func (d *Driver) BootDevice(ctx context.Context, t drivers.Target) (api.BootDevice, error) {
	b, f, err := d.call(ctx, t, Call{Verb: BootDevice}, false)
	if err != nil {
		return api.BootDevice_BOOT_DEVICE_NONE, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if f.Kind == Lie && b.boot != api.BootDevice_BOOT_DEVICE_NONE {
		return api.BootDevice_BOOT_DEVICE_NONE, nil
	}
	return b.boot, nil
}

// Identify implements drivers.Identifier.
func (d *Driver) Identify(ctx context.Context, t drivers.Target) (*api.BmcFacts, error) {
	b, f, err := d.call(ctx, t, Call{Verb: Identify}, false)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	facts := proto.CloneOf(b.facts)
	if facts.BmcKey == "" {
		facts.BmcKey = "fake " + b.address
	}
	if f.Kind == Lie {
		facts.SystemUuid = "00000000-0000-4000-8000-00000000dead"
	}
	return facts, nil
}
