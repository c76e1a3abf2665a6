package redfish_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/drivers"
	"github.com/ironring/ironring/drivers/drivertest"
	"github.com/ironring/ironring/internal/errs"
)

// hostile is a server whose answers are what a test says; the others are those
// of a small BMC.
func hostile(t *testing.T, answers map[string]string) drivers.Target {
	t.Helper()
	usual := map[string]string{
		"GET /redfish/v1":                 `{"Systems":{"@odata.id":"/redfish/v1/Systems"},"Managers":{"@odata.id":"/redfish/v1/Managers"},"Links":{"Sessions":{"@odata.id":"/redfish/v1/Sessions"}}}`,
		"POST /redfish/v1/Sessions":       `{"@odata.id":"/redfish/v1/Sessions/1"}`,
		"GET /redfish/v1/Systems":         `{"Members":[{"@odata.id":"/redfish/v1/Systems/1"}]}`,
		"GET /redfish/v1/Systems/1":       `{"PowerState":"Off","Actions":{"#ComputerSystem.Reset":{"target":"/redfish/v1/Systems/1/Reset"}},"Links":{"ManagedBy":[{"@odata.id":"/redfish/v1/Managers/1"}]}}`,
		"GET /redfish/v1/Managers":        `{"Members":[{"@odata.id":"/redfish/v1/Managers/1"}]}`,
		"GET /redfish/v1/Managers/1":      `{"EthernetInterfaces":{"@odata.id":"/redfish/v1/Managers/1/NICs"}}`,
		"GET /redfish/v1/Managers/1/NICs": `{"Members":[]}`,
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := r.Method + " " + strings.TrimRight(r.URL.Path, "/")
		body, ok := answers[key]
		if !ok {
			body, ok = usual[key]
		}
		switch {
		case strings.HasPrefix(body, "->"):
			w.Header().Set("Location", body[2:])
			w.WriteHeader(http.StatusPermanentRedirect)
		case ok:
			w.Header().Set("X-Auth-Token", "t0ken")
			_, _ = io.WriteString(w, body)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return drivers.Target{NodeID: "n1", Driver: "redfish", Info: drivers.Info{
		"redfish_address": srv.URL, "redfish_username": "admin", "redfish_password": secret,
		"redfish_verify_ca": certPEM(srv.Certificate()),
	}}
}

func certPEM(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

// TestHostile shows that no answer brings the process down, keeps a call from
// ending, or leads it elsewhere.
func TestHostile(t *testing.T) {
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a request went elsewhere")
	}))
	defer elsewhere.Close()
	elsewhere.Config.ErrorLog = log.New(io.Discard, "", 0)
	other := strings.TrimPrefix(elsewhere.URL, "https://")
	d := driver(t)

	for _, where := range []string{
		"GET /redfish/v1", "POST /redfish/v1/Sessions", "GET /redfish/v1/Systems", "GET /redfish/v1/Systems/1",
		"GET /redfish/v1/Managers/1", "GET /redfish/v1/Managers/1/NICs",
	} {
		for _, body := range []string{
			``, `null`, `7`, `[]`, `{}`, `{"Members":null}`, `{"Members":[null]}`, `{"Members":[7]}`, `{"Members":{}}`,
			`{"Members":[{"@odata.id":""}]}`, `{"Members":[{"@odata.id":"@` + other + `/"}]}`,
			`{"Members":[{"@odata.id":"https://` + other + `/"}]}`, `{"Members":[{"@odata.id":":1/x"}]}`,
			`{"Members":[],"Members@odata.nextLink":"` + strings.TrimPrefix(where, "GET ") + `"}`,
			`{"Systems":7,"Links":"x","PowerState":{},"Boot":[],"Actions":[]}`,
			`{"Systems":{"@odata.id":"@` + other + `/"},"Links":{"Sessions":{"@odata.id":"@` + other + `/"}}}`,
			`{"PowerState":"` + strings.Repeat("x", 2<<20) + `"}`,
			strings.Repeat(`{"a":`, 20000), "\xff\xfe\x00", `{"PowerState":"Maybe\nnot"}`,
			"->https://" + other + "/", "->/redfish/v1", "->" + strings.TrimPrefix(where, "GET "),
		} {
			target := hostile(t, map[string]string{where: body})
			ctx := timeout(t, 10*time.Second)
			_, err1 := d.PowerState(ctx, target)
			_, err2 := d.Identify(ctx, target)
			_, err3 := d.BootDevice(ctx, target)
			err4 := d.SetPower(ctx, target, drivertest.NewGrant(time.Minute), api.PowerAction_POWER_ACTION_ON)
			for _, err := range []error{err1, err2, err3, err4} {
				noSecret(t, err)
				if err != nil && (len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\n\x00")) {
					t.Errorf("%s %.60q: the error is no single line: %.200q", where, body, err)
				}
				if k := errs.KindOf(err); err != nil && (k == errs.Timeout || k == errs.Denied) {
					t.Errorf("%s %.60q: %v", where, body, err)
				}
			}
		}
	}
}
