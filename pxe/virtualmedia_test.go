package pxe

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/bootpath"
	"github.com/ironring/ironring/pxe/media"
)

// A boot medium is served to who knows the nonce, whole and in pieces, while
// the node boots the ramdisk, and carries the node's parameters.
func TestMediumIsServed(t *testing.T) {
	dir := t.TempDir()
	grub := filepath.Join(dir, "grub")
	if err := os.WriteFile(grub, []byte("grub"), 0o600); err != nil {
		t.Fatal(err)
	}
	kernel, initramfs := bytes.Repeat([]byte("kernel "), 5000), bytes.Repeat([]byte("initramfs "), 5000)
	all := files{hexSum(kernel): kernel, hexSum(initramfs): initramfs}
	maker, err := media.New(media.Config{Dir: filepath.Join(dir, "media"), Loader: media.Loader{GRUB: grub}, Open: func(ctx context.Context, key string) (io.ReadCloser, error) {
		return all.Open(ctx, key)
	}})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(c *Config) { c.Media = maker })
	url := r.url(bootpath.Medium(nodeDeploying, nonce))
	get := func(url string, h http.Header) (int, []byte) {
		t.Helper()
		res, body := r.request(t, http.MethodGet, url, loopPeer, h)
		return res.StatusCode, body
	}
	if status, body := get(url, nil); status != http.StatusNotFound || !strings.Contains(string(body), "no ramdisk is published") {
		t.Errorf("nothing published: %d %s", status, body)
	}
	r.publish("x86_64", kernel, initramfs)
	status, iso := get(url, nil)
	if status != http.StatusOK || !bytes.Contains(iso, kernel) || !bytes.Contains(iso, initramfs) {
		t.Fatalf("%d, %d bytes", status, len(iso))
	}
	line := MediaRecord(r.store.View(), nodeDeploying).KernelLine(r.srv.cfg.line())
	if !bytes.Contains(iso, []byte("linux /ironring/vmlinuz "+line+"\n")) || !strings.Contains(line, "ironring.nonce="+nonce) || !strings.Contains(line, "BOOTIF=01-52-54-00-00-00-01") {
		t.Errorf("kernel line %q", line)
	}
	if status, part := get(url, http.Header{"Range": {"bytes=34816-36863"}}); status != http.StatusPartialContent || !bytes.Equal(part, iso[34816:36864]) {
		t.Errorf("a piece: %d, %d bytes", status, len(part))
	}
	for name, path := range map[string]string{
		"another nonce":   bootpath.Medium(nodeDeploying, strings.Repeat("0", 32)),
		"no nonce":        bootpath.Medium(nodeDeploying, ""),
		"a local boot":    bootpath.Medium(nodeActive, ""),
		"another node":    bootpath.Medium(nodeVerifying, strings.Repeat("1", 32)),
		"an unknown node": bootpath.Medium("99999999-9999-4999-8999-999999999999", nonce),
		"the folder":      bootpath.Media,
	} {
		if status, body := get(r.url(path), nil); status != http.StatusNotFound || bytes.Contains(body, []byte(nonce)) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	if strings.Contains(r.logged(), nonce) {
		t.Error("the nonce is in the log")
	}
	// When the boot is over the address is dead.
	r.boot(nodeDeploying, &api.Boot{Target: api.BootTarget_BOOT_LOCAL})
	if status, _ := get(url, nil); status != http.StatusNotFound {
		t.Errorf("after the boot: %d", status)
	}
}

func TestMediumCarriesNetworkData(t *testing.T) {
	w := newWorld(t)
	w.publish("x86_64", []byte("kernel"), []byte("initramfs"))
	if rec := MediaRecord(w.store.View(), nodeNoPXE); rec.Target != api.BootTarget_BOOT_RAMDISK || rec.MAC != "" || strings.Contains(rec.KernelLine(LineConfig{CADigest: digest}), "BOOTIF") {
		t.Errorf("a node whose ports do not boot: %+v", rec)
	}
	if rec := MediaRecord(w.store.View(), nodeActive); rec.Target != api.BootTarget_BOOT_NOTHING || rec.Reason == "" {
		t.Errorf("a local boot: %+v", rec)
	}
}
