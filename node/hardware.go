package node

import (
	"net/url"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/seal/looks"
)

// Changes at the BMC that an operator asks for, beside power: each is a flow of
// one step.
var (
	StepSetBootDevice = StepID{"management", "set_boot_device"}
	StepSetBootMode   = StepID{"management", "set_boot_mode"}
	StepSetSecureBoot = StepID{"management", "set_secure_boot"}
	StepInsertMedia   = StepID{"management", "insert_media"}
	StepEjectMedia    = StepID{"management", "eject_media"}
	StepSetIndicator  = StepID{"management", "set_indicator"}
	StepSendNMI       = StepID{"management", "send_nmi"}
	StepClearEvents   = StepID{"management", "clear_events"}
	// StepAcceptMachine changes the record only: another machine is the node's.
	StepAcceptMachine = StepID{"management", "accept_machine"}
)

// HardwareArgs are the arguments of these steps; each uses its own.
type HardwareArgs struct {
	Device     api.BootDevice `json:"device,omitempty"`
	Persistent bool           `json:"persistent,omitempty"`
	Mode       api.BootMode   `json:"mode,omitempty"`
	Enabled    bool           `json:"enabled,omitempty"`
	Slot       string         `json:"slot,omitempty"`
	Image      string         `json:"image,omitempty"`
	Indicator  api.Indicator  `json:"indicator,omitempty"`
	Machine    string         `json:"machine,omitempty"` // see IsMachine
}

// maxMachineName bounds what a machine is called by; a BMC's address is the
// longest.
const maxMachineName = 1024

// maxImageURL bounds the URL of a virtual medium: BMCs take no longer ones.
const maxImageURL = 255

// HardwareStep is the one step of a change, checked.
func HardwareStep(req *api.ChangeHardwareRequest) (*api.Step, error) {
	var id StepID
	var args HardwareArgs
	switch c := req.GetChange().(type) {
	case *api.ChangeHardwareRequest_BootDevice:
		id, args = StepSetBootDevice, HardwareArgs{Device: c.BootDevice.GetDevice(), Persistent: c.BootDevice.GetPersistent(), Mode: c.BootDevice.GetMode()}
		if _, ok := api.BootDevice_name[int32(args.Device)]; !ok {
			return nil, errs.About(errs.Invalid, "boot_device", "boot device %v is not known", args.Device)
		}
		if _, ok := api.BootMode_name[int32(args.Mode)]; !ok {
			return nil, errs.About(errs.Invalid, "boot_device", "boot mode %v is not known", args.Mode)
		}
	case *api.ChangeHardwareRequest_BootMode:
		id, args = StepSetBootMode, HardwareArgs{Mode: c.BootMode}
		if c.BootMode != api.BootMode_BOOT_MODE_UEFI && c.BootMode != api.BootMode_BOOT_MODE_BIOS {
			return nil, errs.About(errs.Invalid, "boot_mode", "boot mode must be uefi or bios")
		}
	case *api.ChangeHardwareRequest_SecureBoot:
		id, args = StepSetSecureBoot, HardwareArgs{Enabled: c.SecureBoot}
	case *api.ChangeHardwareRequest_InsertMedia:
		id, args = StepInsertMedia, HardwareArgs{Slot: c.InsertMedia.GetSlot(), Image: c.InsertMedia.GetImage()}
		if err := checkImage(args.Image); err != nil {
			return nil, err
		}
	case *api.ChangeHardwareRequest_EjectMedia:
		id, args = StepEjectMedia, HardwareArgs{Slot: c.EjectMedia}
	case *api.ChangeHardwareRequest_Indicator:
		id, args = StepSetIndicator, HardwareArgs{Indicator: c.Indicator}
		if _, ok := api.Indicator_name[int32(c.Indicator)]; !ok || c.Indicator == api.Indicator_INDICATOR_UNKNOWN {
			return nil, errs.About(errs.Invalid, "indicator", "the indicator can be on, off or blinking")
		}
	case *api.ChangeHardwareRequest_Nmi:
		if id = StepSendNMI; !c.Nmi {
			return nil, errs.About(errs.Invalid, "nmi", "nmi must be true")
		}
	case *api.ChangeHardwareRequest_ClearEvents:
		if id = StepClearEvents; !c.ClearEvents {
			return nil, errs.About(errs.Invalid, "clear_events", "clear_events must be true")
		}
	case *api.ChangeHardwareRequest_AcceptMachine:
		id, args = StepAcceptMachine, HardwareArgs{Machine: strings.TrimSpace(c.AcceptMachine)}
		if args.Machine == "" || len(args.Machine) > maxMachineName || strings.ContainsFunc(args.Machine, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, errs.About(errs.Invalid, "accept_machine", "the machine that is accepted must be named: its UUID or serial number, at most %d characters", maxMachineName)
		}
	default:
		return nil, errs.About(errs.Invalid, "change", "nothing to change was named")
	}
	if len(args.Slot) > 64 || strings.ContainsFunc(args.Slot, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, errs.About(errs.Invalid, "slot", "slot: at most 64 printable characters")
	}
	return NewStep(id, args)
}

// checkImage accepts what a BMC can fetch and everybody may read: the URL is
// stored with the work, and the BMC keeps it and shows it to whoever asks.
func checkImage(text string) error {
	why := looks.SecretURL(text) // first: the other error is for what holds none
	u, err := url.Parse(text)
	switch {
	case why != "":
		return errs.About(errs.Invalid, "image", "image: the URL %s; it would be stored, and the BMC shows it to whoever reads its media: serve the image without credentials, to the BMCs' network only", why)
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || len(text) > maxImageURL:
		return errs.About(errs.Invalid, "image", "image: an http or https URL of at most %d characters is needed", maxImageURL)
	}
	return nil
}
