package service_test

import (
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

// Errors call a node by its name where it has one.
func TestErrorsNameTheNode(t *testing.T) {
	bubble(t, func(f *fixture) {
		id := f.create("n1").GetId()
		check := func(what string, err error, kind errs.Kind) {
			f.Helper()
			wants(f.T, what, err, kind, "n1")
			if err != nil && strings.Contains(err.Error(), id) {
				f.Errorf("%s: %v", what, err)
			}
			if got := errs.SubjectOf(err); got != id {
				f.Errorf("%s is about %q", what, got)
			}
		}
		_, err := f.svc.Provision(f.ctx, &api.ProvisionRequest{Node: id, Verb: api.Event_EV_DEPLOY})
		check("not in this state", err, errs.WrongState)
		_, err = f.svc.DeleteNode(f.ctx, &api.DeleteNodeRequest{Node: id, Rev: 99})
		check("another revision", err, errs.Conflict)
		if _, err := f.svc.Provision(f.ctx, &api.ProvisionRequest{Node: "n1", Verb: api.Event_EV_MANAGE}); err != nil {
			f.Fatal(err)
		}
		_, err = f.svc.Power(f.ctx, &api.PowerRequest{Node: "n1", Action: api.PowerAction_POWER_ACTION_ON})
		check("busy", err, errs.Locked)
		check("changed while busy", f.update("n1", map[string]string{"properties/a": "1"}), errs.Locked)
	})
}
