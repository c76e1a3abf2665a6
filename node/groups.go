package node

import (
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// group says what happens to a node while it is in a state.
type group uint8

const (
	stable  group = 1 << iota // at rest
	failed                    // at rest after work that failed; waits for a verb
	held                      // paused by a hold step; waits for a person
	working                   // a conductor works on it
	waiting                   // a conductor waits for the machine or its agent
)

// The outer limits of a stay. They are the last resort, judged on the cluster
// clock: steps have limits of their own, and work whose steps may take longer
// (a flow whose agent erases for days) says so in FlowCreate.deadline_ms.
const (
	verifyLimit = 2 * time.Minute  // a few BMC requests
	deleteLimit = 1 * time.Hour    // power off, forget; no work on disks
	workLimit   = 24 * time.Hour   // whole deployments, cleans, inspections
	waitLimit   = 30 * time.Minute // a machine boots and its agent calls
)

type stateRule struct {
	group     group
	deadline  time.Duration // longest stay, 0: for ever
	updatable bool          // spec may be patched although a target is set
	deletable bool          // the record may be deleted
}

// stateRules is the second half of the lifecycle as data; see Table.
var stateRules = map[api.State]stateRule{
	api.State_ENROLL:          {group: stable, deletable: true},
	api.State_VERIFYING:       {group: working, deadline: verifyLimit, updatable: true},
	api.State_MANAGEABLE:      {group: stable, deletable: true},
	api.State_AVAILABLE:       {group: stable, deletable: true},
	api.State_DEPLOYING:       {group: working, deadline: workLimit},
	api.State_DEPLOY_WAIT:     {group: waiting, deadline: waitLimit},
	api.State_DEPLOY_FAILED:   {group: failed, updatable: true},
	api.State_DEPLOY_HOLD:     {group: held},
	api.State_ACTIVE:          {group: stable},
	api.State_DELETING:        {group: working, deadline: deleteLimit},
	api.State_ERROR:           {group: stable, updatable: true},
	api.State_CLEANING:        {group: working, deadline: workLimit},
	api.State_CLEAN_WAIT:      {group: waiting, deadline: waitLimit},
	api.State_CLEAN_FAILED:    {group: failed, updatable: true},
	api.State_CLEAN_HOLD:      {group: held},
	api.State_INSPECTING:      {group: working, deadline: workLimit},
	api.State_INSPECT_WAIT:    {group: waiting, deadline: waitLimit, updatable: true},
	api.State_INSPECT_FAILED:  {group: failed, updatable: true},
	api.State_ADOPTING:        {group: working, deadline: workLimit},
	api.State_ADOPT_FAILED:    {group: failed, updatable: true, deletable: true},
	api.State_RESCUING:        {group: working, deadline: workLimit},
	api.State_RESCUE_WAIT:     {group: waiting, deadline: waitLimit},
	api.State_RESCUE_FAILED:   {group: failed, updatable: true},
	api.State_RESCUE:          {group: stable},
	api.State_UNRESCUING:      {group: working, deadline: workLimit},
	api.State_UNRESCUE_FAILED: {group: failed, updatable: true},
	api.State_SERVICING:       {group: working, deadline: workLimit},
	api.State_SERVICE_WAIT:    {group: waiting, deadline: waitLimit},
	api.State_SERVICE_FAILED:  {group: failed, updatable: true},
	api.State_SERVICE_HOLD:    {group: held, updatable: true},
}

func in(s api.State, g group) bool { return stateRules[s].group&g != 0 }

// Stable reports whether a node in this state is at rest.
func Stable(s api.State) bool { return in(s, stable) }

// Failed reports whether a node in this state is at rest after failed work.
func Failed(s api.State) bool { return in(s, failed) }

// Held reports whether work is paused by a hold step until a person acts. The
// flow is unfinished, but nothing limits the stay.
func Held(s api.State) bool { return in(s, held) }

// Working reports whether a conductor works on the node: its lock is shown.
func Working(s api.State) bool { return in(s, working) }

// Waiting reports whether work goes on when the machine or its agent calls.
func Waiting(s api.State) bool { return in(s, waiting) }

// Transient reports whether the state must have an owner and a deadline.
func Transient(s api.State) bool { return in(s, working|waiting) }

// Deadline is the longest stay in a state unless the flow says otherwise; 0 in
// states that are not transient. When it has passed, EV_FAIL is fired.
func Deadline(s api.State) time.Duration { return stateRules[s].deadline }

// Updatable reports whether spec fields may be patched in this state: at rest,
// or in one of those states where Ironic allows it although work is under way
// or expected. AnytimeFields may always be patched.
func Updatable(s api.State) bool { return in(s, stable) || stateRules[s].updatable }

// Deletable reports whether the record of a node in this state may be deleted
// without maintenance.
func Deletable(s api.State) bool { return stateRules[s].deletable }

// CheckDelete is the rule for deleting a node's record: the state allows it and
// its machine is not kept on in the ramdisk, which nobody would switch off any
// more, or the node is in maintenance; and it is not protected.
func CheckDelete(n *api.Node) error {
	if n.GetProtected() {
		return errs.About(errs.Denied, n.GetId(), "delete node %s: it is protected", n.GetId())
	}
	switch {
	case n.GetMaintenance():
		return nil
	case n.GetBoot().GetTarget() == api.BootTarget_BOOT_RAMDISK && Deletable(n.GetState()):
		return errs.About(errs.WrongState, n.GetId(),
			"delete node %s: its machine is kept on in the ramdisk for its next flow, and nobody would switch it off; `ironring node power %s off` first, or set maintenance to leave it as it is",
			n.GetId(), Label(n))
	case Deletable(n.GetState()):
		return nil
	}
	return errs.About(errs.WrongState, n.GetId(),
		"delete node %s: its state is %q; set maintenance, or bring it to enroll, manageable, available or adopt failed",
		n.GetId(), StateName(n.GetState()))
}
