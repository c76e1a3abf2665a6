package service_test

import (
	"encoding/json"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/conductor/flow"
	"github.com/ironring/ironring/internal/errs"
)

// That data of others may go is an argument of one flow, of a clean and of a
// deploy; it is stored with who asked.
func TestWipeExisting(t *testing.T) {
	bubble(t, func(f *fixture) {
		f.to(api.State_MANAGEABLE)
		_, err := f.provision(api.Event_EV_PROVIDE, `{"wipe_existing":"yes"}`)
		wants(f.T, "a text", err, errs.Invalid, "wipe_existing")
		rep, err := f.provision(api.Event_EV_PROVIDE, `{"wipe_existing":true}`)
		if err != nil {
			f.Fatal(err)
		}
		if a, err := flow.ParseCleanArgs(rep.GetFlow().GetArgs()); err != nil || !a.WipeExisting || rep.GetFlow().GetMeta().GetPrincipal() == "" {
			f.Errorf("the clean has %s by %v", rep.GetFlow().GetArgs(), rep.GetFlow().GetMeta())
		}
		f.finish("p1", api.Event_EV_DONE)
		image := `"image":"http://h/a","checksum":"` + digest + `"`
		_, err = f.provision(api.Event_EV_DEPLOY, `{`+image+`,"wipe_existing":1}`)
		wants(f.T, "a number", err, errs.Invalid, "wipe_existing")
		rep, err = f.provision(api.Event_EV_DEPLOY, `{`+image+`,"wipe_existing":true}`)
		if err != nil {
			f.Fatal(err)
		}
		var a flow.DeployArgs
		if err := json.Unmarshal(rep.GetFlow().GetArgs(), &a); err != nil || !a.WipeExisting {
			f.Errorf("the deploy has %s", rep.GetFlow().GetArgs())
		}
	})
}
