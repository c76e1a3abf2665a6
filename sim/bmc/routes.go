package bmc

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// The paths of the service. Those of system, manager and chassis end with an
// id.
const (
	rootPath     = "/redfish/v1"
	systemsPath  = rootPath + "/Systems"
	managersPath = rootPath + "/Managers"
	chassisPath  = rootPath + "/Chassis"
	servicePath  = rootPath + "/SessionService"
	sessionsPath = servicePath + "/Sessions"
	managerID    = "BMC"
	chassisID    = "1"
)

// routes is the whole service. A trailing slash does not matter.
func (b *BMC) routes() http.Handler {
	open, closed := http.NewServeMux(), http.NewServeMux()
	get := func(mux *http.ServeMux, path string, body func() object) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, body()) })
	}
	get(open, "/redfish", func() object { return object{"v1": rootPath + "/"} })
	get(open, rootPath, b.root)
	get(open, rootPath+"/odata", b.odata)
	open.HandleFunc("GET "+rootPath+"/$metadata", metadata)
	open.HandleFunc("POST "+sessionsPath, b.openSession)
	open.HandleFunc("POST "+sessionsPath+"/Members", b.openSession)

	get(closed, servicePath, b.sessionService)
	get(closed, sessionsPath, func() object {
		return collection(sessionsPath, "SessionCollection.SessionCollection", "Sessions", b.sessionIDs()...)
	})
	closed.HandleFunc("GET "+sessionsPath+"/{id}", b.getSession)
	closed.HandleFunc("DELETE "+sessionsPath+"/{id}", b.closeSession)
	get(closed, systemsPath, func() object {
		return collection(systemsPath, "ComputerSystemCollection.ComputerSystemCollection", "Systems", b.systemIDs()...)
	})
	closed.HandleFunc("GET "+systemsPath+"/{id}", b.getSystem)
	closed.HandleFunc("PATCH "+systemsPath+"/{id}", b.patchSystem)
	closed.HandleFunc("POST "+systemsPath+"/{id}/Actions/ComputerSystem.Reset", b.postReset)
	get(closed, managersPath, func() object {
		return collection(managersPath, "ManagerCollection.ManagerCollection", "Managers", managerID)
	})
	get(closed, managersPath+"/"+managerID, b.manager)
	nics := managersPath + "/" + managerID + "/EthernetInterfaces"
	get(closed, nics, func() object {
		return collection(nics, "EthernetInterfaceCollection.EthernetInterfaceCollection", "NICs", "eth0")
	})
	get(closed, nics+"/eth0", func() object { return b.nic(nics + "/eth0") })
	get(closed, chassisPath, func() object {
		return collection(chassisPath, "ChassisCollection.ChassisCollection", "Chassis", chassisID)
	})
	get(closed, chassisPath+"/"+chassisID, b.chassis)
	b.hardwareRoutes(closed, get)

	dispatch := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := open.Handler(r); pattern != "" {
			open.ServeHTTP(w, r)
			return
		}
		if _, ok := b.authenticate(r); !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="redfish"`)
			fail(w, http.StatusUnauthorized, "NoValidSession", "There is no valid session established with the implementation.")
			return
		}
		if _, pattern := closed.Handler(r); pattern == "" {
			b.unrouted(w, r, closed)
			return
		}
		closed.ServeHTTP(w, r)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.count(func(s *Stats) {
			s.Requests++
			s.atOnce++
			s.MostAtOnce = max(s.MostAtOnce, s.atOnce)
		})
		defer b.count(func(s *Stats) { s.atOnce-- })
		w.Header().Set("OData-Version", "4.0")
		w.Header().Set("Cache-Control", "no-cache")
		if p := strings.TrimRight(r.URL.Path, "/"); p != "" {
			r.URL.Path = p
		}
		b.faulty(dispatch).ServeHTTP(w, r)
	})
}

// unrouted tells a path that is not there from a method that is not allowed.
func (b *BMC) unrouted(w http.ResponseWriter, r *http.Request, mux *http.ServeMux) {
	var allow []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		probe := r.Clone(r.Context())
		probe.Method = m
		if _, pattern := mux.Handler(probe); pattern != "" {
			allow = append(allow, m)
		}
	}
	if len(allow) == 0 {
		notFound(w, r)
		return
	}
	w.Header().Set("Allow", strings.Join(allow, ", "))
	fail(w, http.StatusMethodNotAllowed, "OperationNotAllowed", "The HTTP method is not allowed on this resource.")
}

func (b *BMC) root() object {
	more := object{}
	for k, v := range map[string]string{"Vendor": b.is.Vendor, "Product": b.is.Product} {
		if v != "" {
			more[k] = v
		}
	}
	if b.is.Oem != "" {
		more["Oem"] = object{b.is.Oem: object{}}
	}
	maps.Copy(more, object{
		"RedfishVersion": "1.18.0", "UUID": b.cfg.UUID,
		"Systems": link(systemsPath), "Managers": link(managersPath), "Chassis": link(chassisPath),
		"SessionService": link(servicePath),
		"Links":          object{"Sessions": link(sessionsPath)},
		"ProtocolFeaturesSupported": object{
			"ExpandQuery": object{"ExpandAll": false, "Levels": false, "Links": false, "NoLinks": false},
			"FilterQuery": false, "SelectQuery": false, "OnlyMemberQuery": false, "ExcerptQuery": false,
		},
	})
	return resource(rootPath+"/", "ServiceRoot.v1_15_0.ServiceRoot", "RootService", "Root Service", more)
}

func (b *BMC) odata() object {
	services := []object{{"name": "Service", "kind": "Singleton", "url": rootPath + "/"}}
	for _, p := range []string{systemsPath, managersPath, chassisPath, servicePath} {
		services = append(services, object{"name": p[strings.LastIndex(p, "/")+1:], "kind": "Singleton", "url": p})
	}
	return object{"@odata.context": rootPath + "/$metadata", "value": services}
}

func metadata(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/xml")
	const ns = "http://redfish.dmtf.org/schemas/v1/"
	fmt.Fprint(w, `<?xml version="1.0" encoding="UTF-8"?>`+
		`<edmx:Edmx xmlns:edmx="http://docs.oasis-open.org/odata/ns/edmx" Version="4.0">`)
	for _, name := range []string{"ServiceRoot", "ComputerSystem", "Manager", "Chassis", "Session"} {
		fmt.Fprintf(w, `<edmx:Reference Uri="%s%s_v1.xml"><edmx:Include Namespace="%s"/></edmx:Reference>`, ns, name, name)
	}
	fmt.Fprint(w, `<edmx:DataServices/></edmx:Edmx>`)
}

func (b *BMC) sessionService() object {
	return resource(servicePath, "SessionService.v1_1_9.SessionService", "SessionService", "Session Service", object{
		"ServiceEnabled": true, "SessionTimeout": int(b.cfg.SessionTTL.Seconds()),
		"Sessions": link(sessionsPath), "Status": ok,
	})
}

var ok = object{"State": "Enabled", "Health": "OK"}

func (b *BMC) manager() object {
	path := managersPath + "/" + managerID
	return resource(path, "Manager.v1_19_0.Manager", managerID, "Manager", object{
		"ManagerType": "BMC", "FirmwareVersion": b.cfg.Firmware, "Status": ok, "PowerState": "On",
		"EthernetInterfaces": link(path + "/EthernetInterfaces"),
		"VirtualMedia":       link(mediaPath), "LogServices": link(logPath),
		"Links": object{
			"ManagerForServers": []object{link(systemsPath + "/" + b.cfg.SystemID)},
			"ManagerForChassis": []object{link(chassisPath + "/" + chassisID)},
		},
	})
}

func (b *BMC) nic(path string) object {
	body := resource(path, "EthernetInterface.v1_12_0.EthernetInterface", "eth0", "Manager NIC", object{
		"InterfaceEnabled": true, "Status": ok, "MACAddress": b.cfg.MAC, "PermanentMACAddress": b.cfg.MAC,
		"IPv4Addresses": []object{}, "IPv6Addresses": []object{},
	})
	key := "IPv4Addresses"
	address := object{"Address": b.cfg.Address, "SubnetMask": "255.255.255.0", "AddressOrigin": "Static"}
	if strings.Contains(b.cfg.Address, ":") {
		key, address = "IPv6Addresses", object{"Address": b.cfg.Address, "PrefixLength": 64, "AddressOrigin": "Static"}
	}
	body[key] = []object{address}
	return body
}

func (b *BMC) chassis() object {
	return resource(chassisPath+"/"+chassisID, "Chassis.v1_25_0.Chassis", chassisID, "Chassis", object{
		"ChassisType": "RackMount", "Manufacturer": b.cfg.Manufacturer, "Model": b.cfg.Model,
		"SerialNumber": b.cfg.Serial, "Status": ok,
		"Thermal": link(chassisPath + "/" + chassisID + "/Thermal"), "Power": link(chassisPath + "/" + chassisID + "/Power"),
		"Links": object{
			"ComputerSystems": []object{link(systemsPath + "/" + b.cfg.SystemID)},
			"ManagedBy":       []object{link(managersPath + "/" + managerID)},
		},
	})
}

func (b *BMC) systemIDs() []string {
	ids := []string{b.cfg.SystemID}
	for i := range b.cfg.MoreSystems {
		ids = append(ids, fmt.Sprintf("%s-%d", b.cfg.SystemID, i+2))
	}
	return ids
}

// ours is false, and the request answered, for a system that does nothing or
// is not there.
func (b *BMC) ours(w http.ResponseWriter, r *http.Request) bool {
	id := r.PathValue("id")
	switch {
	case id == b.cfg.SystemID:
		return true
	case slices.Contains(b.systemIDs(), id) && r.Method == http.MethodGet:
		reply(w, http.StatusOK, resource(systemsPath+"/"+id, "ComputerSystem.v1_22_0.ComputerSystem", id, "System", object{
			"PowerState": powerOff, "Status": object{"State": "Absent"},
		}))
	default:
		notFound(w, r)
	}
	return false
}
