package node

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/ironring/ironring/api"
)

// The plans: which steps each kind of flow runs, in order. A plan is data: it
// is stored in the flow when the request is accepted and never recomputed, so
// that whoever takes over runs what was accepted.

// StepID names a step: what it acts on and what it does.
type StepID struct{ Interface, Name string }

func (s StepID) String() string { return s.Interface + "." + s.Name }

// The steps that exist. The conductor has one executor for each.
var (
	StepPowerOff      = StepID{"power", "off"}
	StepPowerOn       = StepID{"power", "on"}
	StepPowerSoftOff  = StepID{"power", "soft_off"}
	StepIdentifyBMC   = StepID{"management", "identify"}
	StepBootDevice    = StepID{"management", "boot_device"} // args BootDeviceArgs
	StepBootRamdisk   = StepID{"boot", "ramdisk"}
	StepBootLocal     = StepID{"boot", "local"}
	StepBootNothing   = StepID{"boot", "nothing"}
	StepAgentWait     = StepID{"agent", "wait"}
	StepInventory     = StepID{"agent", "inventory"}
	StepCheckIdentity = StepID{"agent", "check_identity"}
	StepChooseDisk    = StepID{"deploy", "choose_disk"}
	StepCheckDrive    = StepID{"deploy", "check_config_drive"} // before write_image, if the drive is behind a URL
	StepWriteImage    = StepID{"deploy", "write_image"}
	StepConfigDrive   = StepID{"deploy", "config_drive"}
	StepBootEntry     = StepID{"deploy", "boot_entry"}
	StepEvidence      = StepID{"deploy", "evidence"} // by policy, last in a deploy
	StepEraseMetadata = StepID{"clean", "erase_metadata"}
)

// BootDeviceArgs are the arguments of StepBootDevice.
type BootDeviceArgs struct {
	Device string `json:"device"` // "pxe" or "disk"
}

// stepRule is what is the same wherever a step stands in a plan.
type stepRule struct {
	policy api.ResumePolicy
	hold   time.Duration // longest the step may take
	stall  time.Duration // longest without progress; 0: not watched
	waits  bool
}

var stepRules = map[StepID]stepRule{
	StepPowerOff:      {api.ResumePolicy_RESUME_OBSERVE, 3 * time.Minute, 0, false},
	StepPowerOn:       {api.ResumePolicy_RESUME_OBSERVE, 3 * time.Minute, 0, false},
	StepPowerSoftOff:  {api.ResumePolicy_RESUME_OBSERVE, 12 * time.Minute, 0, false},
	StepIdentifyBMC:   {api.ResumePolicy_RESUME_IDEMPOTENT, 90 * time.Second, 0, false},
	StepBootDevice:    {api.ResumePolicy_RESUME_IDEMPOTENT, 2 * time.Minute, 0, false},
	StepSetBootDevice: {api.ResumePolicy_RESUME_IDEMPOTENT, 2 * time.Minute, 0, false},
	StepSetBootMode:   {api.ResumePolicy_RESUME_IDEMPOTENT, 2 * time.Minute, 0, false},
	StepSetSecureBoot: {api.ResumePolicy_RESUME_IDEMPOTENT, 2 * time.Minute, 0, false},
	StepInsertMedia:   {api.ResumePolicy_RESUME_OBSERVE, 3 * time.Minute, 0, false},
	StepEjectMedia:    {api.ResumePolicy_RESUME_OBSERVE, 2 * time.Minute, 0, false},
	StepSetIndicator:  {api.ResumePolicy_RESUME_OBSERVE, 2 * time.Minute, 0, false},
	StepSendNMI:       {api.ResumePolicy_RESUME_GUARDED, 2 * time.Minute, 0, false},
	StepClearEvents:   {api.ResumePolicy_RESUME_IDEMPOTENT, 2 * time.Minute, 0, false},
	StepAcceptMachine: {api.ResumePolicy_RESUME_IDEMPOTENT, 90 * time.Second, 0, false},
	StepBootRamdisk:   {api.ResumePolicy_RESUME_IDEMPOTENT, time.Minute, 0, false},
	StepBootLocal:     {api.ResumePolicy_RESUME_IDEMPOTENT, time.Minute, 0, false},
	StepBootNothing:   {api.ResumePolicy_RESUME_IDEMPOTENT, time.Minute, 0, false},
	StepAgentWait:     {api.ResumePolicy_RESUME_OBSERVE, 35 * time.Minute, 0, true},
	StepInventory:     {api.ResumePolicy_RESUME_AGENT, 5 * time.Minute, 0, false},
	StepCheckIdentity: {api.ResumePolicy_RESUME_IDEMPOTENT, time.Minute, 0, false},
	StepChooseDisk:    {api.ResumePolicy_RESUME_IDEMPOTENT, time.Minute, 0, false},
	StepWriteImage:    {api.ResumePolicy_RESUME_AGENT, 6 * time.Hour, 10 * time.Minute, true},
	StepCheckDrive:    {api.ResumePolicy_RESUME_AGENT, 15 * time.Minute, 0, false},
	StepConfigDrive:   {api.ResumePolicy_RESUME_AGENT, 15 * time.Minute, 0, false},
	StepBootEntry:     {api.ResumePolicy_RESUME_AGENT, 5 * time.Minute, 0, false},
	StepEvidence:      {api.ResumePolicy_RESUME_OBSERVE, 20 * time.Minute, 0, true}, // as the request says
	StepEraseMetadata: {api.ResumePolicy_RESUME_AGENT, 30 * time.Minute, 10 * time.Minute, true},
}

