package bmc_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/sim/bmc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, cfg bmc.Config) *bmc.BMC {
	t.Helper()
	b, err := bmc.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := b.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return b
}

// client is a bare HTTP client, so that nothing but the protocol is tested.
type client struct {
	t     *testing.T
	b     *bmc.BMC
	hc    *http.Client
	token string
	basic bool
}

func newClient(t *testing.T, b *bmc.BMC) *client {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(b.CertPEM())) {
		t.Fatal("no certificate")
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, TLSHandshakeTimeout: 2 * time.Second}
	t.Cleanup(tr.CloseIdleConnections)
	return &client{t: t, b: b, hc: &http.Client{Transport: tr, Timeout: 10 * time.Second}}
}

type answer struct {
	status int
	header http.Header
	body   map[string]any
}

func (c *client) try(method, path, body string, header ...string) (answer, error) {
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.b.URL()+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("X-Auth-Token", c.token)
	}
	if c.basic {
		req.SetBasicAuth("admin", "password")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.hc.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: resp.StatusCode, header: resp.Header}
	if len(data) > 0 && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(data, &a.body); err != nil {
			return answer{}, err
		}
	}
	return a, nil
}

func (c *client) do(want int, method, path, body string, header ...string) answer {
	c.t.Helper()
	a, err := c.try(method, path, body, header...)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	if a.status != want {
		c.t.Fatalf("%s %s %s: %d %v, want %d", method, path, body, a.status, a.body, want)
	}
	return a
}

func (c *client) login() string {
	c.t.Helper()
	a := c.do(201, "POST", "/redfish/v1/SessionService/Sessions", `{"UserName":"admin","Password":"password"}`)
	c.token = a.header.Get("X-Auth-Token")
	return a.header.Get("Location")
}

func (c *client) reset(kind string) {
	c.t.Helper()
	c.do(204, "POST", "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset", `{"ResetType":"`+kind+`"}`)
}

func (c *client) power() string {
	c.t.Helper()
	s, _ := c.do(200, "GET", "/redfish/v1/Systems/1", "").body["PowerState"].(string)
	return s
}

func (c *client) await(want string) {
	c.t.Helper()
	eventually(c.t, "power is "+want, func() bool { return c.power() == want })
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(5 * time.Second); !cond(); <-tick.C {
		if time.Now().After(limit) {
			t.Fatalf("not in 5 s: %s", what)
		}
	}
}

// TestLinks walks the whole service: every link must lead somewhere, every
// resource must have what DSP0266 asks of it.
func TestLinks(t *testing.T) {
	b := start(t, bmc.Config{UUID: "4c4c4544-0035-4d10-8032-b4c04f4a3332", Serial: "S1", MAC: "52:54:00:00:00:01", Address: "2001:db8::1"})
	c := newClient(t, b)
	c.login()
	seen := map[string]bool{}
	var visit func(path string)
	var follow func(v any)
	follow = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if id, ok := v["@odata.id"].(string); ok {
				visit(id)
			}
			for _, x := range v {
				follow(x)
			}
		case []any:
			for _, x := range v {
				follow(x)
			}
		}
	}
	visit = func(path string) {
		if seen[path] {
			return
		}
		seen[path] = true
		a := c.do(200, "GET", path, "")
		if a.header.Get("OData-Version") != "4.0" || strings.TrimRight(a.body["@odata.id"].(string), "/") != strings.TrimRight(path, "/") {
			t.Errorf("%s: %v", path, a.body)
		}
		if typ, _ := a.body["@odata.type"].(string); !strings.HasPrefix(typ, "#") || a.body["Name"] == nil {
			t.Errorf("%s lacks a type or a name", path)
		}
		follow(a.body)
	}
	visit("/redfish/v1")
	for _, want := range []string{"/redfish/v1/Systems/1", "/redfish/v1/Managers/BMC/EthernetInterfaces/eth0", "/redfish/v1/Chassis/1", "/redfish/v1/SessionService/Sessions/1"} {
		if !seen[want] {
			t.Errorf("%s is not linked", want)
		}
	}
	c.token = ""
	for _, path := range []string{"/redfish", "/redfish/v1/", "/redfish/v1/odata", "/redfish/v1/$metadata"} {
		c.do(200, "GET", path, "")
	}
	c.do(200, "HEAD", "/redfish/v1", "")
}

