package machine

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/pxe/media"
)

// A simulated machine finds its parameters on the media that peers make.
func TestCDROM(t *testing.T) {
	dir := t.TempDir()
	grub := filepath.Join(dir, "grub")
	if err := os.WriteFile(grub, []byte("grub"), 0o600); err != nil {
		t.Fatal(err)
	}
	maker, err := media.New(media.Config{Dir: filepath.Join(dir, "media"), Loader: media.Loader{GRUB: grub}, Open: func(context.Context, string) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(make([]byte, 5000))), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	const node, nonce = "11111111-1111-4111-8111-111111111111", "00112233445566778899aabbccddeeff"
	text := agentproto.LineNode + "=" + node + " " + agentproto.LineNonce + "=" + nonce + " " + agentproto.LinePeers + "=127.0.0.1:7483 " +
		agentproto.LineCA + "=" + strings.Repeat("ab", 32) + " console=ttyS0"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		im, err := maker.Image(r.Context(), "k", "i", media.Params{KernelLine: text})
		if err != nil {
			t.Error(err)
			return
		}
		defer im.Close()
		http.ServeContent(w, r, "", time.Time{}, im)
	}))
	defer srv.Close()
	line, ok, err := cdrom(t.Context(), srv.URL+"/m.iso")
	if err != nil || !ok || line.Node != node || line.Nonce != nonce || line.BootMAC != "" {
		t.Errorf("%+v, %v, %v", line, ok, err)
	}
	if _, ok, err := cdrom(t.Context(), ""); ok || err != nil {
		t.Errorf("no medium: %v, %v", ok, err)
	}
	for name, iso := range map[string][]byte{"nothing": nil, "no ISO": make([]byte, 1<<20), "no line": append(append(make([]byte, 16*2048), "\x01CD001"...), make([]byte, 8192)...)} {
		if _, err := kernelLine(iso); err == nil {
			t.Errorf("%s was booted", name)
		}
	}
}
