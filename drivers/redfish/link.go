package redfish

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/stmcginnis/gofish"
	"github.com/stmcginnis/gofish/common"

	"github.com/ironring/ironring/internal/errs"
)

// link is a session in use by one call: gofish's client with what we know of
// the BMC. What may be sent through it is decided by the call under it.
type link struct {
	call   *call
	client *gofish.APIClient
	root   root
	known  *system // read before, by this call
}

// root is what we use of the service root.
type root struct {
	Vendor  string
	Product string
	Oem     map[string]json.RawMessage
	Systems ref
	// Managers and Chassis are used where the system does not link its own.
	Managers ref
	Chassis  ref
}

// ref is a link of Redfish.
type ref struct {
	ID string `json:"@odata.id"`
}

type collection struct {
	Members []ref
	Next    string `json:"Members@odata.nextLink"`
}

// get reads a resource, and its ETag where it has one.
func (l *link) get(path string, into any) (etag string, err error) {
	if path == "" {
		return "", errs.New(errs.Unsupported, "the BMC does not offer this")
	}
	resp, err := l.client.Get(path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body) // bounded by the call
	if err != nil {
		return "", err
	}
	// A property of another shape than it should have counts as missing.
	var shape *json.UnmarshalTypeError
	if err := json.Unmarshal(body, into); err != nil && !errors.As(err, &shape) {
		return "", errs.New(errs.Internal, "the answer to %s is not as Redfish has it: %s", clean(path), clean(err.Error()))
	}
	var tag struct {
		ETag string `json:"@odata.etag"`
	}
	_ = json.Unmarshal(body, &tag) // it is an object: the call has looked
	if tag.ETag == "" {
		tag.ETag = resp.Header.Get("ETag")
	}
	return tag.ETag, nil
}

// optional is get for what a BMC may lack; ok is false then.
func (l *link) optional(path string, into any) (ok bool, err error) {
	if path == "" {
		return false, nil
	}
	_, err = l.get(path, into)
	if missing(err) {
		l.call.note(func(r *record) { r.failed, r.failedURL, r.message = 0, "", "" })
		return false, nil
	}
	return err == nil, err
}

// list reads the members of a collection that may be missing, as paths.
func (l *link) list(path string) ([]string, error) {
	var out []string
	for path != "" && len(out) < maxMembers {
		var c collection
		if ok, err := l.optional(path, &c); err != nil || !ok {
			return out, err
		}
		for _, m := range c.Members {
			if m.ID != "" && len(out) < maxMembers {
				out = append(out, m.ID)
			}
		}
		path = c.Next
	}
	return out, nil
}

// missing tells that a resource or action is not there.
func missing(err error) bool {
	switch statusOf(err) {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusGone:
		return true
	}
	return false
}

// statusOf is the HTTP status of an error, 0 when it has none.
func statusOf(err error) int {
	var e *common.Error
	if errors.As(err, &e) {
		return e.HTTPReturnedStatusCode
	}
	return 0
}

// patch changes a resource. A BMC that wants to know which version of it is
// meant, or that thinks we meant another, is asked once more: it has done
// nothing.
func (l *link) patch(path string, body map[string]any, etag string, q behaviour) error {
	headers := map[string]string{}
	if q.has(bareETag) {
		etag = strings.TrimPrefix(etag, "W/")
	}
	if q.has(sendETag) {
		headers = ifMatch(etag)
	}
	err := send(l.client.PatchWithHeaders(path, body, headers))
	switch statusOf(err) {
	case http.StatusPreconditionFailed, http.StatusPreconditionRequired:
	default:
		return err
	}
	fresh, gerr := l.get(path, &struct{}{})
	if gerr != nil {
		return err
	}
	switch {
	case q.has(bareETag):
		fresh = strings.TrimPrefix(fresh, "W/")
	case fresh == "":
		fresh = "*"
	}
	if fresh == headers["If-Match"] {
		fresh = "" // it is right, and refused all the same: without, then
	}
	return send(l.client.PatchWithHeaders(path, body, ifMatch(fresh)))
}

func ifMatch(etag string) map[string]string {
	if etag == "" {
		return nil
	}
	return map[string]string{"If-Match": etag}
}

// post carries out an action. Without arguments an empty object is sent: there
// are BMCs that refuse an empty body, and none that refuses this.
func (l *link) post(path string, body map[string]any) error {
	if path == "" {
		return errs.New(errs.Unsupported, "the BMC does not offer this action")
	}
	if body == nil {
		body = map[string]any{}
	}
	return send(l.client.Post(path, body))
}

func send(resp *http.Response, err error) error {
	if resp != nil {
		resp.Body.Close()
	}
	return err
}

// system is what we use of a ComputerSystem.
type system struct {
	path string
	etag string

	UUID, SerialNumber, Manufacturer, Model, SKU, PartNumber string
	BiosVersion                                              string
	PowerState                                               string
	IndicatorLED                                             string
	LocationIndicatorActive                                  *bool
	ProcessorSummary                                         struct {
		Count int
		Model string
	}
	MemorySummary struct {
		TotalSystemMemoryGiB float64
	}
	Status             status
	Boot               boot
	Settings           settingsRef `json:"@Redfish.Settings"`
	SecureBoot         ref
	VirtualMedia       ref
	LogServices        ref
	EthernetInterfaces ref
	Storage            ref
	Processors         ref
	Links              struct {
		ManagedBy []ref
		Chassis   []ref
	}
	Actions struct {
		Reset action `json:"#ComputerSystem.Reset"`
	}
}

type status struct{ State, Health string }

type settingsRef struct {
	SettingsObject ref
}

type action struct {
	Target  string   `json:"target"`
	Allowed []string `json:"ResetType@Redfish.AllowableValues"`
}

// system reads the one system that the call is about, once.
func (l *link) system() (*system, error) {
	if l.known != nil {
		return l.known, nil
	}
	if l.root.Systems.ID == "" {
		return nil, errs.New(errs.Internal, "the BMC has no collection of systems")
	}
	var c collection
	if _, err := l.get(l.root.Systems.ID, &c); err != nil {
		return nil, err
	}
	if len(c.Members) != 1 { // the call has narrowed it
		return nil, errs.New(errs.Internal, "the BMC has no collection of systems")
	}
	return l.systemAt(c.Members[0].ID)
}

func (l *link) systemAt(path string) (*system, error) {
	s := &system{path: path}
	etag, err := l.get(path, s)
	if err != nil {
		return nil, err
	}
	s.etag, l.known = etag, s
	return s, nil
}

// again reads the system anew.
func (l *link) again(s *system) (*system, error) { return l.systemAt(s.path) }

// manager is what we use of a Manager.
type manager struct {
	path               string
	FirmwareVersion    string
	Model              string
	VirtualMedia       ref
	LogServices        ref
	EthernetInterfaces ref
}

// managers are those of the system; where the BMC links none, its only one.
func (l *link) managers() ([]*manager, error) {
	s, err := l.system()
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, m := range s.Links.ManagedBy {
		paths = append(paths, m.ID)
	}
	if len(paths) == 0 {
		if paths, err = l.list(l.root.Managers.ID); err != nil || len(paths) != 1 {
			return nil, err
		}
	}
	var out []*manager
	for _, p := range paths[:min(len(paths), 4)] {
		m := &manager{path: p}
		if ok, err := l.optional(p, m); err != nil {
			return nil, err
		} else if ok {
			out = append(out, m)
		}
	}
	return out, nil
}
