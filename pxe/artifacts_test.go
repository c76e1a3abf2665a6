package pxe

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/bootpath"
	"github.com/ironring/ironring/internal/errs"
)

// files is a store in memory.
type files map[string][]byte

func (f files) Open(_ context.Context, digest string) (io.ReadSeekCloser, error) {
	b, ok := f[digest]
	switch {
	case !ok:
		return nil, errs.New(errs.NotFound, "no such artifact")
	case b == nil:
		return nil, errs.New(errs.Unreachable, "nobody has it")
	}
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(b), io.NopCloser(nil)}, nil
}

func hexSum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// publish makes a ramdisk of two artifacts.
func (w *world) publish(arch string, kernel, initramfs []byte) {
	w.t.Helper()
	set := func(b []byte, kind api.Artifact_Kind) *api.Op {
		return &api.Op{Op: &api.Op_ArtifactSet{ArtifactSet: &api.ArtifactSet{Artifact: &api.Artifact{
			Digest: hexSum(b), Size: uint64(len(b)), Kind: kind, Copies: []string{"p1"},
		}}}}
	}
	w.do(set(kernel, api.Artifact_KERNEL), set(initramfs, api.Artifact_INITRAMFS))
	w.do(&api.Op{Op: &api.Op_RamdiskSet{RamdiskSet: &api.RamdiskSet{Ramdisk: &api.Ramdisk{
		Arch: arch, Purpose: bootpath.DefaultPurpose, Kernel: hexSum(kernel), Initramfs: hexSum(initramfs),
	}}}})
}

// A published ramdisk is booted by digest, from any peer; without one the
// files of the ramdisk directory are.
func TestScriptOfPublishedRamdisk(t *testing.T) {
	w := newWorld(t)
	script := func(mac string) string {
		return string(Record(w.store.View(), mac).Script(LineConfig{CADigest: digest}))
	}
	if s := script(macDeploying); !strings.Contains(s, "${base}"+pathKernel+" ") || strings.Contains(s, bootpath.Artifact) {
		t.Errorf("nothing published:\n%s", s)
	}
	w.publish("aarch64", []byte("other kernel"), []byte("other initramfs"))
	if s := script(macDeploying); strings.Contains(s, bootpath.Artifact) {
		t.Errorf("another architecture's:\n%s", s)
	}
	kernel, initramfs := []byte("kernel"), []byte("initramfs")
	w.publish("x86_64", kernel, initramfs)
	s := script(macDeploying)
	if !strings.Contains(s, "${base}"+bootpath.Artifact+hexSum(kernel)+" initrd=") || !strings.Contains(s, "${base}"+bootpath.Artifact+hexSum(initramfs)+" ") || strings.Contains(s, pathKernel) {
		t.Errorf("published:\n%s", s)
	}
	if s := script(macActive); strings.Contains(s, bootpath.Artifact) {
		t.Errorf("a local boot:\n%s", s)
	}
}

func TestArtifactsAreServed(t *testing.T) {
	kernel, lost := bytes.Repeat([]byte("kernel "), 50_000), []byte("lost")
	r := newRig(t, func(c *Config) { c.Files = files{hexSum(kernel): kernel, hexSum(lost): nil} })
	r.publish("x86_64", kernel, []byte("initramfs"))
	r.address(macDeploying)
	url := r.url(bootpath.Artifact + hexSum(kernel))
	res, body := r.request(t, http.MethodGet, url, loopMachine, nil)
	if res.StatusCode != http.StatusOK || !bytes.Equal(body, kernel) || res.Header.Get("ETag") != `"sha256:`+hexSum(kernel)+`"` {
		t.Errorf("%d, %d bytes, ETag %q", res.StatusCode, len(body), res.Header.Get("ETag"))
	}
	r.find(kindHTTP, stageKernel, "350000 bytes sent")
	res, body = r.request(t, http.MethodGet, url, loopMachine, http.Header{"Range": {"bytes=349990-"}, "If-Range": {res.Header.Get("ETag")}})
	if res.StatusCode != http.StatusPartialContent || !bytes.Equal(body, kernel[349990:]) {
		t.Errorf("range: %d, %q", res.StatusCode, body)
	}
	res, body = r.request(t, http.MethodHead, url, loopMachine, nil)
	if res.StatusCode != http.StatusOK || res.ContentLength != 350000 || len(body) != 0 {
		t.Errorf("HEAD: %d, %d", res.StatusCode, res.ContentLength)
	}
	for path, want := range map[string]int{
		bootpath.Artifact + hexSum(lost):                     http.StatusServiceUnavailable,
		bootpath.Artifact + hexSum([]byte("unknown")):        http.StatusNotFound,
		bootpath.Artifact:                                    http.StatusNotFound,
		bootpath.Artifact + "../" + hexSum(kernel):           http.StatusNotFound,
		bootpath.Artifact + strings.ToUpper(hexSum(kernel)):  http.StatusNotFound,
		"/artifact/" + hexSum(kernel):                        http.StatusNotFound,
		bootpath.Artifact + hexSum(kernel) + "/../../secret": http.StatusNotFound,
	} {
		if status, _ := r.http(t, http.MethodGet, r.url(path), loopMachine, nil); status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
	}
	if status, _ := r.http(t, http.MethodPost, url, loopMachine, nil); status != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", status)
	}
}