func TestAuthentication(t *testing.T) {
	b := start(t, bmc.Config{MaxSessions: 2, SessionTTL: time.Hour})
	c := newClient(t, b)
	if a := c.do(401, "GET", "/redfish/v1/Systems", ""); a.header.Get("WWW-Authenticate") == "" {
		t.Error("401 without a challenge")
	}
	c.do(401, "GET", "/redfish/v1/nothing", "")
	sessions := "/redfish/v1/SessionService/Sessions"
	c.do(401, "POST", sessions, `{"UserName":"admin","Password":"wrong"}`)
	c.do(400, "POST", sessions, `{"UserName":"admin"}`)
	first := c.login()
	second := c.login()
	c.do(503, "POST", sessions, `{"UserName":"admin","Password":"password"}`)
	c.do(200, "GET", second, "")
	c.do(204, "DELETE", first, "")
	c.do(404, "DELETE", first, "")
	c.do(200, "GET", "/redfish/v1/Systems", "")
	c.do(204, "DELETE", second, "")
	c.do(401, "GET", "/redfish/v1/Systems", "")
	c.token, c.basic = "", true
	c.do(200, "GET", "/redfish/v1/Systems", "")
	b.Inject(bmc.Fault{Kind: bmc.WrongPassword})
	c.do(401, "GET", "/redfish/v1/Systems", "")
	if s := b.Stats(); s.Logins != 2 || s.Logouts != 2 || s.Sessions != 0 || s.Basic != 2 {
		t.Errorf("%+v", s)
	}
}

func TestRefusals(t *testing.T) {
	c := newClient(t, start(t, bmc.Config{}))
	c.login()
	system := "/redfish/v1/Systems/1"
	reset := system + "/Actions/ComputerSystem.Reset"
	for _, test := range []struct {
		want               int
		method, path, body string
	}{
		{404, "GET", "/redfish/v1/Systems/2", ""},
		{404, "POST", "/redfish/v1/Systems/2/Actions/ComputerSystem.Reset", `{"ResetType":"On"}`},
		{404, "GET", "/redfish/v2", ""},
		{405, "DELETE", system, ""},
		{405, "GET", reset, ""},
		{400, "POST", reset, `{"ResetType":"Explode"}`},
		{400, "POST", reset, `{}`},
		{400, "POST", reset, `[]`},
		{400, "POST", reset, `null`},
		{400, "POST", reset, `{"ResetType":7}`},
		{400, "PATCH", system, `{"AssetTag":"x"}`},
		{400, "PATCH", system, `{"Boot":7}`},
		{400, "PATCH", system, `{"Boot":{"BootSourceOverrideTarget":"Moon"}}`},
		{400, "PATCH", system, `{"Boot":{"BootSourceOverrideEnabled":"Twice"}}`},
		{400, "PATCH", system, `{"Boot":{"BootSourceOverrideMode":"OpenFirmware"}}`},
		{413, "PATCH", system, `{"Boot":"` + strings.Repeat("x", 70<<10) + `"}`},
	} {
		a := c.do(test.want, test.method, test.path, test.body)
		if e, _ := a.body["error"].(map[string]any); e["code"] == nil || e["message"] == nil {
			t.Errorf("%s %s: no Redfish error: %v", test.method, test.path, a.body)
		}
		if test.want == 405 && a.header.Get("Allow") == "" {
			t.Errorf("%s %s: 405 without Allow", test.method, test.path)
		}
	}
	c.do(415, "POST", reset, "x", "Content-Type", "text/plain")
}

// machine records what its BMC tells it.
type machine struct {
	mu   sync.Mutex
	log  []string
	soft func()
}

func (m *machine) note(s string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, s)
}

func (m *machine) said() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.log, " ")
}

