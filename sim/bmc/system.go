package bmc

import (
	"fmt"
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
	names := make([]string, 0, len(targets))
	for t := range targets {
		names = append(names, t)
	}
	slices.Sort(names)
	boot := object{
		"BootSourceOverrideTarget": b.boot.target, "BootSourceOverrideEnabled": b.boot.enabled, "BootSourceOverrideMode": b.boot.mode,
		"BootSourceOverrideTarget@Redfish.AllowableValues":  names,
		"BootSourceOverrideEnabled@Redfish.AllowableValues": []string{"Disabled", "Once", "Continuous"},
		"BootSourceOverrideMode@Redfish.AllowableValues":    []string{"Legacy", "UEFI"},
	}
	if b.boot.uri != "" {
		boot["HttpBootUri"] = b.boot.uri
	}
	return resource(path, "ComputerSystem.v1_22_0.ComputerSystem", b.cfg.SystemID, "System", object{
		"@odata.etag": b.etagLocked(), "SystemType": "Physical",
		"UUID": b.cfg.UUID, "SerialNumber": b.cfg.Serial, "Manufacturer": b.cfg.Manufacturer, "Model": b.cfg.Model,
		"PowerState": b.power, "Status": ok, "Boot": boot,
		"Links": object{
			"ManagedBy": []object{link(managersPath + "/" + managerID)},
			"Chassis":   []object{link(chassisPath + "/" + chassisID)},
		},
		"Actions": object{"#ComputerSystem.Reset": object{
			"target": path + "/Actions/ComputerSystem.Reset", "ResetType@Redfish.AllowableValues": resetTypes,
		}},
	})
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
	b.note(e, func(e *Event) { e.Arg, e.Before, e.Status = *in.ResetType, b.power, http.StatusNoContent })
	if b.fault(Ignore, r.Method, r.URL.Path) == nil && !b.reset(*in.ResetType, e) {
		b.refuse(w, e, http.StatusServiceUnavailable, "ServiceTemporarilyUnavailable", "Too many changes are pending.")
		return
	}
	w.WriteHeader(http.StatusNoContent)
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
}

func (b *BMC) patchSystem(w http.ResponseWriter, r *http.Request) {
	if !b.ours(w, r) {
		return
	}
	e := b.begin(r, "boot")
	var in patch
	if !decode(w, r, &in) {
		b.note(e, func(e *Event) { e.Status = http.StatusBadRequest })
		return
	}
	match := r.Header.Get("If-Match")
	stale := match != "" && match != "*" && match != b.etagNow()
	if stale || (match != "" && b.fault(StaleETag, r.Method, r.URL.Path) != nil) {
		b.refuse(w, e, http.StatusPreconditionFailed, "PreconditionFailed", "The ETag supplied did not match the current ETag of the resource.")
		return
	}
	if in.Boot == nil {
		b.refuse(w, e, http.StatusBadRequest, "PropertyMissing", "Only the property Boot can be written.")
		return
	}
	if (in.Boot.BootSourceOverrideMode != nil || in.Boot.HttpBootUri != nil) && b.fault(MinimalBoot, r.Method, r.URL.Path) != nil {
		b.refuse(w, e, http.StatusBadRequest, "PropertyNotWritable", "The property BootSourceOverrideMode is read only.")
		return
	}
	next, wrong := b.overrideAfter(in)
	b.note(e, func(e *Event) { e.Arg = next.String() })
	if wrong != "" {
		b.refuse(w, e, http.StatusBadRequest, "PropertyValueNotInList", "The value of "+wrong+" is not in the list of acceptable values.")
		return
	}
	ignore := b.fault(Ignore, r.Method, r.URL.Path) != nil
	b.note(e, func(e *Event) {
		e.Before, e.Status = b.boot.String(), http.StatusOK
		if !ignore {
			b.boot = next
			b.etag++
			e.Effective = time.Now()
		}
		e.After = b.boot.String()
	})
	w.Header().Set("ETag", b.etagNow())
	reply(w, http.StatusOK, b.system())
}

func (o override) String() string { return o.target + "/" + o.enabled + "/" + o.mode }

// overrideAfter is the override with a patch applied, or the name of the
// property that is wrong.
func (b *BMC) overrideAfter(in patch) (next override, wrong string) {
	b.mu.Lock()
	next = b.boot
	b.mu.Unlock()
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
