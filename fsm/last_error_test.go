package fsm

import (
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// What an error says no longer holds once later work shows so, and not before.
func TestLastErrorGoes(t *testing.T) {
	type work struct {
		kind     api.FlowKind
		step     string
		verifies bool   // its first step verifies the BMC
		err      string // "": it is done
		want     string // last_error afterwards
	}
	const power, hardware = api.FlowKind_FLOW_POWER, api.FlowKind_FLOW_HARDWARE
	for name, all := range map[string][]work{
		"another machine, then accepted":     {{power, "on", false, "another machine", "another machine"}, {hardware, "accept", true, "", ""}},
		"another machine, then put right":    {{hardware, "nmi", false, "another machine", "another machine"}, {power, "on", true, "", ""}},
		"another machine, not refuted":       {{power, "on", false, "another machine", "another machine"}, {power, "off", false, "", "another machine"}},
		"power, then power":                  {{power, "on", true, "refused", "refused"}, {power, "off", false, "", ""}},
		"power, then a lamp":                 {{power, "on", true, "refused", "refused"}, {hardware, "lamp", false, "", "refused"}},
		"a lamp, then power":                 {{hardware, "lamp", true, "no lamp", "no lamp"}, {power, "on", false, "", "no lamp"}},
		"a lamp, then another change":        {{hardware, "lamp", true, "no lamp", "no lamp"}, {hardware, "nmi", false, "", "no lamp"}},
		"a lamp, then the lamp":              {{hardware, "lamp", true, "no lamp", "no lamp"}, {hardware, "lamp", false, "", ""}},
		"the last one stands":                {{power, "on", true, "one", "one"}, {power, "on", false, "two", "two"}, {power, "on", false, "", ""}},
		"of the lifecycle, then power":       {{api.FlowKind_FLOW_VERIFY, "login", true, "no BMC", "no BMC"}, {power, "on", false, "", "no BMC"}},
		"of the lifecycle, behind power":     {{api.FlowKind_FLOW_VERIFY, "login", true, "no BMC", "no BMC"}, {power, "on", false, "refused", "refused"}, {hardware, "nmi", false, "silent", "silent"}, {hardware, "nmi", false, "", "no BMC"}, {power, "on", false, "", "no BMC"}},
		"of the lifecycle, another machine":  {{api.FlowKind_FLOW_VERIFY, "login", false, "another machine", "another machine"}, {power, "on", true, "", "another machine"}},
		"ended without an error, hides none": {{power, "on", true, "refused", "refused"}, {hardware, "aborted", false, "-", "refused"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := owned(t)
			for _, is := range all {
				ev, end := none, none
				if is.kind == api.FlowKind_FLOW_VERIFY {
					ev, end = manage, api.Event_EV_FAIL
				}
				fl := newFlow(is.kind, 1)
				fl.Steps[0].Name = is.step
				f.ok(flowCreate(ev, fl))
				tok := f.ok(acquire(nodeID(1), "l1")).GetToken()
				f.ok(stepStart(tok, fl.GetId(), 0, 1, none))
				if is.verifies {
					f.ok(nodeWrite(tok, &api.Node{Bmc: &api.BmcFacts{Serial: "S-17"}}, "bmc"))
				}
				ended := flowEnd(tok, fl.GetId(), api.FlowStatus_FLOW_FAILED, end)
				switch is.err {
				case "":
					f.ok(stepDone(tok, fl.GetId(), 0, 1, none))
					ended.GetFlowEnd().Status = api.FlowStatus_FLOW_DONE
				case "-":
					ended.GetFlowEnd().Status = api.FlowStatus_FLOW_ABORTED
				default:
					ended.GetFlowEnd().Error = is.err
				}
				f.ok(ended, release(nodeID(1), tok))
				if got := f.node().GetLastError(); got != is.want {
					t.Fatalf("after %v of %s: last_error %q, want %q", is.kind, is.step, got, is.want)
				}
			}
			f.ok(flowCreate(manage, newFlow(api.FlowKind_FLOW_VERIFY, 1)))
			if n := f.node(); n.GetLastError() != "" || n.GetLastErrorOf() != nil {
				t.Errorf("after the next verb: %q of %v", n.GetLastError(), n.GetLastErrorOf())
			}
		})
	}
}

// Why a change is refused while there is a flow is told, not that each step of
// it changes the revision.
func TestPatchDuringFlow(t *testing.T) {
	f := owned(t)
	f.ok(flowCreate(manage, newFlow(api.FlowKind_FLOW_VERIFY, 1)))
	op := nodePatch(nodeID(1), &api.Node{DriverInfo: []byte(`{"x":1}`)}, "driver_info")
	op.GetNodePatch().Rev = f.node().GetRev() - 1
	f.fails(errs.Locked, op)
	op = nodePatch(nodeID(1), &api.Node{Description: "x"}, "description")
	op.GetNodePatch().Rev = f.node().GetRev() - 1
	f.fails(errs.Conflict, op)
}
