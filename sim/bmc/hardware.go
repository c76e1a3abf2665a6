package bmc

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// What a BMC knows of its machine beside power and boot: Secure Boot, virtual
// media, the LED, sensors, a log and parts.

// hardware is guarded by BMC.mu.
type hardware struct {
	secureBoot bool
	led        string // Off, Lit, Blinking
	slots      []*slot
	log        []entry
	nextEntry  int
	sd         override // what waits at the settings resource
	ignored    bool     // an override was ignored once
	lastReset  time.Time
	nmis       int
}

type slot struct {
	id       string
	types    []string
	image    string
	inserted bool
}

type entry struct {
	id       int
	at       time.Time
	severity string
	message  string
}

func newHardware() hardware {
	return hardware{
		led:   "Off",
		slots: []*slot{{id: "Cd", types: []string{"CD", "DVD"}}, {id: "Usb", types: []string{"USBStick"}}},
		sd:    override{target: "None", enabled: "Disabled", mode: "UEFI"},
	}
}

// Image is what is in a slot for a CD, "" when it is empty.
func (b *BMC) Image() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.hw.slots[0]; s.inserted {
		return s.image
	}
	return ""
}

// NMIs is how often the machine was interrupted.
func (b *BMC) NMIs() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.hw.nmis
}

// Log adds an entry to the event log.
func (b *BMC) Log(severity, message string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.logLocked(severity, message)
}

func (b *BMC) logLocked(severity, message string) {
	b.hw.nextEntry++
	b.hw.log = append(b.hw.log, entry{b.hw.nextEntry, time.Now(), severity, message})
	if n := len(b.hw.log) - b.cfg.MaxTrace; n > 0 {
		b.hw.log = slices.Delete(b.hw.log, 0, n)
	}
}

const (
	logPath   = managersPath + "/" + managerID + "/LogServices"
	mediaPath = managersPath + "/" + managerID + "/VirtualMedia"
)

func (b *BMC) hardwareRoutes(mux *http.ServeMux, get func(*http.ServeMux, string, func() object)) {
	sys := systemsPath + "/" + b.cfg.SystemID
	get(mux, sys+"/SecureBoot", func() object { return b.secureBoot(sys) })
	mux.HandleFunc("PATCH "+sys+"/SecureBoot", b.patchSecureBoot)
	if b.is.SettingsBoot {
		mux.HandleFunc("GET "+sys+"/SD", b.getSettings)
		mux.HandleFunc("PATCH "+sys+"/SD", b.patchSettings)
	}
	get(mux, sys+"/EthernetInterfaces", func() object {
		return collection(sys+"/EthernetInterfaces", "EthernetInterfaceCollection.EthernetInterfaceCollection", "NICs", "1")
	})
	get(mux, sys+"/EthernetInterfaces/1", func() object {
		return resource(sys+"/EthernetInterfaces/1", "EthernetInterface.v1_12_0.EthernetInterface", "1", "NIC", object{
			"PermanentMACAddress": "52:54:00:00:00:01", "Status": ok,
		})
	})
	get(mux, sys+"/Storage", func() object {
		return collection(sys+"/Storage", "StorageCollection.StorageCollection", "Storage", "1")
	})
	get(mux, sys+"/Storage/1", func() object {
		return resource(sys+"/Storage/1", "Storage.v1_15_0.Storage", "1", "Storage", object{"Drives": []object{link(sys + "/Storage/1/Drives/0")}})
	})
	get(mux, sys+"/Storage/1/Drives/0", func() object {
		return resource(sys+"/Storage/1/Drives/0", "Drive.v1_17_0.Drive", "0", "Disk 0", object{
			"Manufacturer": "Ironring", "Model": "D1", "SerialNumber": "DISK0", "CapacityBytes": int64(480) << 30, "Status": ok,
		})
	})
	get(mux, chassisPath+"/"+chassisID+"/Thermal", b.thermal)
	get(mux, chassisPath+"/"+chassisID+"/Power", b.watts)

	get(mux, mediaPath, func() object {
		return collection(mediaPath, "VirtualMediaCollection.VirtualMediaCollection", "Virtual media", b.slotIDs()...)
	})
	mux.HandleFunc("GET "+mediaPath+"/{slot}", b.getSlot)
	mux.HandleFunc("POST "+mediaPath+"/{slot}/Actions/VirtualMedia.InsertMedia", b.insert)
	mux.HandleFunc("POST "+mediaPath+"/{slot}/Actions/VirtualMedia.EjectMedia", b.eject)

	get(mux, logPath, func() object {
		return collection(logPath, "LogServiceCollection.LogServiceCollection", "Logs", "Sel")
	})
	get(mux, logPath+"/Sel", func() object {
		return resource(logPath+"/Sel", "LogService.v1_5_0.LogService", "Sel", "System event log", object{
			"LogEntryType": "SEL", "Entries": link(logPath + "/Sel/Entries"),
			"Actions": object{"#LogService.ClearLog": object{"target": logPath + "/Sel/Actions/LogService.ClearLog"}},
		})
	})
	get(mux, logPath+"/Sel/Entries", b.entries)
	mux.HandleFunc("POST "+logPath+"/Sel/Actions/LogService.ClearLog", b.clearLog)
}

