package node

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

func anyState() *rapid.Generator[api.State] {
	return rapid.Map(rapid.Int32Range(-1, 40), func(i int32) api.State { return api.State(i) })
}

func anyEvent() *rapid.Generator[api.Event] {
	return rapid.Map(rapid.Int32Range(-1, 40), func(i int32) api.Event { return api.Event(i) })
}

func TestTableShape(t *testing.T) {
	if len(Table) != 93 {
		t.Errorf("the table has %d edges, Ironic has 93", len(Table))
	}
	if len(byEdge) != len(Table) {
		t.Errorf("%d of %d edges are duplicates", len(Table)-len(byEdge), len(Table))
	}
	for _, e := range Table {
		if stateNames[e.From] == "" || stateNames[e.To] == "" || eventNames[e.Event] == "" || e.Who == 0 {
			t.Errorf("malformed edge %+v", e)
		}
		if e.Target != KeepTarget && e.Target != none && stateNames[e.Target] == "" {
			t.Errorf("edge with an unknown target %+v", e)
		}
		if e.Who&ByAPI != 0 && !IsVerb(e.Event) {
			t.Errorf("the API fires %s, which is no verb", VerbName(e.Event))
		}
		if e.Who&ByAPI != 0 && e.Who != ByAPI {
			t.Errorf("both the API and others fire %+v", e)
		}
	}
}

// Next does what the table says and nothing else.
func TestNoEdgeOutsideTheTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, ev, target := anyState().Draw(t, "from"), anyEvent().Draw(t, "event"), anyState().Draw(t, "target")
		to, newTarget, err := Next(from, ev, target)
		i := slices.IndexFunc(Table, func(e Transition) bool {
			same := e.Event == ev
			if from == cleaning && ev == evDone && target == manageable {
				same = e.Event == evManage
			}
			return e.From == from && same
		})
		if i < 0 {
			if !errors.Is(err, errs.WrongState) || to != none || newTarget != none {
				t.Fatalf("Next = %v, %v, %v; want a wrong state", to, newTarget, err)
			}
			return
		}
		want := Table[i].Target
		if want == KeepTarget {
			want = target
		}
		if err != nil || to != Table[i].To || newTarget != want {
			t.Fatalf("Next = %v, %v, %v; want %v, %v", to, newTarget, err, Table[i].To, want)
		}
	})
}

// However events arrive, a transient state can always be left by failure, has
// a target while it lasts, and no target is left in a state at rest, except
// where the table keeps one for a failed tear-down.
func TestWalks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state, target := enroll, none
		for range rapid.IntRange(0, 60).Draw(t, "length") {
			var events []api.Event
			for _, e := range Table {
				if e.From == state {
					events = append(events, e.Event)
				}
			}
			ev := rapid.SampledFrom(events).Draw(t, "event")
			var err error
			if state, target, err = Next(state, ev, target); err != nil {
				t.Fatal(err)
			}
			switch {
			case Transient(state) || Held(state) || Failed(state):
				if target == none {
					t.Fatalf("%s has no target", StateName(state))
				}
			case state == errorState:
				if target != available {
					t.Fatalf("error has target %s", StateName(target))
				}
			case target != none:
				t.Fatalf("%s has target %s", StateName(state), StateName(target))
			}
		}
	})
}

