package bmc

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
)

// maxBody bounds what a client may send.
const maxBody = 64 << 10

// object is a JSON object.
type object = map[string]any

// resource is what every Redfish resource has, and more.
func resource(path, typ, id, name string, more object) object {
	o := object{"@odata.id": path, "@odata.type": "#" + typ, "Id": id, "Name": name}
	for k, v := range more {
		o[k] = v
	}
	return o
}

// collection is a Redfish collection.
func collection(path, typ, name string, members ...string) object {
	links := make([]object, 0, len(members))
	for _, m := range members {
		links = append(links, link(path+"/"+m))
	}
	return object{"@odata.id": path, "@odata.type": "#" + typ, "Name": name,
		"Members": links, "Members@odata.count": len(links)}
}

func link(path string) object { return object{"@odata.id": path} }

func reply(w http.ResponseWriter, status int, body object) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	data, err := json.Marshal(body)
	if err != nil { // cannot be: bodies are made of strings and numbers
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

// fail answers with a Redfish error.
func fail(w http.ResponseWriter, status int, id, text string) {
	reply(w, status, object{"error": object{
		"code": "Base.1.18.GeneralError", "message": text,
		"@Message.ExtendedInfo": []object{{
			"@odata.type": "#Message.v1_2_1.Message", "MessageId": "Base.1.18." + id,
			"Message": text, "Severity": "Critical", "Resolution": "None.",
		}},
	}})
}

func notFound(w http.ResponseWriter, r *http.Request) {
	fail(w, http.StatusNotFound, "ResourceMissingAtURI", "The resource at the URI "+r.URL.Path+" was not found.")
}

// decode reads a JSON object; it has answered when it returns false.
func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	if t := r.Header.Get("Content-Type"); t != "" && !strings.HasPrefix(t, "application/json") {
		fail(w, http.StatusUnsupportedMediaType, "GeneralError", "The body must be JSON.")
		return false
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		fail(w, http.StatusRequestEntityTooLarge, "PayloadTooLarge", "The body is too long.")
		return false
	case err != nil:
		fail(w, http.StatusBadRequest, "MalformedJSON", "The body could not be read.")
		return false
	}
	if !strings.HasPrefix(strings.TrimSpace(string(data)), "{") || json.Unmarshal(data, into) != nil {
		fail(w, http.StatusBadRequest, "MalformedJSON", "The body is not a JSON object of the right shape.")
		return false
	}
	return true
}