func (b *BMC) slotIDs() []string {
	var ids []string
	for _, s := range b.hw.slots { // never changes
		ids = append(ids, s.id)
	}
	return ids
}

func (b *BMC) secureBoot(sys string) object {
	b.mu.Lock()
	defer b.mu.Unlock()
	return resource(sys+"/SecureBoot", "SecureBoot.v1_1_0.SecureBoot", "SecureBoot", "Secure Boot", object{
		"@odata.etag": b.etagLocked(), "SecureBootEnable": b.hw.secureBoot, "SecureBootCurrentBoot": "Disabled", "SecureBootMode": "UserMode",
	})
}

func (b *BMC) patchSecureBoot(w http.ResponseWriter, r *http.Request) {
	e := b.begin(r, "secure_boot")
	var in struct{ SecureBootEnable *bool }
	if !decode(w, r, &in) || !b.matches(w, r, e) {
		return
	}
	if in.SecureBootEnable == nil {
		b.refuse(w, e, http.StatusBadRequest, "PropertyMissing", "SecureBootEnable is missing.")
		return
	}
	b.done(w, e, fmt.Sprint(*in.SecureBootEnable), func() { b.hw.secureBoot = *in.SecureBootEnable })
}

// done carries a change out and answers it.
func (b *BMC) done(w http.ResponseWriter, e *Event, arg string, do func()) {
	b.note(e, func(e *Event) {
		e.Arg, e.Status = arg, http.StatusNoContent
		do()
		b.etag++
		e.Effective = time.Now()
	})
	w.WriteHeader(http.StatusNoContent)
}

func (b *BMC) getSlot(w http.ResponseWriter, r *http.Request) {
	s := b.slot(w, r)
	if s == nil {
		return
	}
	b.mu.Lock()
	path := mediaPath + "/" + s.id
	body := object{
		"@odata.etag": b.etagLocked(), "MediaTypes": s.types, "Inserted": s.inserted, "WriteProtected": true, "ConnectedVia": "NotConnected", "Image": nil,
		"Actions": object{
			"#VirtualMedia.InsertMedia": object{"target": path + "/Actions/VirtualMedia.InsertMedia"},
			"#VirtualMedia.EjectMedia":  object{"target": path + "/Actions/VirtualMedia.EjectMedia"},
		},
	}
	if s.inserted {
		body["ConnectedVia"], body["Image"] = "URI", s.image
	} else if b.is.StaleImage && s.image != "" {
		body["Inserted"], body["Image"] = true, s.image
	}
	b.mu.Unlock()
	reply(w, http.StatusOK, resource(path, "VirtualMedia.v1_6_0.VirtualMedia", s.id, "Virtual media", body))
}

func (b *BMC) slot(w http.ResponseWriter, r *http.Request) *slot {
	for _, s := range b.hw.slots {
		if s.id == r.PathValue("slot") {
			return s
		}
	}
	notFound(w, r)
	return nil
}

func (b *BMC) insert(w http.ResponseWriter, r *http.Request) {
	s := b.slot(w, r)
	if s == nil {
		return
	}
	e := b.begin(r, "insert")
	var in struct {
		Image    *string
		Inserted *bool
	}
	if !decode(w, r, &in) {
		return
	}
	b.driving.Lock()
	defer b.driving.Unlock()
	b.mu.Lock()
	full := s.inserted
	b.mu.Unlock()
	drive := b.drive(s)
	switch {
	case in.Image == nil || *in.Image == "":
		b.refuse(w, e, http.StatusBadRequest, "ActionParameterMissing", "Image is missing.")
	case full:
		b.refuse(w, e, http.StatusBadRequest, "ResourceInUse", "There is a medium already.")
	case drive != nil:
		if err := drive.InsertMedia(r.Context(), *in.Image); err != nil {
			b.cfg.Logger.Warn("medium cannot be read", "err", err)
			b.refuse(w, e, http.StatusInternalServerError, "InternalError", "The medium cannot be read.")
			return
		}
		fallthrough
	default:
		b.done(w, e, *in.Image, func() { s.image, s.inserted = *in.Image, true })
	}
}

