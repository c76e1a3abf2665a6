package pxe

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/api"
)

func TestScriptAccess(t *testing.T) {
	lost := time.Duration(0)
	r := newRig(t, func(c *Config) { c.LeaderSeen = func() time.Duration { return lost } })
	r.address(macDeploying)
	r.address(macActive)
	boot := r.url(pathBoot + macDeploying)
	get := func(url, from string) (int, string) {
		t.Helper()
		status, body := r.http(t, http.MethodGet, url, from, nil)
		return status, string(body)
	}

	status, right := get(boot, loopMachine)
	if status != http.StatusOK || right != string(Record(r.store.View(), macDeploying).Script(r.srv.cfg.line())) {
		t.Fatalf("%d %s", status, right)
	}
	if status, body := get(r.url(pathBoot+"52-54-00-00-00-01"), loopMachine); status != http.StatusOK || body != right {
		t.Errorf("hyphens: %d", status)
	}
	res, body := r.request(t, http.MethodHead, boot, loopMachine, nil)
	if res.StatusCode != http.StatusOK || res.ContentLength != int64(len(right)) || len(body) != 0 {
		t.Errorf("HEAD: %d, length %d", res.StatusCode, res.ContentLength)
	}

	// The nonce goes to the machine's own address only.
	for _, from := range []string{"127.77.0.51", "127.77.0.77", loopPeer, "127.0.0.1"} {
		if status, body := get(boot, from); status != http.StatusForbidden || strings.Contains(body, nonce) {
			t.Errorf("from %s: %d %s", from, status, body)
		}
	}
	r.find(kindHTTP, stageScript, "from 127.77.0.51: refused, the address is not the one allocated")
	if !strings.Contains(r.logged(), "asks from an address that is not its own") {
		t.Error("no warning was logged")
	}
	if strings.Contains(r.logged(), nonce) {
		t.Error("the nonce is in the log")
	}

	// A local boot is no secret.
	if status, body := get(r.url(pathBoot+macActive), "127.0.0.1"); status != http.StatusOK || !strings.Contains(body, "exit 1") {
		t.Errorf("local: %d %s", status, body)
	}
	for _, path := range []string{pathBoot + macUnknown, pathBoot, pathBoot + "..", pathBoot + macDeploying + "/..", "/", "/ramdisk/", "/ramdisk/secret",
		"/ramdisk/../secret", "/ipxe/", "/ipxe/secret", "/ipxe/../secret", "/ipxe/%2e%2e/secret", "/ipxe/..%2fsecret", "//ramdisk/vmlinuz"} {
		if status, body := get(r.url(path), loopMachine); status != http.StatusNotFound || strings.Contains(body, "secret\n") {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
		if status, _ := r.http(t, method, boot, loopMachine, nil); status != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, status)
		}
	}

	// A cut-off peer boots only what was under work.
	lost = StaleAfter + time.Second
	if status, _ := get(boot, loopMachine); status != http.StatusOK {
		t.Errorf("cut off, inspecting: %d", status)
	}
	r.boot(nodeActive, &api.Boot{Target: api.BootTarget_BOOT_RAMDISK, Nonce: nonce})
	if status, body := get(r.url(pathBoot+macActive), "127.77.0.51"); status != http.StatusServiceUnavailable || strings.Contains(body, nonce) {
		t.Errorf("cut off, manageable: %d %s", status, body)
	}
	lost = 0
	if status, _ := get(r.url(pathBoot+macActive), "127.77.0.51"); status != http.StatusOK {
		t.Errorf("in contact again: %d", status)
	}
}

func TestIndex(t *testing.T) {
	r := newRig(t, nil)
	r.address(macDeploying)
	boot := r.url(pathBoot + macDeploying)
	if status, _ := r.http(t, http.MethodGet, boot+"?index=1", loopMachine, nil); status != http.StatusOK {
		t.Errorf("applied: %d", status)
	}
	if status, _ := r.http(t, http.MethodGet, boot+"?index=x", loopMachine, nil); status != http.StatusBadRequest {
		t.Errorf("not a number: %d", status)
	}
	res, _ := r.request(t, http.MethodGet, boot+"?index=1000", loopMachine, nil)
	if want := "http://127.77.0.12:7484/boot/" + macDeploying + "?index=1000&sent=1"; res.StatusCode != http.StatusTemporaryRedirect || res.Header.Get("Location") != want {
		t.Errorf("behind: %d to %s, want %s", res.StatusCode, res.Header.Get("Location"), want)
	}
	if status, _ := r.http(t, http.MethodGet, boot+"?index=1000&sent=1", loopMachine, nil); status != http.StatusServiceUnavailable {
		t.Errorf("sent here by another: %d", status)
	}
}

