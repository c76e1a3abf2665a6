package redfish

import (
	"context"
	"net/http"
	"os"

	bmclib "github.com/bmc-toolbox/bmclib/v2"
	provider "github.com/bmc-toolbox/bmclib/v2/providers/redfish"
	"github.com/go-logr/logr"
	"github.com/jacobweinstock/registrar"
	"github.com/stmcginnis/gofish"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// Config is empty: everything is in the nodes' driver_info.
type Config struct{}

// Driver is the Redfish driver.
type Driver struct{}

var (
	_ drivers.Driver           = (*Driver)(nil)
	_ drivers.PowerReader      = (*Driver)(nil)
	_ drivers.PowerSetter      = (*Driver)(nil)
	_ drivers.BootDeviceSetter = (*Driver)(nil)
	_ drivers.BootDeviceReader = (*Driver)(nil)
	_ drivers.Identifier       = (*Driver)(nil)
)

// New makes the driver.
func New(Config) (*Driver, error) {
	// With this variable set bmclib writes every request to stdout, the
	// login with its password among them.
	if err := os.Unsetenv("DEBUG_BMCLIB"); err != nil {
		return nil, errs.New(errs.Internal, "redfish: %w", err)
	}
	return &Driver{}, nil
}

// Name implements drivers.Driver.
func (*Driver) Name() string { return "redfish" }

// Fields implements drivers.Driver.
func (*Driver) Fields() []drivers.Field { return append([]drivers.Field(nil), fields...) }

// Validate implements drivers.Driver.
func (*Driver) Validate(info drivers.Info) error {
	_, err := parse(info)
	return err
}

// Capabilities implements drivers.Driver.
func (*Driver) Capabilities() drivers.Capabilities {
	return drivers.Capabilities{
		PowerRead: true, PowerSet: true, SoftOff: true,
		BootDeviceSet: true, BootDeviceRead: true, PersistentBoot: true, UEFIBoot: true,
		Identify: true,
	}
}

// bmc runs do with a bmclib client that has one provider and is logged in.
func bmc(ctx context.Context, t drivers.Target, g drivers.Grant, change bool, do func(context.Context, *bmclib.Client) error) error {
	set, err := parse(t.Info)
	if err != nil {
		return err
	}
	return run(ctx, set, g, change, func(ctx context.Context, c *call, hc *http.Client) (func(), error) {
		host := "https://" + set.bracketed()
		reg := registrar.NewRegistry()
		reg.Register(provider.ProviderName, provider.ProviderProtocol, provider.Features, nil,
			provider.New(host, set.user, set.pass, logr.Discard(),
				provider.WithHttpClient(hc), provider.WithPort(set.port)))
		client := bmclib.NewClient(host, set.user, set.pass, bmclib.WithRegistry(reg))
		logout := func() { _ = client.Close(c.bound()) } // the session's end is not the call's outcome
		if err := client.Open(ctx); err != nil {
			return logout, err
		}
		return logout, do(ctx, client)
	})
}

// fish runs do with a gofish client that is logged in, for reading.
func fish(ctx context.Context, t drivers.Target, do func(*gofish.APIClient) error) error {
	set, err := parse(t.Info)
	if err != nil {
		return err
	}
	return run(ctx, set, nil, false, func(ctx context.Context, c *call, hc *http.Client) (func(), error) {
		// RoundTrip puts each request under the call's own context: the one
		// given here would end the logout as well.
		client, err := gofish.ConnectContext(context.WithoutCancel(ctx), gofish.ClientConfig{
			Endpoint: "https://" + set.bracketed() + ":" + set.port, Username: set.user, Password: set.pass,
			HTTPClient: hc,
		})
		if err != nil {
			return nil, err
		}
		return client.Logout, do(client)
	})
}

// PowerState implements drivers.PowerReader.
func (*Driver) PowerState(ctx context.Context, t drivers.Target) (api.PowerState, error) {
	var text string
	err := bmc(ctx, t, nil, false, func(ctx context.Context, client *bmclib.Client) (err error) {
		text, err = client.GetPowerState(ctx)
		return err
	})
	if err != nil {
		return api.PowerState_POWER_UNKNOWN, err
	}
	switch text {
	case "On":
		return api.PowerState_POWER_ON, nil
	case "Off":
		return api.PowerState_POWER_OFF, nil
	case "PoweringOn", "PoweringOff", "Paused":
		return api.PowerState_POWER_UNKNOWN, nil
	}
	return api.PowerState_POWER_UNKNOWN, errs.New(errs.Internal, "the BMC reports a power state that Redfish does not know: %q", clean(text))
}

// SetPower implements drivers.PowerSetter.
func (*Driver) SetPower(ctx context.Context, t drivers.Target, g drivers.Grant, action api.PowerAction) error {
	var state string
	switch action {
	case api.PowerAction_POWER_ACTION_ON:
		state = "on"
	case api.PowerAction_POWER_ACTION_OFF:
		state = "off"
	case api.PowerAction_POWER_ACTION_SOFT_OFF:
		state = "soft"
	default:
		return errs.New(errs.Unsupported, "power action %v is not a level: use on, off, soft off", action)
	}
	return bmc(ctx, t, g, true, func(ctx context.Context, client *bmclib.Client) error {
		_, err := client.SetPowerState(ctx, state)
		return err
	})
}