// drive is the Machine's drive behind a slot, or nil: only that for CDs has one.
func (b *BMC) drive(s *slot) Drive {
	d, ok := b.cfg.Machine.(Drive)
	if !ok || s != b.hw.slots[0] { // which never changes
		return nil
	}
	return d
}

func (b *BMC) eject(w http.ResponseWriter, r *http.Request) {
	s := b.slot(w, r)
	if s == nil {
		return
	}
	e := b.begin(r, "eject")
	if !b.object(w, r, e) {
		return
	}
	b.driving.Lock()
	defer b.driving.Unlock()
	if d := b.drive(s); d != nil {
		if err := d.EjectMedia(); err != nil {
			b.cfg.Logger.Warn("medium cannot be ejected", "err", err)
			b.refuse(w, e, http.StatusInternalServerError, "InternalError", "The medium cannot be ejected.")
			return
		}
	}
	b.done(w, e, s.id, func() {
		s.inserted = false
		if !b.is.StaleImage {
			s.image = ""
		}
	})
}

// object refuses a POST without arguments that has no body, where the BMC is
// so.
func (b *BMC) object(w http.ResponseWriter, r *http.Request, e *Event) bool {
	if r.ContentLength == 0 {
		if b.is.PostWantsObject {
			b.refuse(w, e, http.StatusBadRequest, "EmptyJSON", "The request body submitted contained an empty JSON object and the service is unable to process it.")
			return false
		}
		return true
	}
	var in struct{}
	return decode(w, r, &in)
}

func (b *BMC) entries() object {
	b.mu.Lock()
	defer b.mu.Unlock()
	path := logPath + "/Sel/Entries"
	members := make([]object, 0, len(b.hw.log))
	for _, e := range slices.Backward(b.hw.log) { // the latest first, as many have it
		id := fmt.Sprint(e.id)
		members = append(members, resource(path+"/"+id, "LogEntry.v1_16_0.LogEntry", id, "Entry", object{
			"EntryType": "SEL", "Created": e.at.UTC().Format(time.RFC3339), "Severity": e.severity, "Message": e.message, "SensorType": "System Event",
		}))
	}
	return object{"@odata.id": path, "@odata.type": "#LogEntryCollection.LogEntryCollection", "Name": "Entries",
		"Members": members, "Members@odata.count": len(members)}
}

func (b *BMC) clearLog(w http.ResponseWriter, r *http.Request) {
	e := b.begin(r, "clear_log")
	if !b.object(w, r, e) {
		return
	}
	b.done(w, e, "", func() {
		b.hw.log = nil
		b.logLocked("OK", "The log was cleared.")
	})
}

func (b *BMC) thermal() object {
	return resource(chassisPath+"/"+chassisID+"/Thermal", "Thermal.v1_7_1.Thermal", "Thermal", "Thermal", object{
		"Temperatures": []object{
			{"Name": "Inlet Temp", "ReadingCelsius": 23, "UpperThresholdCritical": 47, "LowerThresholdCritical": -7, "Status": ok},
			{"Name": "CPU2 Temp", "ReadingCelsius": nil, "Status": object{"State": "Absent"}},
		},
		"Fans": []object{{"Name": "Fan1", "Reading": 5640, "ReadingUnits": "RPM", "Status": ok}},
	})
}

func (b *BMC) watts() object {
	return resource(chassisPath+"/"+chassisID+"/Power", "Power.v1_7_1.Power", "Power", "Power", object{
		"Voltages":      []object{{"Name": "12V", "ReadingVolts": 12.1, "Status": ok}},
		"PowerControl":  []object{{"Name": "System", "PowerConsumedWatts": 211, "Status": ok}},
		"PowerSupplies": []object{{"Name": "PSU1", "PowerOutputWatts": 105, "Status": object{"State": "Enabled", "Health": "Warning"}}},
	})
}

// matches compares If-Match the way the BMC does; it has answered when false.
func (b *BMC) matches(w http.ResponseWriter, r *http.Request, e *Event) bool {
	match, now := r.Header.Get("If-Match"), b.etagNow()
	if b.is.BareETag {
		now = strings.TrimPrefix(now, "W/")
	}
	switch {
	case match == "" && b.is.NeedETag:
		b.refuse(w, e, http.StatusPreconditionRequired, "PreconditionRequired", "The request did not provide the required precondition, such as an If-Match header.")
	case match == "" && !b.is.MatchETag:
		return true
	case match != now && match != "*", match != "" && b.fault(StaleETag, r.Method, r.URL.Path) != nil:
		b.refuse(w, e, http.StatusPreconditionFailed, "PreconditionFailed", "The ETag supplied did not match the current ETag of the resource.")
	default:
		return true
	}
	return false
}
