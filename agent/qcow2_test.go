package agent_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ironring/ironring/agent/qcow2"
	"github.com/ironring/ironring/agent/qcow2/qcow2test"
	"github.com/ironring/ironring/api"
	"github.com/ironring/ironring/internal/agentproto"
	"github.com/ironring/ironring/internal/errs"
)

// newQcow2 is a qcow2 file behind a server.
func newQcow2(t *testing.T, cfg qcow2test.Config) (*image, qcow2test.File) {
	t.Helper()
	f := qcow2test.Make(t, cfg)
	img := newImage(t, 1)
	img.content, img.served = f.Disk, f.Bytes
	return img, f
}

// found has the agent find the format by itself.
func (i *image) found(disk agentproto.DiskID) agentproto.WriteImageArgs {
	a := i.args("", disk)
	a.Format = ""
	return a
}

var mixed = []qcow2test.Kind{qcow2test.Plain, qcow2test.Plain, qcow2test.Hole, qcow2test.Packed, qcow2test.Packed, qcow2test.Zero, qcow2test.Packed}

func TestWriteQcow2(t *testing.T) {
	w := newWorld(t, nil)
	w.start(w.Peer(""))
	w.Hello(1)
	n := 0
	for name, cfg := range map[string]qcow2test.Config{
		"as on the disk":   {Size: 5 << 20, Kinds: []qcow2test.Kind{qcow2test.Plain}},
		"sparse":           {Size: diskSize, Kinds: []qcow2test.Kind{qcow2test.Hole, qcow2test.Hole, qcow2test.Hole, qcow2test.Plain}},
		"empty":            {Size: diskSize, Kinds: []qcow2test.Kind{qcow2test.Hole}},
		"mixed":            {Size: diskSize - 512, Kinds: mixed},
		"shuffled":         {Size: 5 << 20, Kinds: mixed, Shuffle: true},
		"tables last":      {Size: 4<<20 + 3, Kinds: mixed, Shuffle: true, TablesLast: true},
		"zstd":             {Size: 5 << 20, Kinds: mixed, Compression: qcow2.Zstd, Shuffle: true},
		"version 2":        {Version: 2, Size: 4 << 20, Kinds: []qcow2test.Kind{qcow2test.Packed, qcow2test.Plain, qcow2test.Hole}},
		"clusters of 512":  {ClusterBits: 9, Size: 3 << 20, Kinds: []qcow2test.Kind{qcow2test.Plain, qcow2test.Hole, qcow2test.Plain}, Shuffle: true},
		"clusters of 2 M":  {ClusterBits: 21, Size: 7 << 20, Kinds: []qcow2test.Kind{qcow2test.Packed, qcow2test.Plain, qcow2test.Hole}, Shuffle: true},
		"smaller than one": {Size: 700, Kinds: []qcow2test.Kind{qcow2test.Plain}},
	} {
		t.Run(name, func(t *testing.T) {
			n++
			fill(t, w.path("vda"))
			img, f := newQcow2(t, cfg)
			a := img.found(diskA())
			a.Format = []string{"", "qcow2"}[n%2]
			st := w.run(fmt.Sprint("q", n), agentproto.CmdWriteImage, a)
			var res agentproto.WriteImageResult
			if err := json.Unmarshal(st.Result, &res); st.State != api.CommandStatus_DONE || err != nil {
				t.Fatal(st)
			}
			if res.Format != "qcow2" || res.ContentDigest != res.WrittenDigest || !strings.HasPrefix(res.ContentDigest, "sha256-clusters:") || res.ReadDigest != a.Checksum ||
				res.BytesRead != uint64(len(f.Bytes)) || res.BytesWritten > uint64(len(f.Disk)) {
				t.Errorf("%+v", res)
			}
			img.check(t, w.path("vda"))
		})
	}
}

// The one pass over the file is gone on with where a connection broke.
func TestWriteQcow2Resumes(t *testing.T) {
	w := newWorld(t, nil)
	w.start(w.Peer(""))
	w.Hello(1)
	fill(t, w.path("vda"))
	img, f := newQcow2(t, qcow2test.Config{Size: 6 << 20, Kinds: mixed, Shuffle: true, TablesLast: true})
	rnd := rand.New(rand.NewSource(3))
	img.serve = func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("ETag", `"one"`)
		http.ServeContent(&cutWriter{rw, 1000 + rnd.Intn(1<<20)}, r, "x", time.Time{}, bytes.NewReader(img.served))
	}
	st := w.run("w", agentproto.CmdWriteImage, img.found(diskA()))
	var res agentproto.WriteImageResult
	if err := json.Unmarshal(st.Result, &res); err != nil || st.State != api.CommandStatus_DONE {
		t.Fatal(st)
	}
	if res.Requests < 5 || int64(res.Requests) != img.requests.Load() || res.BytesRead != uint64(len(f.Bytes)) {
		t.Errorf("%+v, %d requests served", res, img.requests.Load())
	}
	img.check(t, w.path("vda"))
}

