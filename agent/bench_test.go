//go:build bench

package agent_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/ironring/ironring/agent"
	"github.com/ironring/ironring/agent/linuxhw"
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/benchtest"
)

const (
	benchImage = 1 << 30
	benchRuns  = 5
)

// loopMachine is a machine whose one disk is a loop device.
type loopMachine struct {
	agent.Hardware // the one of files, for all but disks
	real           *linuxhw.Machine
	disk           agentproto.Disk
}

func (m *loopMachine) Disks(context.Context) ([]agentproto.Disk, error) {
	return []agentproto.Disk{m.disk}, nil
}

func (m *loopMachine) OpenDisk(ctx context.Context, name string) (agent.BlockDevice, error) {
	return m.real.OpenDisk(ctx, name)
}

// BenchmarkWriteImage writes an image to a loop device, from a server in
// this process, and measures in the same run what the disk
// takes (dd) and what one core hashes (sha256sum, and the same in this process).
// Medians. Reading back is timed apart. Root, Linux.
func BenchmarkWriteImage(b *testing.B) {
	dir := b.TempDir()
	dev := loopDevice(b, dir)
	img := filepath.Join(dir, "image")
	makeImage(b, img)
	w := newWorld(b, nil)
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(filepath.Join(root, "dev"), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.Symlink(dev, filepath.Join(root, "dev/sda")); err != nil {
		b.Fatal(err)
	}
	disk := agentproto.Disk{Name: "/dev/sda", Serial: "LOOP", SizeBytes: benchImage, LogicalBlk: 512, Tran: "sata"}
	w.cfg.Hardware = &loopMachine{Hardware: w.machine, real: linuxhw.New(linuxhw.Config{Root: root}), disk: disk}
	w.start(w.Peer(""))
	w.Hello(1)
	url := serveFiles(b, dir)
	id := agentproto.DiskID{Name: disk.Name, Serial: disk.Serial, SizeBytes: disk.SizeBytes}

	all := map[string][]float64{}
	note := func(name string, v float64) { all[name] = append(all[name], v) }
	n := 0
	for range benchRuns {
		note("dd", mbps(b, "dd", "if=/dev/zero", "of="+dev, "oflag=direct", "bs=4M", "count="+strconv.Itoa(benchImage>>22)))
		note("sha256sum", mbps(b, "sha256sum", img))
		began := time.Now()
		sumOf(b, img)
		note("crypto/sha256", benchImage/1e6/time.Since(began).Seconds())
		for _, kind := range []string{"", "zstd"} {
			n++
			file := img
			if kind != "" {
				file += ".zst"
			}
			st := runBench(w, fmt.Sprint("b", n), agentproto.WriteImageArgs{URLs: []string{url + "/" + filepath.Base(file)}, Compress: kind, Checksum: "sha256:" + sumOf(b, file), Disk: agentproto.JudgedDisk{DiskID: id}})
			var res agentproto.WriteImageResult
			if err := json.Unmarshal(st.Result, &res); st.State != api.CommandStatus_DONE || err != nil {
				b.Fatal(st)
			}
			name := map[string]string{"": "raw", "zstd": "zstd"}[kind]
			note(name, benchImage/1e6/res.WriteSeconds)
			note(name+"_verify", benchImage/1e6/res.VerifySeconds)
		}
	}
	rate := map[string]float64{}
	for name, v := range all {
		slices.Sort(v)
		rate[name] = v[len(v)/2]
	}
	ceiling := min(rate["dd"], rate["sha256sum"])
	for _, kind := range []string{"raw", "zstd"} {
		b.Run(kind, func(b *testing.B) {
			b.ReportMetric(rate[kind], "ours-MB/s")
			b.ReportMetric(ceiling, "ceiling-MB/s")
			b.ReportMetric(100*rate[kind]/ceiling, "%ofceiling")
			for _, name := range []string{"dd", "sha256sum", "crypto/sha256"} {
				b.ReportMetric(rate[name], name+"-MB/s")
			}
			b.ReportMetric(rate[kind+"_verify"], "verify-MB/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// runBench is a command that may take long.
func runBench(w *world, id string, a agentproto.WriteImageArgs) *api.CommandStatus {
	w.Command(1, id, agentproto.CmdWriteImage, args(w.t, a))
	deadline := time.Now().Add(5 * time.Minute)
	for time.Now().Before(deadline) {
		for _, u := range slices.Backward(w.Ups()) {
			if st := u.GetStatus(); st.GetCmdId() == id && st.GetState() != api.CommandStatus_RUNNING {
				return st
			}
		}
		<-time.After(20 * time.Millisecond)
	}
	w.t.Fatal("the image is not written in 5 minutes")
	return nil
}

func loopDevice(b *testing.B, dir string) string {
	b.Helper()
	if os.Getuid() != 0 {
		benchtest.NotRun(b, "a loop device needs root")
	}
	file := filepath.Join(dir, "disk")
	run(b, "fallocate", "-l", strconv.Itoa(benchImage), file)
	// Written once before, so that no run pays for finding the blocks.
	run(b, "dd", "if=/dev/zero", "of="+file, "bs=4M", "count="+strconv.Itoa(benchImage>>22), "conv=notrunc,fsync")
	out, err := exec.Command("losetup", "--find", "--show", "--direct-io=on", file).CombinedOutput()
	dev := strings.TrimSpace(string(out))
	if err != nil {
		benchtest.NotRun(b, "no loop device: %v: %s", err, dev)
	}
	b.Cleanup(func() { run(b, "losetup", "--detach", dev) })
	return dev
}

func run(b *testing.B, name string, arg ...string) string {
	b.Helper()
	out, err := exec.Command(name, arg...).CombinedOutput()
	if err != nil {
		b.Fatalf("%s: %v: %s", name, err, out)
	}
	return string(out)
}

// mbps times a program that goes over benchImage bytes.
func mbps(b *testing.B, name string, arg ...string) float64 {
	b.Helper()
	began := time.Now()
	run(b, name, arg...)
	return benchImage / 1e6 / time.Since(began).Seconds()
}

// makeImage is half noise and half text, which compresses to about a half.
func makeImage(b *testing.B, path string) {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	zf, err := os.Create(path + ".zst")
	if err != nil {
		b.Fatal(err)
	}
	defer zf.Close()
	z, err := zstd.NewWriter(zf)
	if err != nil {
		b.Fatal(err)
	}
	rnd := rand.NewChaCha8([32]byte{1})
	text := bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog "), 1<<20/44+1)[:1<<20]
	noise := make([]byte, 1<<20)
	for i := range benchImage >> 20 {
		p := text
		if i%2 == 0 {
			if _, err := io.ReadFull(rnd, noise); err != nil {
				b.Fatal(err)
			}
			p = noise
		}
		if _, err := io.MultiWriter(f, z).Write(p); err != nil {
			b.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		b.Fatal(err)
	}
}

func sumOf(b *testing.B, path string) string {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		b.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func serveFiles(b *testing.B, dir string) string {
	b.Helper()
	s := httptest.NewServer(http.FileServer(http.Dir(dir)))
	b.Cleanup(s.Close)
	return s.URL
}
