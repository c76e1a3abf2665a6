package node

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// SpecFields are the fields of api.Node that users write (NodePatch).
var SpecFields = []string{
	"name", "driver", "driver_info", "properties", "extra", "instance_info",
	"conductor_group", "description", "maintenance", "maintenance_reason",
	"enforce_power", "protected", "resource_class",
}

// AnytimeFields are the spec fields that no flow reads or depends on: they may
// be patched in every state and while the node is locked.
var AnytimeFields = []string{
	"extra", "description", "maintenance", "maintenance_reason", "enforce_power", "protected",
}

// FlowFields are the fields that the holder of the lock writes (NodeWrite).
var FlowFields = []string{
	"power_state", "target_power", "last_error", "fault", "boot", "root_disk",
	"bmc", "erasure", "bmc_park", "evidence",
}

// ObserveFields are the flow fields that the assigned owner may also write
// without a lock (NodeObserve).
var ObserveFields = []string{"power_state", "bmc_park", "fault"}

// copiers has one entry for each spec and flow field. Nothing is shared
// between the two records afterwards.
var copiers = map[string]func(dst, src *api.Node){
	"name":               func(d, s *api.Node) { d.Name = s.GetName() },
	"driver":             func(d, s *api.Node) { d.Driver = s.GetDriver() },
	"driver_info":        func(d, s *api.Node) { d.DriverInfo = bytes.Clone(s.GetDriverInfo()) },
	"properties":         func(d, s *api.Node) { d.Properties = bytes.Clone(s.GetProperties()) },
	"extra":              func(d, s *api.Node) { d.Extra = bytes.Clone(s.GetExtra()) },
	"instance_info":      func(d, s *api.Node) { d.InstanceInfo = bytes.Clone(s.GetInstanceInfo()) },
	"conductor_group":    func(d, s *api.Node) { d.ConductorGroup = s.GetConductorGroup() },
	"description":        func(d, s *api.Node) { d.Description = s.GetDescription() },
	"maintenance":        func(d, s *api.Node) { d.Maintenance = s.GetMaintenance() },
	"maintenance_reason": func(d, s *api.Node) { d.MaintenanceReason = s.GetMaintenanceReason() },
	"enforce_power":      func(d, s *api.Node) { d.EnforcePower = s.GetEnforcePower() },
	"protected":          func(d, s *api.Node) { d.Protected = s.GetProtected() },
	"resource_class":     func(d, s *api.Node) { d.ResourceClass = s.GetResourceClass() },

	"power_state":  func(d, s *api.Node) { d.PowerState = s.GetPowerState() },
	"target_power": func(d, s *api.Node) { d.TargetPower = s.GetTargetPower() },
	"last_error":   func(d, s *api.Node) { d.LastError = s.GetLastError() },
	"fault":        func(d, s *api.Node) { d.Fault = s.GetFault() },
	"boot":         func(d, s *api.Node) { d.Boot = proto.CloneOf(s.GetBoot()) },
	"root_disk":    func(d, s *api.Node) { d.RootDisk = proto.CloneOf(s.GetRootDisk()) },
	"bmc":          func(d, s *api.Node) { d.Bmc = proto.CloneOf(s.GetBmc()) },
	"erasure":      func(d, s *api.Node) { d.Erasure = proto.CloneOf(s.GetErasure()) },
	"bmc_park":     func(d, s *api.Node) { d.BmcPark = proto.CloneOf(s.GetBmcPark()) },
	"evidence":     func(d, s *api.Node) { d.Evidence = proto.CloneOf(s.GetEvidence()) },
}

// Apply copies the named spec and flow fields from src to dst, a nil src being
// the empty record. An unknown name is an error and leaves dst untouched.
func Apply(dst *api.Node, fields []string, src *api.Node) error {
	for _, f := range fields {
		if copiers[f] == nil {
			return errs.About(errs.Invalid, f, "no field of a node that can be written is called %q", f)
		}
	}
	for _, f := range fields {
		copiers[f](dst, src)
	}
	return nil
}

// CheckFields refuses a field that is not one of the allowed names, and an
// empty list.
func CheckFields(fields, allowed []string) error {
	if len(fields) == 0 {
		return errs.New(errs.Invalid, "no field is named")
	}
	for _, f := range fields {
		if !slices.Contains(allowed, f) {
			return errs.About(errs.Invalid, f, "field %q cannot be written in this way", f)
		}
	}
	return nil
}