// What cannot be written leaves the disk alone or without a head.
func TestWriteQcow2Fails(t *testing.T) {
	w := newWorld(t, nil)
	w.start(w.Peer(""))
	w.Hello(1)
	plain := qcow2test.Config{Size: 4 << 20, Kinds: mixed}
	for i, c := range []struct {
		name   string
		cfg    qcow2test.Config
		broken func(i *image, f qcow2test.File, a *agentproto.WriteImageArgs)
		kind   errs.Kind
		text   string
		clean  bool // nothing may have been written at all
	}{
		{"said to be raw", plain, func(_ *image, _ qcow2test.File, a *agentproto.WriteImageArgs) { a.Format = "raw" }, errs.Invalid, "qcow2, not raw", true},
		{"backing file", plain, func(i *image, _ qcow2test.File, a *agentproto.WriteImageArgs) {
			i.served[15], i.served[19] = 200, 11
			copy(i.served[200:], "/etc/shadow")
			*a = i.found(a.Disk.DiskID)
		}, errs.Unsupported, "backing file", true},
		{"too large", qcow2test.Config{Size: diskSize + 1, Kinds: mixed}, nil, errs.Invalid, "more than the", true},
		{"truncated", plain, func(i *image, f qcow2test.File, a *agentproto.WriteImageArgs) {
			i.served = i.served[:len(i.served)-100<<10]
			*a = i.found(a.Disk.DiskID)
		}, errs.Invalid, "behind its end", true},
		{"digest", plain, func(_ *image, _ qcow2test.File, a *agentproto.WriteImageArgs) {
			a.Checksum = "sha256:" + strings.Repeat("00", 32)
		}, errs.Invalid, "digest mismatch", false},
		{"no ranges", plain, func(i *image, _ qcow2test.File, _ *agentproto.WriteImageArgs) {
			i.serve = func(rw http.ResponseWriter, r *http.Request) {
				r.Header.Del("Range")
				http.ServeContent(rw, r, "x", time.Time{}, bytes.NewReader(i.served))
			}
		}, errs.Unsupported, "byte ranges", true},
		{"no length", plain, func(i *image, _ qcow2test.File, _ *agentproto.WriteImageArgs) {
			i.serve = func(rw http.ResponseWriter, r *http.Request) {
				rw.(http.Flusher).Flush()
				rw.Write(i.served)
			}
		}, errs.Unsupported, "how long", true},
		{"rubbish in a cluster", plain, func(i *image, f qcow2test.File, a *agentproto.WriteImageArgs) {
			at := binary.BigEndian.Uint64(f.Bytes[f.L2+8*3:]) & (1<<54 - 1) // cluster 3 is compressed
			for k := range 200 {
				i.served[at+uint64(k)] = 0xff
			}
			*a = i.found(a.Disk.DiskID)
		}, errs.Invalid, "damaged qcow2 file: compressed cluster", false},
		{"other tables in the pass", plain, func(i *image, f qcow2test.File, _ *agentproto.WriteImageArgs) {
			i.serve = func(rw http.ResponseWriter, r *http.Request) {
				b := i.served
				if r.Header.Get("Range") != "" {
					b = bytes.Clone(i.served)
					copy(b[f.L2+8:f.L2+16], make([]byte, 8)) // cluster 1 is said to be a hole
				}
				http.ServeContent(rw, r, "x", time.Time{}, bytes.NewReader(b))
			}
		}, errs.Conflict, "changed while it was read", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			fill(t, w.path("vda"))
			before := w.machine.BytesWritten("/dev/vda")
			img, f := newQcow2(t, c.cfg)
			a := img.found(diskA())
			if c.broken != nil {
				c.broken(img, f, &a)
			}
			st := w.run(fmt.Sprint("f", i), agentproto.CmdWriteImage, a)
			if st.State != api.CommandStatus_FAILED || errs.ParseKind(st.ErrorKind) != c.kind || !strings.Contains(st.Error, c.text) {
				t.Errorf("%v %s: %s", st.State, st.ErrorKind, st.Error)
			}
			if touched := w.machine.BytesWritten("/dev/vda") != before; touched == c.clean {
				t.Errorf("disk touched: %v", touched)
			}
			if c.clean {
				return
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