func TestRamdisk(t *testing.T) {
	r := newRig(t, nil)
	r.address(macDeploying)
	kernel := r.url(pathKernel)
	want := content("vmlinuz", 3<<20)
	res, body := r.request(t, http.MethodHead, kernel, loopMachine, nil)
	if res.StatusCode != http.StatusOK || res.ContentLength != int64(len(want)) || len(body) != 0 {
		t.Errorf("HEAD: %d, %d", res.StatusCode, res.ContentLength)
	}
	for _, c := range []struct{ rng, want string }{
		{"bytes=0-9", string(want[:10])},
		{"bytes=1500000-", string(want[1500000:])},
		{"bytes=-5", string(want[len(want)-5:])},
	} {
		status, body := r.http(t, http.MethodGet, kernel, "127.0.0.1", http.Header{"Range": {c.rng}})
		if status != http.StatusPartialContent || string(body) != c.want {
			t.Errorf("%s: %d, %d bytes", c.rng, status, len(body))
		}
	}
	if status, _ := r.http(t, http.MethodGet, kernel, loopMachine, http.Header{"Range": {"bytes=99999999-"}}); status != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("past the end: %d", status)
	}
	status, body := r.http(t, http.MethodGet, r.url("/ipxe/snponly.efi"), loopMachine, nil)
	if status != http.StatusOK || !bytes.Equal(body, content("snponly.efi", 170001)) {
		t.Errorf("boot program: %d, %d bytes", status, len(body))
	}
	res, _ = r.request(t, http.MethodHead, r.url("/ipxe/snponly.efi"), loopMachine, nil)
	if res.StatusCode != http.StatusOK || res.ContentLength != 170001 {
		t.Errorf("HEAD of the boot program: %d, %d", res.StatusCode, res.ContentLength)
	}
	if err := os.Remove(filepath.Join(r.srv.cfg.RamdiskDir, "vmlinuz")); err != nil {
		t.Fatal(err)
	}
	if status, body := r.http(t, http.MethodGet, kernel, loopMachine, nil); status != http.StatusServiceUnavailable || !strings.Contains(string(body), "vmlinuz is missing") {
		t.Errorf("missing: %d %s", status, body)
	}
	r.find(kindHTTP, stageKernel, "vmlinuz is missing at this peer")
}

func TestMissingFilesAreWarnedOf(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t, func(c *Config) { c.RamdiskDir, c.IPXEDir = "", dir })
	if status, body := r.http(t, http.MethodGet, r.url(pathKernel), loopMachine, nil); status != http.StatusServiceUnavailable || !strings.Contains(string(body), "no ramdisk directory") {
		t.Errorf("%d %s", status, body)
	}
	r.stop()
	for _, f := range []string{"vmlinuz", "initramfs.img", filepath.Join(dir, "snponly.efi"), filepath.Join(dir, "undionly.kpxe")} {
		if !strings.Contains(r.logged(), f) {
			t.Errorf("no warning about %s:\n%s", f, r.logged())
		}
	}
}

func TestTimelineIsBounded(t *testing.T) {
	r := newRig(t, nil)
	m := machine{mac: macDeploying, nodeID: nodeDeploying}
	for range 1000 {
		r.srv.http.line.add(m, kindHTTP, stageScript, "again")
	}
	r.srv.http.line.add(machine{mac: macUnknown}, kindHTTP, stageScript, "a stranger")
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.events); n < eventsBurst || n > 2*eventsBurst {
		t.Errorf("%d events of 1000", n)
	}
}

// FuzzNames: no path or TFTP name reaches a file outside the tables.
func FuzzNames(f *testing.F) {
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("the secret"), 0o600); err != nil {
		f.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		f.Fatal(err)
	}
	cfg := Config{Store: newWorld(f).store, Self: "p1", CADigest: digest, RamdiskDir: filepath.Join(dir, "sub"), IPXEDir: filepath.Join(dir, "sub")}
	srv, err := New(cfg)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(srv.Close)
	h := srv.http.handler()
	for _, s := range []string{"/ramdisk/vmlinuz", "/boot/52:54:00:00:00:01", "/ipxe/../secret", "../secret", "/secret", "snponly.efi"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if b, err := srv.tftp.programs.read(name); err == nil {
			t.Errorf("%q gave %d bytes from an empty directory", name, len(b))
		}
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.URL.Path = name
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if strings.Contains(w.Body.String(), "the secret") || strings.Contains(w.Body.String(), nonce) {
			t.Errorf("%q gave %s", name, w.Body)
		}
	})
}
