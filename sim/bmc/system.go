package bmc

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

func (b *BMC) etagLocked() string { return fmt.Sprintf(`W/"%d"`, b.etag) }

func (b *BMC) getSystem(w http.ResponseWriter, r *http.Request) {
	if !b.ours(w, r) {
		return
	}
	w.Header().Set("ETag", b.etagNow())
	reply(w, http.StatusOK, b.system())
}

func (b *BMC) etagNow() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.etagLocked()
}

func (b *BMC) system() object {
	b.mu.Lock()
	defer b.mu.Unlock()
	path := systemsPath + "/" + b.cfg.SystemID
	boot := bootObject(b.boot)
	more := object{}
	if b.is.SettingsBoot {
		more["@Redfish.Settings"] = object{"@odata.type": "#Settings.v1_3_5.Settings", "SettingsObject": link(path + "/SD")}
	}
	maps.Copy(more, object{
		"@odata.etag": b.etagLocked(), "SystemType": "Physical",
		"UUID": b.cfg.UUID, "SerialNumber": b.cfg.Serial, "Manufacturer": b.cfg.Manufacturer, "Model": b.cfg.Model,
		"PowerState": b.power, "Status": ok, "Boot": boot, "IndicatorLED": b.hw.led, "BiosVersion": "1.0",
		"ProcessorSummary": object{"Count": 2, "Model": "Simulated"}, "MemorySummary": object{"TotalSystemMemoryGiB": 64},
		"SecureBoot": link(path + "/SecureBoot"), "EthernetInterfaces": link(path + "/EthernetInterfaces"), "Storage": link(path + "/Storage"),
		"Links": object{
			"ManagedBy": []object{link(managersPath + "/" + managerID)},
			"Chassis":   []object{link(chassisPath + "/" + chassisID)},
		},
		"Actions": object{"#ComputerSystem.Reset": object{
			"target": path + "/Actions/ComputerSystem.Reset", "ResetType@Redfish.AllowableValues": resetTypes,
		}},
	})
	return resource(path, "ComputerSystem.v1_22_0.ComputerSystem", b.cfg.SystemID, "System", more)
}

func bootObject(o override) object {
	names := make([]string, 0, len(targets))
	for t := range targets {
		names = append(names, t)
	}
	slices.Sort(names)
	boot := object{
		"BootSourceOverrideTarget": o.target, "BootSourceOverrideEnabled": o.enabled, "BootSourceOverrideMode": o.mode,
		"BootSourceOverrideTarget@Redfish.AllowableValues":  names,
		"BootSourceOverrideEnabled@Redfish.AllowableValues": []string{"Disabled", "Once", "Continuous"},
		"BootSourceOverrideMode@Redfish.AllowableValues":    []string{"Legacy", "UEFI"},
	}
	if o.uri != "" {
		boot["HttpBootUri"] = o.uri
	}
	return boot
}

// getSettings is the settings resource, where the boot override waits.
func (b *BMC) getSettings(w http.ResponseWriter, _ *http.Request) {
	path := systemsPath + "/" + b.cfg.SystemID + "/SD"
	w.Header().Set("ETag", b.etagNow())
	b.mu.Lock()
	body := resource(path, "ComputerSystem.v1_22_0.ComputerSystem", "SD", "Future state", object{
		"@odata.etag": b.etagLocked(), "Boot": bootObject(b.hw.sd),
	})
	b.mu.Unlock()
	reply(w, http.StatusOK, body)
}

// begin puts a request for a change on the trace. The request was
// authenticated before; who it was is asked again for the record.
func (b *BMC) begin(r *http.Request, what string) *Event {
	w, _ := b.authenticate(r)
	e := &Event{Received: time.Now(), Actor: w.String(), Session: w.session, What: what}
	b.record(e)
	return e
}

// note changes an event that is on the trace.
func (b *BMC) note(e *Event, f func(*Event)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(e)
}

// refuse answers a change with an error, on the trace too.
func (b *BMC) refuse(w http.ResponseWriter, e *Event, status int, id, text string) {
	b.note(e, func(e *Event) { e.Status = status })
	fail(w, status, id, text)
}

