package node

import (
	"strings"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// stateNames are the wire strings of Ironic, oddities included.
var stateNames = map[api.State]string{
	api.State_ENROLL:          "enroll",
	api.State_VERIFYING:       "verifying",
	api.State_MANAGEABLE:      "manageable",
	api.State_AVAILABLE:       "available",
	api.State_DEPLOYING:       "deploying",
	api.State_DEPLOY_WAIT:     "wait call-back",
	api.State_DEPLOY_FAILED:   "deploy failed",
	api.State_DEPLOY_HOLD:     "deploy hold",
	api.State_ACTIVE:          "active",
	api.State_DELETING:        "deleting",
	api.State_ERROR:           "error",
	api.State_CLEANING:        "cleaning",
	api.State_CLEAN_WAIT:      "clean wait",
	api.State_CLEAN_FAILED:    "clean failed",
	api.State_CLEAN_HOLD:      "clean hold",
	api.State_INSPECTING:      "inspecting",
	api.State_INSPECT_WAIT:    "inspect wait",
	api.State_INSPECT_FAILED:  "inspect failed",
	api.State_ADOPTING:        "adopting",
	api.State_ADOPT_FAILED:    "adopt failed",
	api.State_RESCUING:        "rescuing",
	api.State_RESCUE_WAIT:     "rescue wait",
	api.State_RESCUE_FAILED:   "rescue failed",
	api.State_RESCUE:          "rescue",
	api.State_UNRESCUING:      "unrescuing",
	api.State_UNRESCUE_FAILED: "unrescue failed",
	api.State_SERVICING:       "servicing",
	api.State_SERVICE_WAIT:    "service wait",
	api.State_SERVICE_FAILED:  "service failed",
	api.State_SERVICE_HOLD:    "service hold",
}

var eventNames = map[api.Event]string{
	api.Event_EV_MANAGE:   "manage",
	api.Event_EV_PROVIDE:  "provide",
	api.Event_EV_DEPLOY:   "deploy",
	api.Event_EV_REBUILD:  "rebuild",
	api.Event_EV_DELETE:   "undeploy",
	api.Event_EV_INSPECT:  "inspect",
	api.Event_EV_CLEAN:    "clean",
	api.Event_EV_ADOPT:    "adopt",
	api.Event_EV_RESCUE:   "rescue",
	api.Event_EV_UNRESCUE: "unrescue",
	api.Event_EV_SERVICE:  "service",
	api.Event_EV_ABORT:    "abort",
	api.Event_EV_UNHOLD:   "unhold",
	api.Event_EV_DONE:     "done",
	api.Event_EV_FAIL:     "fail",
	api.Event_EV_WAIT:     "wait",
	api.Event_EV_RESUME:   "resume",
	api.Event_EV_HOLD:     "hold",
}

var statesByName = func() map[string]api.State {
	states := make(map[string]api.State, len(stateNames))
	for s, name := range stateNames {
		states[name] = s
	}
	return states
}()

// StateName is the wire string of a state; "" for STATE_UNSPECIFIED (Ironic's
// null) and "unknown" for a number that this build does not know.
func StateName(s api.State) string {
	if s == api.State_STATE_UNSPECIFIED {
		return ""
	}
	if name, ok := stateNames[s]; ok {
		return name
	}
	return "unknown"
}

// ParseState is the inverse of StateName; the name must be exact. The empty
// string is no state.
func ParseState(name string) (api.State, error) {
	if s, ok := statesByName[name]; ok {
		return s, nil
	}
	return api.State_STATE_UNSPECIFIED, errs.New(errs.Invalid, "no provision state is called %q", name)
}

// States are all states in the order of their numbers.
func States() []api.State {
	all := make([]api.State, 0, len(stateNames))
	for s := api.State_ENROLL; len(all) < len(stateNames); s++ {
		all = append(all, s)
	}
	return all
}

// IsVerb reports whether an event is a verb that a user may ask for.
// EV_MANAGE and EV_CLEAN are verbs that a conductor fires too.
func IsVerb(ev api.Event) bool {
	return ev >= api.Event_EV_MANAGE && ev <= api.Event_EV_UNHOLD
}

// VerbName is the name of a verb as the command line has it, or of an event
// that a conductor reports; "none" for EVENT_NONE.
func VerbName(ev api.Event) string {
	if ev == api.Event_EVENT_NONE {
		return "none"
	}
	if name, ok := eventNames[ev]; ok {
		return name
	}
	return "unknown"
}

// Verbs are all verbs in the order of their numbers.
func Verbs() []api.Event {
	var all []api.Event
	for ev := api.Event_EV_MANAGE; IsVerb(ev); ev++ {
		all = append(all, ev)
	}
	return all
}

func joinVerbs(verbs []api.Event) string {
	names := make([]string, len(verbs))
	for i, ev := range verbs {
		names[i] = VerbName(ev)
	}
	return strings.Join(names, ", ")
}
