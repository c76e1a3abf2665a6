package node

import (
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/errs"
)

func TestHardwareStep(t *testing.T) {
	media := func(slot, image string) *api.ChangeHardwareRequest {
		return &api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_InsertMedia{InsertMedia: &api.MediaChange{Slot: slot, Image: image}}}
	}
	for name, test := range map[string]struct {
		req  *api.ChangeHardwareRequest
		want StepID // empty: refused
		args string
	}{
		"nothing":      {&api.ChangeHardwareRequest{}, StepID{}, ""},
		"boot device":  {&api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_BootDevice{BootDevice: &api.BootDeviceChange{Device: api.BootDevice_BOOT_DEVICE_PXE, Persistent: true}}}, StepSetBootDevice, `{"device":1,"persistent":true}`},
		"no device":    {&api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_BootDevice{BootDevice: &api.BootDeviceChange{Device: 77}}}, StepID{}, ""},
		"mode":         {&api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_BootMode{BootMode: api.BootMode_BOOT_MODE_BIOS}}, StepSetBootMode, `{"mode":2}`},
		"no mode":      {&api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_BootMode{}}, StepID{}, ""},
		"secure boot":  {&api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_SecureBoot{SecureBoot: false}}, StepSetSecureBoot, `{}`},
		"insert":       {media("Cd", "http://h/a.iso"), StepInsertMedia, `{"slot":"Cd","image":"http://h/a.iso"}`},
		"a file":       {media("", "file:///etc/passwd"), StepID{}, ""},
		"credentials":  {media("", "http://u:p@h/a.iso"), StepID{}, ""},
		"a signature":  {media("", "http://h/a.iso?X-Amz-Signature=hunter2"), StepID{}, ""},
		"a password":   {media("", "http://u:hunter2%zz@h/a.iso"), StepID{}, ""},
		"a query":      {media("", "http://h/a.iso?machine=7"), StepInsertMedia, `{"image":"http://h/a.iso?machine=7"}`},
		"long":         {media("", "http://h/"+strings.Repeat("a", 300)), StepID{}, ""},
		"bad slot":     {media("a b", "http://h/a.iso"), StepID{}, ""},
		"eject":        {&api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_EjectMedia{}}, StepEjectMedia, `{}`},
		"indicator":    {&api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_Indicator{Indicator: api.Indicator_INDICATOR_ON}}, StepSetIndicator, `{"indicator":2}`},
		"no indicator": {&api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_Indicator{}}, StepID{}, ""},
		"nmi":          {&api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_Nmi{Nmi: true}}, StepSendNMI, `{}`},
		"no nmi":       {&api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_Nmi{}}, StepID{}, ""},
		"clear events": {&api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_ClearEvents{ClearEvents: true}}, StepClearEvents, `{}`},
		"no clear":     {&api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_ClearEvents{}}, StepID{}, ""},
	} {
		s, err := HardwareStep(test.req)
		if test.want == (StepID{}) {
			if errs.KindOf(err) != errs.Invalid || errs.SubjectOf(err) == "" || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %v, %v", name, s, err)
			}
			continue
		}
		if err != nil || IDOf(s) != test.want || string(s.GetArgs()) != test.args {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	// An NMI is the one change that nothing shows: it is never run twice.
	s, err := HardwareStep(&api.ChangeHardwareRequest{Change: &api.ChangeHardwareRequest_Nmi{Nmi: true}})
	if err != nil || s.GetPolicy() != api.ResumePolicy_RESUME_GUARDED {
		t.Errorf("%v, %v", s, err)
	}
}
