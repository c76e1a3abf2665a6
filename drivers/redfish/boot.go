package redfish

import (
	"context"

	bmclib "github.com/bmc-toolbox/bmclib/v2"
	"github.com/stmcginnis/gofish"
	schema "github.com/stmcginnis/gofish/redfish"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/internal/errs"
)

// SetBootDevice implements drivers.BootDeviceSetter.
func (*Driver) SetBootDevice(ctx context.Context, t drivers.Target, g drivers.Grant, device api.BootDevice, opts drivers.BootOptions) error {
	var name string
	switch device {
	case api.BootDevice_BOOT_DEVICE_NONE:
		name = "none"
	case api.BootDevice_BOOT_DEVICE_PXE:
		name = "pxe"
	case api.BootDevice_BOOT_DEVICE_DISK:
		name = "disk"
	case api.BootDevice_BOOT_DEVICE_CDROM:
		name = "cdrom"
	default:
		return errs.New(errs.Unsupported, "boot device %v is not supported", device)
	}
	return bmc(ctx, t, g, true, func(ctx context.Context, client *bmclib.Client) error {
		_, err := client.SetBootDevice(ctx, name, opts.Persistent, opts.UEFI)
		return err
	})
}

// BootDevice implements drivers.BootDeviceReader. bmclib's call of this kind
// leaves out whether the override is in force at all, so gofish is asked.
func (*Driver) BootDevice(ctx context.Context, t drivers.Target) (api.BootDevice, error) {
	var boot schema.Boot
	err := fish(ctx, t, func(client *gofish.APIClient) error {
		sys, err := system(client)
		if err == nil {
			boot = sys.Boot
		}
		return err
	})
	if err != nil {
		return api.BootDevice_BOOT_DEVICE_NONE, err
	}
	if boot.BootSourceOverrideEnabled == schema.DisabledBootSourceOverrideEnabled {
		return api.BootDevice_BOOT_DEVICE_NONE, nil
	}
	switch boot.BootSourceOverrideTarget {
	case schema.NoneBootSourceOverrideTarget:
		return api.BootDevice_BOOT_DEVICE_NONE, nil
	case schema.PxeBootSourceOverrideTarget:
		return api.BootDevice_BOOT_DEVICE_PXE, nil
	case schema.HddBootSourceOverrideTarget:
		return api.BootDevice_BOOT_DEVICE_DISK, nil
	case schema.CdBootSourceOverrideTarget:
		return api.BootDevice_BOOT_DEVICE_CDROM, nil
	case "":
		return api.BootDevice_BOOT_DEVICE_NONE, errs.New(errs.Unsupported, "the BMC does not tell the boot device")
	}
	return api.BootDevice_BOOT_DEVICE_NONE, errs.New(errs.Unsupported, "the boot device is set to %q, which is not one of ours",
		clean(string(boot.BootSourceOverrideTarget)))
}

// system is the one system that the transport lets through.
func system(client *gofish.APIClient) (*schema.ComputerSystem, error) {
	systems, err := client.Service.Systems()
	if err != nil {
		return nil, err
	}
	if len(systems) != 1 || systems[0] == nil {
		return nil, errs.New(errs.Internal, "the BMC has no collection of systems")
	}
	return systems[0], nil
}