func (m *machine) PowerOn(d api.BootDevice) { m.note("on:" + strconv.Itoa(int(d))) }
func (m *machine) PowerOff()                { m.note("off") }
func (m *machine) SoftOff() {
	m.note("soft")
	if m.soft != nil {
		m.soft()
	}
}

func TestMachine(t *testing.T) {
	m := &machine{}
	b := start(t, bmc.Config{Machine: m, PowerDelay: 30 * time.Millisecond})
	m.soft = b.PoweredOff // a guest that obeys at once
	c := newClient(t, b)
	c.login()
	c.do(200, "PATCH", "/redfish/v1/Systems/1", `{"Boot":{"BootSourceOverrideTarget":"Pxe","BootSourceOverrideEnabled":"Once","BootSourceOverrideMode":"UEFI"}}`)
	c.reset("On")
	if p := c.power(); p != "PoweringOn" && p != "On" {
		t.Errorf("power is %s", p)
	}
	c.await("On")
	c.reset("ForceOff")
	c.await("Off")
	c.reset("On")
	c.await("On")
	c.reset("GracefulShutdown")
	c.await("Off")
	c.do(200, "PATCH", "/redfish/v1/Systems/1", `{"Boot":{"BootSourceOverrideTarget":"Hdd","BootSourceOverrideEnabled":"Continuous"}}`)
	c.reset("On")
	c.await("On")
	c.reset("ForceRestart")
	want := "on:1 off on:0 soft on:2 off on:2"
	eventually(t, want, func() bool { return m.said() == want })
	if d := b.NextBoot(); d != api.BootDevice_BOOT_DEVICE_DISK || b.Boot() != d {
		t.Errorf("a continuous override is used up: %v", d)
	}
}

func TestETag(t *testing.T) {
	b := start(t, bmc.Config{})
	c := newClient(t, b)
	c.login()
	path, body := "/redfish/v1/Systems/1", `{"Boot":{"BootSourceOverrideTarget":"Cd","BootSourceOverrideEnabled":"Once"}}`
	tag := c.do(200, "GET", path, "").header.Get("ETag")
	next := c.do(200, "PATCH", path, body, "If-Match", tag).header.Get("ETag")
	if next == tag || tag == "" {
		t.Errorf("ETag %q after %q", next, tag)
	}
	c.do(412, "PATCH", path, body, "If-Match", tag)
	c.do(200, "PATCH", path, body, "If-Match", "*")
	c.do(200, "PATCH", path, body)
}

func TestTrace(t *testing.T) {
	b := start(t, bmc.Config{PowerDelay: 50 * time.Millisecond, MaxTrace: 3})
	c := newClient(t, b)
	c.login()
	c.reset("On")
	c.await("On")
	tr := b.Trace()
	if len(tr) != 1 || tr[0].Effective.Sub(tr[0].Received) < 50*time.Millisecond || tr[0].Before != "Off" || tr[0].After != "On" ||
		tr[0].Session != "1" || !strings.HasPrefix(tr[0].Actor, "admin@127.0.0.1:") || tr[0].Status != 204 {
		t.Errorf("trace is %+v", tr)
	}
	b.Inject(bmc.Fault{Kind: bmc.Ignore, Times: 1})
	c.reset("ForceOff")
	if tr = b.Trace(); !tr[1].Effective.IsZero() {
		t.Errorf("an ignored change is in effect: %+v", tr[1])
	}
	for range 3 {
		c.do(400, "POST", "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset", `{"ResetType":"x"}`)
	}
	if tr = b.Trace(); len(tr) != 3 || tr[2].Status != 400 || b.Stats().Changes != 5 {
		t.Errorf("trace is %+v", tr)
	}
}

