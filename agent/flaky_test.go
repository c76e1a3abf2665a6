package agent_test

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/ironring/ironring/agent"
	"github.com/ironring/ironring/agent/qcow2/qcow2test"
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
)

// flaky is a machine whose disks do not keep the byte at a place.
type flaky struct {
	agent.Hardware
	at int64
}

func (f flaky) OpenDisk(ctx context.Context, name string) (agent.BlockDevice, error) {
	d, err := f.Hardware.OpenDisk(ctx, name)
	return flakyDisk{d, f.at}, err
}

type flakyDisk struct {
	agent.BlockDevice
	at int64
}

func (d flakyDisk) WriteAt(p []byte, off int64) (int, error) {
	if off <= d.at && d.at < off+int64(len(p)) {
		p = bytes.Clone(p)
		p[d.at-off] ^= 1
	}
	return d.BlockDevice.WriteAt(p, off)
}

// A disk that does not keep what it is given is found by reading back, and
// does not boot.
func TestFlakyDisk(t *testing.T) {
	hole := []qcow2test.Kind{qcow2test.Plain, qcow2test.Hole}
	for name, c := range map[string]struct {
		at    int64
		qcow2 bool
		text  string
	}{
		"raw":         {5 << 20, false, "does not hold what was written"},
		"qcow2, data": {5<<20 + 7, true, "does not hold what was written"},
		"qcow2, hole": {5<<20 + 1<<16, true, "that the image leaves empty"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.cfg.Hardware = flaky{w.machine, c.at}
			w.start(w.Peer(""))
			w.Hello(1)
			fill(t, w.path("vda"))
			img := newImage(t, 8<<20)
			if c.qcow2 {
				img, _ = newQcow2(t, qcow2test.Config{Size: 8 << 20, Kinds: hole})
			}
			st := w.run("w", agentproto.CmdWriteImage, img.found(diskA()))
			if st.State != api.CommandStatus_FAILED || !strings.Contains(st.Error, c.text) {
				t.Error(st)
			}
			b, err := os.ReadFile(w.path("vda"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b[:1<<20], make([]byte, 1<<20)) {
				t.Error("the disk's head is not empty")
			}
		})
	}
}
