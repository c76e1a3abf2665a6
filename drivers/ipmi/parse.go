package ipmi

import (
	"net"
	"net/netip"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// strange is the error for output that is not what ipmitool prints.
func strange(what, text string) error {
	return errs.New(errs.Internal, "ipmitool's %s is not understood: %q", what, clean(text))
}

// parsePower reads the output of `chassis power status`.
func parsePower(text string) (api.PowerState, error) {
	for line := range strings.Lines(text) {
		switch strings.TrimSpace(line) {
		case "Chassis Power is on":
			return api.PowerState_POWER_ON, nil
		case "Chassis Power is off":
			return api.PowerState_POWER_OFF, nil
		}
	}
	return api.PowerState_POWER_UNKNOWN, strange("power status", text)
}

// The device selectors of boot parameter 5, IPMI 2.0 table 28-14.
var selectors = map[byte]api.BootDevice{
	0:  api.BootDevice_BOOT_DEVICE_NONE,
	1:  api.BootDevice_BOOT_DEVICE_PXE,
	2:  api.BootDevice_BOOT_DEVICE_DISK,
	3:  api.BootDevice_BOOT_DEVICE_DISK, // safe mode
	5:  api.BootDevice_BOOT_DEVICE_CDROM,
	8:  api.BootDevice_BOOT_DEVICE_CDROM, // remote
	11: api.BootDevice_BOOT_DEVICE_DISK,  // remote
}

// parseBoot reads the output of `chassis bootparam get 5`. A device in flags
// that are not marked valid is either used up or, with BMCs that never mark
// them, in force: that cannot be told.
func parseBoot(text string) (api.BootDevice, error) {
	const none = api.BootDevice_BOOT_DEVICE_NONE
	flags, err := parseBootFlags(text)
	if err != nil {
		return none, err
	}
	device, known := selectors[flags.selector()]
	switch {
	case flags.selector() == 0:
		return none, nil
	case !flags.valid():
		return none, errs.New(errs.Unsupported, "the BMC does not tell whether the boot device is in force")
	case !known:
		return none, errs.New(errs.Unsupported, "the boot device is set to selector %d, which is not one of ours", flags.selector())
	}
	return device, nil
}

// table reads lines of the form "key : value"; the first of each key counts.
func table(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(line, ":")
		key, value = clean(key), clean(value)
		if _, dup := out[key]; ok && !dup && key != "" && value != "" {
			out[key] = value
		}
	}
	return out
}

// readInfo takes the output of `mc info`.
func readInfo(facts *api.BmcFacts, text string) {
	t := table(text)
	facts.Firmware = t["Firmware Revision"]
	if v := t["Manufacturer Name"]; !strings.HasPrefix(v, "Unknown") {
		facts.Vendor = v
	}
}

// readFRU takes the output of `fru print 0`. Only the product's serial number
// is the one that SMBIOS shows: board and chassis have others.
func readFRU(facts *api.BmcFacts, text string) {
	t := table(text)
	facts.Serial = t["Product Serial"]
	facts.Model = t["Product Name"]
	for _, key := range []string{"Product Manufacturer", "Board Mfg"} {
		if v := t[key]; v != "" {
			facts.Vendor = v
			return
		}
	}
}

// readLAN takes the output of `lan print`.
func readLAN(facts *api.BmcFacts, text string) {
	t := table(text)
	if ip, err := netip.ParseAddr(t["IP Address"]); err == nil && !ip.IsUnspecified() {
		facts.BmcAddresses = []string{ip.String()}
	}
	mac, err := net.ParseMAC(t["MAC Address"])
	if err == nil && len(mac) == 6 && mac.String() != "00:00:00:00:00:00" && mac.String() != "ff:ff:ff:ff:ff:ff" {
		facts.BmcMacs = []string{mac.String()}
	}
}
