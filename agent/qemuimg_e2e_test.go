//go:build e2e

package agent_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"testing"

	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
)

func qemuImg(t *testing.T, arg ...string) {
	t.Helper()
	if out, err := exec.Command("qemu-img", arg...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %q: %v: %s", arg, err, out)
	}
}

// What qemu-img makes is on the disk what qemu-img would make of it.
func TestQemuImg(t *testing.T) {
	w := newWorld(t, nil)
	w.start(w.Peer(""))
	w.Hello(1)
	raw := w.path("raw")
	content := make([]byte, diskSize-512)
	rnd := rand.New(rand.NewSource(9))
	for off := 0; off < len(content); off += 192 << 10 { // noise, text, nothing
		part := content[off:min(off+192<<10, len(content))]
		rnd.Read(part[:min(64<<10, len(part))])
		if len(part) > 64<<10 {
			copy(part[64<<10:], bytes.Repeat([]byte("text "), 10<<10))
		}
	}
	clear(content[5<<20 : 9<<20])
	if err := os.WriteFile(raw, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, c := range [][]string{
		{}, {"-c"}, {"-o", "compat=0.10"}, {"-c", "-o", "compression_type=zstd"}, {"-o", "cluster_size=512"}, {"-c", "-o", "cluster_size=2M"},
		{"-o", "preallocation=metadata"}, {"-o", "preallocation=full"}, {"-o", "lazy_refcounts=on"}, {"-S", "0"}, {"-m", "8", "-W"},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			file := w.path(fmt.Sprint("image", i))
			qemuImg(t, append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, c...), raw, file)...)
			served, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			fill(t, w.path("vda"))
			img := newImage(t, 1)
			img.content, img.served = content, served
			st := w.run(fmt.Sprint("q", i), agentproto.CmdWriteImage, img.found(diskA()))
			var res agentproto.WriteImageResult
			if err := json.Unmarshal(st.Result, &res); st.State != api.CommandStatus_DONE || err != nil || res.Format != "qcow2" {
				t.Fatal(st)
			}
			img.check(t, w.path("vda"))
		})
	}
	t.Run("refused", func(t *testing.T) {
		base := w.path("image0")
		for i, c := range [][]string{
			{"create", "-f", "qcow2", "-b", base, "-F", "qcow2"},
			{"create", "-f", "qcow2", "-o", "data_file=" + w.path("data"), "", "8M"},
			{"create", "-f", "qcow2", "-o", "extended_l2=on", "", "8M"},
			{"create", "-f", "qcow2", "", "17M"},
		} {
			file := w.path(fmt.Sprint("bad", i))
			for k, a := range c {
				if a == "" {
					c[k] = file
				}
			}
			if i == 0 {
				c = append(c, file)
			}
			qemuImg(t, c...)
			served, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			img := newImage(t, 1)
			img.served = served
			before := w.machine.BytesWritten("/dev/vda")
			if st := w.run(fmt.Sprint("bad", i), agentproto.CmdWriteImage, img.found(diskA())); st.State != api.CommandStatus_FAILED || w.machine.BytesWritten("/dev/vda") != before {
				t.Errorf("%q: %v", c, st)
			}
		}
	})
}