func TestGroups(t *testing.T) {
	for _, s := range States() {
		n := 0
		for _, in := range []bool{Stable(s), Failed(s), Held(s), Working(s), Waiting(s)} {
			if in {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s is in %d groups", StateName(s), n)
		}
		if Transient(s) != (Deadline(s) > 0) {
			t.Errorf("%s: transient %v, deadline %v", StateName(s), Transient(s), Deadline(s))
		}
		fail, left := byEdge[edge{s, evFail}]
		if Transient(s) && (!left || fail.Who&ByTimer == 0 || Transient(fail.To)) {
			t.Errorf("%s has a deadline, but the timer cannot end it", StateName(s))
		}
		if len(Allowed(s)) == 0 && !Transient(s) {
			t.Errorf("nobody can leave %s", StateName(s))
		}
	}
	if len(stateRules) != len(stateNames) {
		t.Errorf("%d states have rules, %d have names", len(stateRules), len(stateNames))
	}
	if Transient(none) || Updatable(none) || Deletable(none) {
		t.Error("no state is in a group")
	}
}

func TestEveryStateIsReachable(t *testing.T) {
	seen := map[api.State]bool{enroll: true}
	for range Table {
		for _, e := range Table {
			if seen[e.From] {
				seen[e.To] = true
			}
		}
	}
	for _, s := range States() {
		if !seen[s] {
			t.Errorf("%s cannot be reached from enroll", StateName(s))
		}
	}
}

func TestNamesRoundTrip(t *testing.T) {
	known := 0
	for number := range api.State_name {
		s := api.State(number)
		if s == none {
			continue
		}
		known++
		if got, err := ParseState(StateName(s)); err != nil || got != s {
			t.Errorf("%v: %q, %v, %v", s, StateName(s), got, err)
		}
	}
	if known != len(stateNames) || known != len(States()) {
		t.Errorf("the API has %d states, %d have names", known, len(stateNames))
	}
	for number := range api.Event_name {
		ev := api.Event(number)
		if ev == api.Event_EVENT_NONE {
			continue
		}
		if eventNames[ev] == "" {
			t.Errorf("%v has no name", ev)
		}
	}
	if _, err := ParseState("DEPLOYING"); !errors.Is(err, errs.Invalid) {
		t.Errorf("ParseState: %v", err)
	}
}

func TestWrongStateNamesTheVerbs(t *testing.T) {
	_, _, err := Next(available, evRebuild, none)
	if err == nil || !strings.Contains(err.Error(), `rebuild is not possible in state "available"; possible verbs: manage, deploy`) {
		t.Errorf("%v", err)
	}
	_, _, err = Next(deploying, evDone, none)
	if err != nil {
		t.Errorf("%v", err)
	}
	_, _, err = Next(verifying, evAbort, none)
	if err == nil || !strings.Contains(err.Error(), "possible verbs: none") {
		t.Errorf("%v", err)
	}
	for ev, want := range map[api.Event]string{
		evAbort:  "abort is possible while the node waits (wait call-back), it is deploying now: try again in a moment",
		evDelete: "undeploy is possible while the node waits (wait call-back), it is deploying now: try again in a moment",
		evManage: `manage is not possible in state "deploying"; possible verbs: none`,
	} {
		if _, _, err := Next(deploying, ev, none); err == nil || err.Error() != want {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// What is under way refuses every verb but those that end it.
func TestPossibleNow(t *testing.T) {
	for _, c := range []struct {
		state   api.State
		kind    api.FlowKind
		status  api.FlowStatus
		request api.Event
		want    string
	}{
		{active, api.FlowKind_FLOW_POWER, api.FlowStatus_FLOW_DONE, 0, "rebuild, undeploy"},
		{active, api.FlowKind_FLOW_POWER, api.FlowStatus_FLOW_RUNNING, 0, ""},
		{deployFailed, api.FlowKind_FLOW_HARDWARE, api.FlowStatus_FLOW_RUNNING, 0, ""},
		{deployWait, api.FlowKind_FLOW_DEPLOY, api.FlowStatus_FLOW_RUNNING, 0, "undeploy, abort"},
		{deployWait, api.FlowKind_FLOW_DEPLOY, api.FlowStatus_FLOW_RUNNING, evAbort, "undeploy, abort"},
		{deployWait, api.FlowKind_FLOW_DEPLOY, api.FlowStatus_FLOW_RUNNING, evDelete, "undeploy"},
		{deployWait, api.FlowKind_FLOW_DEPLOY, api.FlowStatus_FLOW_RUNNING, evFail, "undeploy"},
		{cleanWait, api.FlowKind_FLOW_CLEAN, api.FlowStatus_FLOW_RUNNING, 0, "abort"},
	} {
		f := &api.Flow{Id: "f", Kind: c.kind, Status: c.status, Request: c.request}
		if got := joinVerbs(PossibleNow(c.state, f)); got != c.want {
			t.Errorf("%v: %q, want %q", c, got, c.want)
		}
	}
	if got := joinVerbs(PossibleNow(available, nil)); got != "manage, deploy" {
		t.Errorf("without a flow: %q", got)
	}
}

// People are told of verbs that can be carried out, and of no others.
func TestPossible(t *testing.T) {
	for state, want := range map[api.State]string{
		enroll:       "manage",
		manageable:   "provide, inspect",
		available:    "manage, deploy",
		active:       "rebuild, undeploy",
		deployWait:   "undeploy, abort",
		deployHold:   "abort",
		deployFailed: "deploy, rebuild, undeploy",
		cleanFailed:  "manage",
		adoptFailed:  "manage",
		deploying:    "",
	} {
		if got := joinVerbs(Possible(state)); got != want {
			t.Errorf("%s: %q, want %q", StateName(state), got, want)
		}
	}
	_, _, err := Next(manageable, evDeploy, none)
	if err == nil || !strings.HasSuffix(err.Error(), "possible verbs: provide, inspect") {
		t.Errorf("%v", err)
	}
}

func TestCleanDone(t *testing.T) {
	for _, c := range []struct{ ev, target, want int32 }{
		{int32(evDone), int32(available), int32(available)},
		{int32(evDone), int32(manageable), int32(manageable)},
		{int32(evManage), int32(manageable), int32(manageable)},
		{int32(evManage), int32(available), int32(manageable)},
	} {
		to, target, err := Next(cleaning, api.Event(c.ev), api.State(c.target))
		if err != nil || to != api.State(c.want) || target != none {
			t.Errorf("%v: %v, %v, %v", c, to, target, err)
		}
	}
	for from, want := range map[api.State]api.State{manageable: manageable, deleting: available} {
		to, target, err := Next(from, evClean, none)
		if err != nil || to != cleaning || target != want {
			t.Errorf("clean from %v: %v, %v, %v", from, to, target, err)
		}
	}
	if slices.Contains(Allowed(deleting), evClean) || slices.Contains(Allowed(cleaning), evManage) {
		t.Error("users may fire what is the conductor's")
	}
}

func TestGuards(t *testing.T) {
	for _, c := range []struct {
		node *api.Node
		verb api.Event
		want error
	}{
		{&api.Node{State: available, Maintenance: true, MaintenanceReason: "fan"}, evDeploy, errs.WrongState},
		{&api.Node{State: active, Maintenance: true}, evRebuild, errs.WrongState},
		{&api.Node{State: active, Protected: true}, evRebuild, errs.Denied},
		{&api.Node{State: active, Protected: true}, evDelete, errs.Denied},
		{&api.Node{State: active, Maintenance: true}, evDelete, nil},
		{&api.Node{State: active}, evRebuild, nil},
		{&api.Node{State: available, Protected: true}, evDeploy, nil},
		{&api.Node{State: available}, evProvide, errs.WrongState},
		{&api.Node{State: deleting}, evClean, errs.WrongState},
		{&api.Node{State: deploying}, evDone, errs.WrongState},
	} {
		if err := CheckVerb(c.node, c.verb); !errors.Is(err, c.want) {
			t.Errorf("%v %s: %v, want %v", c.node, VerbName(c.verb), err, c.want)
		}
	}
	for _, e := range Table {
		if g := e.Event == evDeploy || e.Event == evRebuild; g != (e.Guard&NotInMaintenance != 0) {
			t.Errorf("maintenance guard of %+v", e)
		}
		if g := e.Event == evDelete || e.Event == evRebuild; g != (e.Guard&NotProtected != 0) {
			t.Errorf("protection guard of %+v", e)
		}
	}
}

func TestCheckDelete(t *testing.T) {
	for _, c := range []struct {
		node *api.Node
		want error
	}{
		{&api.Node{State: enroll}, nil},
		{&api.Node{State: available, Boot: &api.Boot{Target: api.BootTarget_BOOT_LOCAL}}, nil},
		{&api.Node{State: available, Boot: &api.Boot{Target: api.BootTarget_BOOT_RAMDISK}}, errs.WrongState}, // it would stay on
		{&api.Node{State: available, Boot: &api.Boot{Target: api.BootTarget_BOOT_RAMDISK}, Maintenance: true}, nil},
		{&api.Node{State: active}, errs.WrongState},
		{&api.Node{State: active, Maintenance: true}, nil},
		{&api.Node{State: active, Maintenance: true, Protected: true}, errs.Denied},
	} {
		if err := CheckDelete(c.node); !errors.Is(err, c.want) {
			t.Errorf("%v: %v, want %v", c.node, err, c.want)
		}
	}
}