func (b *BMC) postReset(w http.ResponseWriter, r *http.Request) {
	if !b.ours(w, r) {
		return
	}
	e := b.begin(r, "power")
	var in struct{ ResetType *string }
	if !decode(w, r, &in) {
		b.note(e, func(e *Event) { e.Status = http.StatusBadRequest })
		return
	}
	if in.ResetType == nil || !slices.Contains(resetTypes, *in.ResetType) {
		b.refuse(w, e, http.StatusBadRequest, "ActionParameterNotSupported", "ResetType is missing or not one of: "+strings.Join(resetTypes, ", ")+".")
		return
	}
	if status, text := b.refusedReset(*in.ResetType); status != 0 {
		b.note(e, func(e *Event) { e.Arg = *in.ResetType })
		b.refuse(w, e, status, "ResourceInUse", text)
		return
	}
	b.note(e, func(e *Event) { e.Arg, e.Before, e.Status = *in.ResetType, b.power, http.StatusNoContent })
	if b.fault(Ignore, r.Method, r.URL.Path) == nil && !b.reset(*in.ResetType, e) {
		b.refuse(w, e, http.StatusServiceUnavailable, "ServiceTemporarilyUnavailable", "Too many changes are pending.")
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// refusedReset is the status with which this BMC refuses a reset now, 0: it does
// not.
func (b *BMC) refusedReset(kind string) (status int, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case time.Since(b.hw.lastReset) < b.is.ResetBusy:
		return http.StatusConflict, "The system is busy with an earlier request to change its power."
	case b.is.SameRefused != 0 && (kind == "On" && b.power == powerOn || kind == "ForceOff" && b.power == powerOff):
		return b.is.SameRefused, "The operation is not allowed in the current state of the system."
	}
	return 0, ""
}

// patch is what may be written of a system; what else a client repeats of it
// is ignored, as BMCs do.
type patch struct {
	Boot *struct {
		BootSourceOverrideTarget  *string
		BootSourceOverrideEnabled *string
		BootSourceOverrideMode    *string
		HttpBootUri               *string
	}
	IndicatorLED *string
}

func (b *BMC) patchSystem(w http.ResponseWriter, r *http.Request) {
	if !b.ours(w, r) {
		return
	}
	b.patchOverride(w, r, &b.boot)
}

func (b *BMC) patchSettings(w http.ResponseWriter, r *http.Request) { b.patchOverride(w, r, &b.hw.sd) }

// patchOverride writes the LED or a boot override: the one in force, or the one
// at the settings resource.
func (b *BMC) patchOverride(w http.ResponseWriter, r *http.Request, into *override) {
	e := b.begin(r, "boot")
	var in patch
	if !decode(w, r, &in) {
		b.note(e, func(e *Event) { e.Status = http.StatusBadRequest })
		return
	}
	if !b.matches(w, r, e) {
		return
	}
	if in.IndicatorLED != nil && in.Boot == nil {
		b.patchLED(w, e, *in.IndicatorLED)
		return
	}
	if status, id, text := b.wrongPatch(r, in, into); text != "" {
		b.refuse(w, e, status, id, text)
		return
	}
	next, wrong := b.overrideAfter(in, into)
	b.note(e, func(e *Event) { e.Arg = next.String() })
	if wrong != "" {
		b.refuse(w, e, http.StatusBadRequest, "PropertyValueNotInList", "The value of "+wrong+" is not in the list of acceptable values.")
		return
	}
	ignore := b.fault(Ignore, r.Method, r.URL.Path) != nil
	b.note(e, func(e *Event) {
		e.Before, e.Status = into.String(), http.StatusOK
		if b.is.FirstOverrideWithoutEffect && !b.hw.ignored {
			b.hw.ignored, ignore, e.Status = true, true, http.StatusNoContent
		}
		if !ignore {
			*into = next
			b.etag++
			e.Effective = time.Now()
		}
		e.After = into.String()
	})
	w.Header().Set("ETag", b.etagNow())
	if e.Status == http.StatusNoContent {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	reply(w, http.StatusOK, b.system())
}

// wrongPatch is why a patch is refused for its form; text is "" when it is not.
func (b *BMC) wrongPatch(r *http.Request, in patch, into *override) (status int, id, text string) {
	if in.Boot == nil {
		return http.StatusBadRequest, "PropertyMissing", "Only the property Boot can be written."
	}
	mode, target, enabled := in.Boot.BootSourceOverrideMode, in.Boot.BootSourceOverrideTarget, in.Boot.BootSourceOverrideEnabled
	switch {
	case b.is.SettingsBoot && into == &b.boot:
		return http.StatusBadRequest, "OperationSupportedInFutureStateURI", "Support of this operation for boot properties is moved to " + r.URL.Path + "/SD."
	case mode != nil && b.is.ModeReadOnly,
		(mode != nil || in.Boot.HttpBootUri != nil) && b.fault(MinimalBoot, r.Method, r.URL.Path) != nil:
		return http.StatusBadRequest, "PropertyNotWritable", "The property BootSourceOverrideMode is read only."
	case b.is.DisableNeedsTarget && enabled != nil && target != nil && *target == "None":
		return http.StatusBadRequest, "PropertyValueConflict", "BootSourceOverrideEnabled cannot be written with the target None."
	}
	return 0, "", ""
}

func (b *BMC) patchLED(w http.ResponseWriter, e *Event, state string) {
	if !slices.Contains([]string{"Off", "Lit", "Blinking"}, state) {
		b.refuse(w, e, http.StatusBadRequest, "PropertyValueNotInList", "The value of IndicatorLED is not in the list of acceptable values.")
		return
	}
	b.note(e, func(e *Event) { e.What = "led" })
	b.done(w, e, state, func() { b.hw.led = state })
}

func (o override) String() string { return o.target + "/" + o.enabled + "/" + o.mode }

// overrideAfter is the override with a patch applied, or the name of the
// property that is wrong.
func (b *BMC) overrideAfter(in patch, now *override) (next override, wrong string) {
	b.mu.Lock()
	next = *now
	b.mu.Unlock()
	if b.is.ModeForgotten {
		next.mode = "Legacy"
	}
	if v := in.Boot.BootSourceOverrideTarget; v != nil {
		if _, ok := targets[*v]; !ok {
			return next, "BootSourceOverrideTarget"
		}
		next.target = *v
	}
	if v := in.Boot.BootSourceOverrideEnabled; v != nil {
		if !slices.Contains([]string{"Disabled", "Once", "Continuous"}, *v) {
			return next, "BootSourceOverrideEnabled"
		}
		next.enabled = *v
	}
	if v := in.Boot.BootSourceOverrideMode; v != nil {
		if *v != "UEFI" && *v != "Legacy" {
			return next, "BootSourceOverrideMode"
		}
		next.mode = *v
	}
	if v := in.Boot.HttpBootUri; v != nil {
		next.uri = *v
	}
	return next, ""
}
