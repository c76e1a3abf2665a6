package bmc

import (
	"slices"
	"time"
)

// Personality is what a BMC does otherwise than Redfish says, and by whom it
// says it was made. What is not set is as Redfish has it.
type Personality struct {
	Name string

	Vendor, Product, Oem       string // of the service root
	Manufacturer, Model        string // of the machine
	Firmware                   string // of the BMC
	SystemID                   string
	MaxSessions                int
	SettingsBoot               bool          // the boot override is taken at the settings resource only
	NeedETag                   bool          // 428 to a PATCH without If-Match
	MatchETag                  bool          // 412 to a PATCH without the current ETag
	BareETag                   bool          // ETags are compared without W/
	ModeReadOnly               bool          // BootSourceOverrideMode may not be written
	ModeForgotten              bool          // it is Legacy whenever it is not written along
	DisableNeedsTarget         bool          // no override is disabled with the target None
	OnceLost                   bool          // an override for one boot is gone before that boot
	ResetBusy                  time.Duration // 409 to a reset so long after the one before
	SameRefused                int           // status for a reset to what already is
	PostWantsObject            bool          // 400 to a POST without a body
	StaleImage                 bool          // an ejected medium keeps its image, and "Inserted"
	FirstOverrideWithoutEffect bool          // 204, and nothing
}

// Personalities are the BMCs that we have heard of. The lab mixes them.
var Personalities = []Personality{
	{Name: "plain"},
	{
		Name: "dell-idrac", Vendor: "Dell", Product: "Integrated Dell Remote Access Controller", Oem: "Dell", Manufacturer: "Dell Inc.",
		Model: "PowerEdge R650", Firmware: "6.10.30.00", SystemID: "System.Embedded.1", ResetBusy: 600 * time.Millisecond, SameRefused: 409,
	},
	{
		Name: "hpe-ilo", Vendor: "HPE", Product: "ProLiant DL360 Gen10", Oem: "Hpe", Manufacturer: "HPE", Model: "ProLiant DL360 Gen10",
		Firmware: "iLO 5 v2.72", ModeReadOnly: true, DisableNeedsTarget: true, SameRefused: 400, ResetBusy: 300 * time.Millisecond,
	},
	{
		Name: "supermicro-x10", Vendor: "Supermicro", Oem: "Supermicro", Manufacturer: "Supermicro", Model: "X10DRi", Firmware: "3.88",
		ModeForgotten: true, OnceLost: true, StaleImage: true, MaxSessions: 4,
	},
	{
		Name: "supermicro-x12", Vendor: "Supermicro", Oem: "Supermicro", Manufacturer: "Supermicro", Model: "X12STW-TF", Firmware: "01.04.08",
		ModeForgotten: true, StaleImage: true,
	},
	{
		Name: "supermicro-x11", Vendor: "Supermicro", Oem: "Supermicro", Manufacturer: "Supermicro", Model: "X11DPU", Firmware: "1.52",
		ModeForgotten: true, OnceLost: true, StaleImage: true,
	},
	{
		Name: "lenovo-xcc", Vendor: "Lenovo", Oem: "Lenovo", Manufacturer: "Lenovo", Model: "ThinkSystem SR650 V3", Firmware: "3.10", MatchETag: true,
	},
	{
		Name: "openbmc", Product: "OpenBmc", Oem: "OpenBmc", Manufacturer: "Quanta", Model: "S9S", Firmware: "2.14.0", SystemID: "system",
		PostWantsObject: true, FirstOverrideWithoutEffect: true,
	},
	{
		Name: "ami", Vendor: "AMI", Product: "AMI Redfish Server", Oem: "Ami", Manufacturer: "ASRockRack", Model: "WRX80", Firmware: "1.04.00",
		SystemID: "Self", SettingsBoot: true, NeedETag: true, MatchETag: true,
	},
	{
		Name: "gigabyte", Vendor: "AMI", Product: "AMI Redfish Server", Oem: "Ami", Manufacturer: "GIGABYTE", Model: "R283", Firmware: "13.05",
		SystemID: "Self", SettingsBoot: true, NeedETag: true, MatchETag: true, BareETag: true,
	},
}

// Named is the personality of that name, "" being the plain one.
func Named(name string) (Personality, bool) {
	if name == "" {
		name = "plain"
	}
	i := slices.IndexFunc(Personalities, func(p Personality) bool { return p.Name == name })
	if i < 0 {
		return Personality{}, false
	}
	return Personalities[i], true
}

// Mixed is the personality of the machine of that number where personalities
// are mixed.
func Mixed(i int) string { return Personalities[i%len(Personalities)].Name }