// NewStep makes a step of a plan. args may be nil.
func NewStep(id StepID, args any) (*api.Step, error) {
	rule, ok := stepRules[id]
	if !ok {
		return nil, fmt.Errorf("no step %s", id)
	}
	s := &api.Step{
		Interface:    id.Interface,
		Name:         id.Name,
		Policy:       rule.policy,
		HoldLimitMs:  uint64(rule.hold.Milliseconds()),
		StallLimitMs: uint64(rule.stall.Milliseconds()),
		Waits:        rule.waits,
	}
	if args != nil {
		b, err := json.Marshal(args)
		if err != nil {
			return nil, fmt.Errorf("arguments of step %s: %w", id, err)
		}
		s.Args = b
	}
	return s, nil
}

// IDOf is the id of a step of a flow.
func IDOf(s *api.Step) StepID { return StepID{s.GetInterface(), s.GetName()} }

type planned struct {
	id   StepID
	args any
}

func steps(ids ...StepID) []planned {
	out := make([]planned, len(ids))
	for i, id := range ids {
		out[i] = planned{id: id}
	}
	return out
}

// intoRamdisk boots the machine into the ramdisk and proves that it is the
// right machine. The machine is off while its boot nonce is minted, so that no
// earlier boot can use the nonce.
func intoRamdisk() []planned {
	out := steps(StepPowerOff, StepBootRamdisk)
	out = append(out, planned{StepBootDevice, BootDeviceArgs{Device: "pxe"}})
	return append(out, steps(StepPowerOn, StepAgentWait, StepInventory, StepCheckIdentity)...)
}

// RamdiskStart is the index, counted back from StepAgentWait, of the step that
// a boot is tried again from: power off.
func RamdiskStart(f *api.Flow, wait int) int {
	for i := wait; i >= 0; i-- {
		if IDOf(f.GetSteps()[i]) == StepPowerOff {
			return i
		}
	}
	return 0
}

// IntoRamdisk are the first and the last of the steps that boot the machine
// into the ramdisk, power off and the wait for the agent, if the step at cursor
// is one of them; else wait is -1.
func IntoRamdisk(f *api.Flow, cursor int) (start, wait int) {
	for wait = cursor; wait < len(f.GetSteps()); wait++ {
		if IDOf(f.GetSteps()[wait]) == StepAgentWait {
			if start = RamdiskStart(f, wait); start <= cursor {
				return start, wait
			}
			break
		}
	}
	return 0, -1
}

// Plan gives the steps of a flow. action is used by power flows only.
func Plan(kind api.FlowKind, action api.PowerAction) ([]*api.Step, error) {
	var p []planned
	switch kind {
	case api.FlowKind_FLOW_VERIFY:
		p = steps(StepIdentifyBMC)
	case api.FlowKind_FLOW_INSPECT:
		p = append(intoRamdisk(), steps(StepBootNothing, StepPowerOff)...)
	case api.FlowKind_FLOW_DEPLOY:
		p = append(intoRamdisk(), steps(StepChooseDisk, StepWriteImage, StepConfigDrive, StepBootEntry, StepPowerOff, StepBootLocal)...)
		p = append(p, planned{StepBootDevice, BootDeviceArgs{Device: "disk"}})
		p = append(p, steps(StepPowerOn)...)
	case api.FlowKind_FLOW_TEARDOWN:
		p = steps(StepPowerOff, StepBootNothing)
	case api.FlowKind_FLOW_CLEAN:
		p = append(intoRamdisk(), steps(StepEraseMetadata, StepBootNothing, StepPowerOff)...)
	case api.FlowKind_FLOW_POWER:
		switch action {
		case api.PowerAction_POWER_ACTION_ON:
			p = steps(StepPowerOn)
		case api.PowerAction_POWER_ACTION_OFF:
			p = steps(StepPowerOff)
		case api.PowerAction_POWER_ACTION_SOFT_OFF:
			p = steps(StepPowerSoftOff)
		case api.PowerAction_POWER_ACTION_REBOOT:
			p = steps(StepPowerOff, StepPowerOn)
		default:
			return nil, fmt.Errorf("no plan for power action %v", action)
		}
	default:
		return nil, fmt.Errorf("no plan for a flow of kind %v", kind)
	}
	out := make([]*api.Step, 0, len(p))
	for _, s := range p {
		step, err := NewStep(s.id, s.args)
		if err != nil {
			return nil, err
		}
		out = append(out, step)
	}
	return out, nil
}

// FlowOf says which kind of flow a verb starts; ok is false for verbs that
// start none (they only move the state, or ask something of a running flow).
func FlowOf(verb api.Event) (kind api.FlowKind, ok bool) {
	switch verb {
	case api.Event_EV_MANAGE:
		return api.FlowKind_FLOW_VERIFY, true
	case api.Event_EV_INSPECT:
		return api.FlowKind_FLOW_INSPECT, true
	case api.Event_EV_PROVIDE:
		return api.FlowKind_FLOW_CLEAN, true
	case api.Event_EV_DEPLOY, api.Event_EV_REBUILD:
		return api.FlowKind_FLOW_DEPLOY, true
	case api.Event_EV_DELETE:
		return api.FlowKind_FLOW_TEARDOWN, true
	}
	return api.FlowKind_FLOW_KIND_UNSPECIFIED, false
}
