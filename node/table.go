package node

import (
	"slices"
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// Who may fire a transition; several bits may be set.
type Who uint8

// Those who fire transitions. A verb on a node whose flow is unfinished
// (abort, undeploy while waiting) is asked for through the API and committed
// by the holder of the node's lock.
const (
	ByAPI       Who = 1 << iota // a user's verb
	ByConductor                 // the holder of the node's lock
	ByAgent                     // a call of the machine's agent, or a finished job outside the ramdisk
	ByTimer                     // the state's deadline has passed
)

func (w Who) String() string {
	var names []string
	for i, name := range []string{"API", "conductor", "agent", "timer"} {
		if w&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// Guard is a condition on the node's flags; several bits may be set.
type Guard uint8

// The guards.
const (
	NotInMaintenance Guard = 1 << iota // refused while the node is in maintenance
	NotProtected                       // refused while the node is protected
)

func (g Guard) String() string {
	var names []string
	for i, name := range []string{"not in maintenance", "not protected"} {
		if g&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// KeepTarget as a Transition's Target leaves the target state as it is.
const KeepTarget api.State = -1

// Transition is one edge of the lifecycle.
type Transition struct {
	From   api.State
	Event  api.Event
	To     api.State
	Target api.State // the target state from now on; STATE_UNSPECIFIED: none
	Who    Who
	Guard  Guard
}

// Short names keep the table readable.
const (
	enroll         = api.State_ENROLL
	verifying      = api.State_VERIFYING
	manageable     = api.State_MANAGEABLE
	available      = api.State_AVAILABLE
	deploying      = api.State_DEPLOYING
	deployWait     = api.State_DEPLOY_WAIT
	deployFailed   = api.State_DEPLOY_FAILED
	deployHold     = api.State_DEPLOY_HOLD
	active         = api.State_ACTIVE
	deleting       = api.State_DELETING
	errorState     = api.State_ERROR
	cleaning       = api.State_CLEANING
	cleanWait      = api.State_CLEAN_WAIT
	cleanFailed    = api.State_CLEAN_FAILED
	cleanHold      = api.State_CLEAN_HOLD
	inspecting     = api.State_INSPECTING
	inspectWait    = api.State_INSPECT_WAIT
	inspectFailed  = api.State_INSPECT_FAILED
	adopting       = api.State_ADOPTING
	adoptFailed    = api.State_ADOPT_FAILED
	rescuing       = api.State_RESCUING
	rescueWait     = api.State_RESCUE_WAIT
	rescueFailed   = api.State_RESCUE_FAILED
	rescue         = api.State_RESCUE
	unrescuing     = api.State_UNRESCUING
	unrescueFailed = api.State_UNRESCUE_FAILED
	servicing      = api.State_SERVICING
	serviceWait    = api.State_SERVICE_WAIT
	serviceFailed  = api.State_SERVICE_FAILED
	serviceHold    = api.State_SERVICE_HOLD
	none           = api.State_STATE_UNSPECIFIED
	keep           = KeepTarget

	evManage   = api.Event_EV_MANAGE
	evProvide  = api.Event_EV_PROVIDE
	evDeploy   = api.Event_EV_DEPLOY
	evRebuild  = api.Event_EV_REBUILD
	evDelete   = api.Event_EV_DELETE
	evInspect  = api.Event_EV_INSPECT
	evClean    = api.Event_EV_CLEAN
	evAdopt    = api.Event_EV_ADOPT
	evRescue   = api.Event_EV_RESCUE
	evUnrescue = api.Event_EV_UNRESCUE
	evService  = api.Event_EV_SERVICE
	evAbort    = api.Event_EV_ABORT
	evUnhold   = api.Event_EV_UNHOLD
	evDone     = api.Event_EV_DONE
	evFail     = api.Event_EV_FAIL
	evWait     = api.Event_EV_WAIT
	evResume   = api.Event_EV_RESUME
	evHold     = api.Event_EV_HOLD

	// A wait ends in failure when its deadline passes, or when its holder
	// learns that the step failed.
	waitEnds = ByTimer | ByConductor
	rebuilds = NotInMaintenance | NotProtected
)

// Table is the whole lifecycle: what is not here does not exist. Its edges are
// those of Ironic's state machine, in the order of docs/lifecycle.md.
var Table = []Transition{
	// Enrolment.
	{enroll, evManage, verifying, manageable, ByAPI, 0},
	{verifying, evDone, manageable, none, ByConductor, 0},
	{verifying, evFail, enroll, none, ByConductor | ByTimer, 0},
	{manageable, evProvide, cleaning, available, ByAPI, 0},
	{manageable, evClean, cleaning, manageable, ByAPI, 0},
	{manageable, evInspect, inspecting, manageable, ByAPI, 0},
	{manageable, evAdopt, adopting, active, ByAPI, 0},
	{available, evDeploy, deploying, active, ByAPI, NotInMaintenance},
	{available, evManage, manageable, none, ByAPI, 0},
	// Deployment.
	{deploying, evWait, deployWait, active, ByConductor, 0},
	{deploying, evHold, deployHold, active, ByConductor, 0},
	{deploying, evDone, active, none, ByConductor, 0},
	{deploying, evFail, deployFailed, active, ByConductor | ByTimer, 0},
	{deployWait, evResume, deploying, active, ByAgent | ByConductor, 0},
	{deployWait, evHold, deployHold, active, ByConductor, 0},
	{deployWait, evFail, deployFailed, active, waitEnds, 0},
	{deployWait, evAbort, deployFailed, active, ByAPI, 0},
	{deployWait, evDelete, deleting, available, ByAPI, NotProtected},
	{deployHold, evUnhold, deployWait, active, ByAPI, 0},
	{deployHold, evAbort, deployFailed, active, ByAPI, 0},
	{deployFailed, evDeploy, deploying, active, ByAPI, NotInMaintenance},
	{deployFailed, evRebuild, deploying, active, ByAPI, rebuilds},
	{deployFailed, evDelete, deleting, available, ByAPI, NotProtected},
	{active, evRebuild, deploying, active, ByAPI, rebuilds},
	{active, evDelete, deleting, available, ByAPI, NotProtected},
	{active, evRescue, rescuing, rescue, ByAPI, 0},
	{active, evService, servicing, active, ByAPI, 0},
	// Tear-down.
	{errorState, evRebuild, deploying, active, ByAPI, rebuilds},
	{errorState, evDelete, deleting, available, ByAPI, NotProtected},
	{deleting, evClean, cleaning, available, ByConductor, 0},
	{deleting, evFail, errorState, available, ByConductor | ByTimer, 0},
	// Cleaning: automated with target available, asked for with target manageable.
	{cleaning, evDone, available, none, ByConductor, 0},
	{cleaning, evManage, manageable, none, ByConductor, 0},
	{cleaning, evWait, cleanWait, keep, ByConductor, 0},
	{cleaning, evHold, cleanHold, keep, ByConductor, 0},
	{cleaning, evFail, cleanFailed, keep, ByConductor | ByTimer, 0},
	{cleanWait, evResume, cleaning, keep, ByAgent | ByConductor, 0},
	{cleanWait, evHold, cleanHold, keep, ByConductor, 0},
	{cleanWait, evFail, cleanFailed, keep, waitEnds, 0},
	{cleanWait, evAbort, cleanFailed, keep, ByAPI, 0},
	{cleanHold, evUnhold, cleanWait, keep, ByAPI, 0},
	{cleanHold, evAbort, cleanFailed, keep, ByAPI, 0},
	{cleanFailed, evManage, manageable, none, ByAPI, 0},
	// Inspection.
	{inspecting, evDone, manageable, none, ByConductor, 0},
	{inspecting, evWait, inspectWait, manageable, ByConductor, 0},
	{inspecting, evFail, inspectFailed, manageable, ByConductor | ByTimer, 0},
	{inspectWait, evResume, inspecting, manageable, ByAgent | ByConductor, 0},
	{inspectWait, evDone, manageable, none, ByConductor, 0},
	{inspectWait, evFail, inspectFailed, manageable, waitEnds, 0},
	{inspectWait, evAbort, inspectFailed, manageable, ByAPI, 0},
	{inspectFailed, evManage, manageable, none, ByAPI, 0},
	{inspectFailed, evInspect, inspecting, manageable, ByAPI, 0},
	// Adoption.
	{adopting, evDone, active, none, ByConductor, 0},
	{adopting, evFail, adoptFailed, active, ByConductor | ByTimer, 0},
	{adoptFailed, evAdopt, adopting, active, ByAPI, 0},
	{adoptFailed, evManage, manageable, none, ByAPI, 0},
	// Rescue.
	{rescuing, evWait, rescueWait, rescue, ByConductor, 0},
	{rescuing, evDone, rescue, none, ByConductor, 0},
	{rescuing, evFail, rescueFailed, rescue, ByConductor | ByTimer, 0},
	{rescueWait, evResume, rescuing, rescue, ByAgent | ByConductor, 0},
	{rescueWait, evFail, rescueFailed, rescue, waitEnds, 0},
	{rescueWait, evAbort, rescueFailed, rescue, ByAPI, 0},
	{rescueWait, evDelete, deleting, available, ByAPI, NotProtected},
	{rescue, evRescue, rescuing, rescue, ByAPI, 0},
	{rescue, evUnrescue, unrescuing, active, ByAPI, 0},
	{rescue, evDelete, deleting, available, ByAPI, NotProtected},
	{rescueFailed, evRescue, rescuing, rescue, ByAPI, 0},
	{rescueFailed, evUnrescue, unrescuing, active, ByAPI, 0},
	{rescueFailed, evDelete, deleting, available, ByAPI, NotProtected},
	{unrescuing, evDone, active, none, ByConductor, 0},
	{unrescuing, evFail, unrescueFailed, active, ByConductor | ByTimer, 0},
	{unrescueFailed, evRescue, rescuing, rescue, ByAPI, 0},
	{unrescueFailed, evUnrescue, unrescuing, active, ByAPI, 0},
	{unrescueFailed, evDelete, deleting, available, ByAPI, NotProtected},
	// Service.
	{servicing, evWait, serviceWait, active, ByConductor, 0},
	{servicing, evHold, serviceHold, active, ByConductor, 0},
	{servicing, evDone, active, none, ByConductor, 0},
	{servicing, evFail, serviceFailed, active, ByConductor | ByTimer, 0},
	{serviceWait, evResume, servicing, active, ByAgent | ByConductor, 0},
	{serviceWait, evHold, serviceHold, active, ByConductor, 0},
	{serviceWait, evFail, serviceFailed, active, waitEnds, 0},
	{serviceWait, evAbort, serviceFailed, active, ByAPI, 0},
	{serviceWait, evDelete, deleting, available, ByAPI, NotProtected},
	{serviceHold, evService, servicing, active, ByAPI, 0},
	{serviceHold, evUnhold, serviceWait, active, ByAPI, 0},
	{serviceHold, evFail, serviceFailed, active, ByConductor, 0},
	{serviceHold, evAbort, serviceFailed, active, ByAPI, 0},
	{serviceFailed, evService, servicing, active, ByAPI, 0},
	{serviceFailed, evRescue, rescuing, rescue, ByAPI, 0},
	{serviceFailed, evDelete, deleting, available, ByAPI, NotProtected},
	{serviceFailed, evAbort, active, none, ByAPI, 0},
	{serviceFailed, evWait, serviceWait, active, ByConductor, 0},
	{serviceFailed, evHold, serviceHold, active, ByConductor, 0},
}

type edge struct {
	from api.State
	ev   api.Event
}

var byEdge = func() map[edge]*Transition {
	m := make(map[edge]*Transition, len(Table))
	for i := range Table {
		m[edge{Table[i].From, Table[i].Event}] = &Table[i]
	}
	return m
}()

// Lookup finds the transition for an event, given the present target. The
// error has kind WrongState and names the verbs that are allowed.
//
// A conductor that reports EV_DONE for a clean that was asked for (target
// manageable) takes the edge of EV_MANAGE.
func Lookup(from api.State, ev api.Event, target api.State) (Transition, error) {
	if from == cleaning && ev == evDone && target == manageable {
		ev = evManage
	}
	if t, ok := byEdge[edge{from, ev}]; ok {
		return *t, nil
	}
	return Transition{}, wrongState(from, ev)
}

// Next is where an event leads: the new state and the new target state.
func Next(from api.State, ev api.Event, target api.State) (to, newTarget api.State, err error) {
	t, err := Lookup(from, ev, target)
	if err != nil {
		return none, none, err
	}
	if t.Target == KeepTarget {
		return t.To, target, nil
	}
	return t.To, t.Target, nil
}

// Allowed are the verbs that a user may ask for in a state.
func Allowed(from api.State) []api.Event {
	var verbs []api.Event
	for _, ev := range Verbs() {
		if t, ok := byEdge[edge{from, ev}]; ok && t.Who&ByAPI != 0 {
			verbs = append(verbs, ev)
		}
	}
	return verbs
}

// Possible are those of the verbs that a state allows which this version can
// carry out: they have a flow, ask for the end of one, or only move the state.
// It is what people are told; the table says more.
func Possible(from api.State) []api.Event {
	return slices.DeleteFunc(Allowed(from), func(ev api.Event) bool {
		_, flow := FlowOf(ev)
		return !flow && ev != evAbort && Transient(byEdge[edge{from, ev}].To)
	})
}

// PossibleNow are those of the possible verbs that are not refused because of
// the node's last flow, nil for none. What is under way can only be asked to end.
func PossibleNow(from api.State, f *api.Flow) []api.Event {
	verbs := Possible(from)
	if f.GetStatus() != api.FlowStatus_FLOW_RUNNING || f.GetId() == "" {
		return verbs
	}
	return slices.DeleteFunc(verbs, func(ev api.Event) bool {
		switch {
		case f.GetKind() == api.FlowKind_FLOW_POWER, f.GetKind() == api.FlowKind_FLOW_HARDWARE:
			return true
		case ev == evAbort:
			return f.GetRequest() == evDelete || f.GetRequest() == evFail
		}
		return ev != evDelete
	})
}

// CheckVerb is the rule for a user's verb on a node: the state allows it and
// no flag forbids it. It does not look at locks and flows.
func CheckVerb(n *api.Node, verb api.Event) error {
	t, ok := byEdge[edge{n.GetState(), verb}]
	if !ok || t.Who&ByAPI == 0 {
		return wrongState(n.GetState(), verb)
	}
	return t.CheckGuard(n)
}

// CheckGuard refuses the transition when a flag of the node forbids it.
func (t Transition) CheckGuard(n *api.Node) error {
	if t.Guard&NotProtected != 0 && n.GetProtected() {
		return errs.About(errs.Denied, n.GetId(), "%s: the node is protected", VerbName(t.Event))
	}
	if t.Guard&NotInMaintenance != 0 && n.GetMaintenance() {
		why := n.GetMaintenanceReason()
		if why != "" {
			why = " (" + why + ")"
		}
		return errs.About(errs.WrongState, n.GetId(), "%s: the node is in maintenance%s", VerbName(t.Event), why)
	}
	return nil
}

// Waits reports whether a conductor works on a node in this state and may come
// to wait for the machine: only then can the work be ended from outside.
func Waits(s api.State) bool {
	_, ok := byEdge[edge{s, evWait}]
	return ok && Working(s)
}

func wrongState(from api.State, ev api.Event) error {
	name := StateName(from)
	if name == "" {
		name = "unspecified"
	}
	if wait, ok := byEdge[edge{from, evWait}]; ok && Waits(from) {
		if t, ok := byEdge[edge{wait.To, ev}]; ok && t.Who&ByAPI != 0 {
			return errs.New(errs.WrongState, "%s is possible while the node waits (%s), it is %s now: try again in a moment", VerbName(ev), StateName(wait.To), name)
		}
	}
	verbs := joinVerbs(Possible(from))
	if verbs == "" {
		verbs = "none"
	}
	return errs.New(errs.WrongState, "%s is not possible in state %q; possible verbs: %s", VerbName(ev), name, verbs)
}