func TestFaults(t *testing.T) {
	b := start(t, bmc.Config{})
	c := newClient(t, b)
	c.login()
	c.hc.Timeout = 300 * time.Millisecond
	path := "/redfish/v1/Systems"
	for _, kind := range []bmc.FaultKind{bmc.Silent, bmc.Drop, bmc.DropAfter} {
		b.Inject(bmc.Fault{Kind: kind, Method: "POST", Path: "Reset"})
		if a, err := c.try("POST", path+"/1/Actions/ComputerSystem.Reset", `{"ResetType":"On"}`); err == nil {
			t.Errorf("%v: %d", kind, a.status)
		}
		want := kind == bmc.DropAfter
		if want {
			eventually(t, "it was done", func() bool { return b.Power() == api.PowerState_POWER_ON })
		} else if b.Stats().Changes != 0 {
			t.Errorf("%v: it was done", kind)
		}
		c.do(200, "GET", path, "") // others are served
		b.Heal()
	}
	b.Inject(bmc.Fault{Kind: bmc.Unavailable, Times: 1}, bmc.Fault{Kind: bmc.Status, Status: 418, Times: 1})
	c.do(503, "GET", path, "")
	c.do(418, "GET", path, "")
	c.do(200, "GET", path, "")
	b.Inject(bmc.Fault{Kind: bmc.Slow, Delay: 100 * time.Millisecond})
	begin := time.Now()
	c.do(200, "GET", path, "")
	if took := time.Since(begin); took < 100*time.Millisecond {
		t.Errorf("slow took %v", took)
	}
	b.Heal()
	b.Inject(bmc.Fault{Kind: bmc.Rubbish})
	if a, err := c.try("GET", path, ""); err != nil || a.body != nil {
		t.Errorf("rubbish is %v, %v", a, err)
	}
	b.Heal()
	b.Inject(bmc.Fault{Kind: bmc.SilentTLS})
	c.hc.CloseIdleConnections()
	if _, err := c.try("GET", path, ""); err == nil {
		t.Error("a silent TLS answers")
	}
	eventually(t, "a client that hung up is noticed", func() bool { return b.Stats().Open == 0 })
}

// TestMany shows that a rack of BMCs fits into one process.
func TestMany(t *testing.T) {
	cert, err := bmc.NewCertificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 200 {
		b := start(t, bmc.Config{Certificate: cert})
		c := newClient(t, b)
		wg.Go(func() {
			a, err := c.try("GET", "/redfish/v1", "")
			if err != nil || a.status != 200 {
				t.Errorf("%v, %v", a, err)
			}
		})
	}
	wg.Wait()
}

func TestCloseWithoutRun(t *testing.T) {
	b, err := bmc.New(bmc.Config{})
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	if err := b.Run(t.Context()); err != nil {
		t.Errorf("run after close: %v", err)
	}
	if _, err := bmc.New(bmc.Config{Listen: "192.0.2.1:1"}); err == nil {
		t.Error("listens at an address that is not ours")
	}
}

// FuzzRequest sends whatever to whatever: no answer may be a 5xx without a
// reason, and nothing may panic.
func FuzzRequest(f *testing.F) {
	b, err := bmc.New(bmc.Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(b.Close)
	f.Add("POST", "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset", []byte(`{"ResetType":"On"}`))
	f.Add("PATCH", "/redfish/v1/Systems/1", []byte(`{"Boot":{"BootSourceOverrideTarget":"Pxe"}}`))
	f.Add("POST", "/redfish/v1/SessionService/Sessions/", []byte(`{"UserName":"admin","Password":"password"}`))
	f.Add("GET", "/redfish/v1/Managers/BMC/EthernetInterfaces/eth0", []byte(nil))
	f.Fuzz(func(t *testing.T, method, path string, body []byte) {
		req, err := http.NewRequest(method, "https://bmc/", bytes.NewReader(body))
		if err != nil {
			return
		}
		req.URL.Path = "/" + strings.TrimLeft(path, "/")
		req.SetBasicAuth("admin", "password")
		w := &sink{header: http.Header{}}
		b.ServeHTTP(w, req)
		if w.status == 500 || w.status == 0 {
			t.Errorf("%s %q %q: %d", method, path, body, w.status)
		}
	})
}

// sink is a ResponseWriter.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header { return s.header }

func (s *sink) WriteHeader(status int) {
	if s.status == 0 {
		s.status = status
	}
}

func (s *sink) Write(p []byte) (int, error) {
	s.WriteHeader(200)
	return len(p), nil
}
